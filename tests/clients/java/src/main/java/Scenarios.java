import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.modelcontextprotocol.client.McpClient;
import io.modelcontextprotocol.client.McpSyncClient;
import io.modelcontextprotocol.client.transport.HttpClientStreamableHttpTransport;
import io.modelcontextprotocol.spec.McpError;
import io.modelcontextprotocol.spec.McpSchema;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * Uses an MCP server like an application, with the official Java SDK.
 *
 * <p>Its argument is JSON from tests/tests/e2e/interop/clients.rs, which documents the scenarios.
 * Prints one JSON object with the result of each. An expected error is part of the result; any
 * other error is thrown, so the exit code is 1. The SDK does not sign in, so the plan contains a
 * token.
 *
 * <p>It compiles with the newest release and with 0.11.3, and uses reflection for methods that only
 * one of them has.
 */
public final class Scenarios {
  private static final String SLOW = "test_slow_work";
  private static final ObjectMapper JSON = new ObjectMapper();

  private final JsonNode plan;
  private final List<McpSyncClient> open = new ArrayList<>();
  /** The progress of the current call, in order. */
  private final BlockingQueue<String> events = new LinkedBlockingQueue<>();
  private McpSyncClient service;
  private String protocol;

  private Scenarios(JsonNode plan) {
    this.plan = plan;
  }

  public static void main(String[] args) throws Exception {
    Scenarios scenarios = new Scenarios(JSON.readTree(args[0]));
    ObjectNode report = JSON.createObjectNode();
    report.put("client", scenarios.version());
    for (JsonNode name : scenarios.plan.get("scenarios")) {
      report.set(name.asText(), scenarios.run(name.asText()));
    }
    report.put("protocol", scenarios.protocol);
    System.out.println(report);
    scenarios.open.forEach(McpSyncClient::closeGracefully);
    // The SDK's threads would keep the process alive.
    System.exit(0);
  }

  private JsonNode run(String name) throws Exception {
    return switch (name) {
      case "flow" -> flow();
      case "progress" -> progress();
      case "lost_session" -> lostSession();
      case "proxies" -> proxies();
      default -> throw new IllegalArgumentException("this client has no scenario " + name);
    };
  }

  /** The SDK's release, from the name of its jar. */
  private String version() {
    String jar = McpClient.class.getProtectionDomain().getCodeSource().getLocation().getPath();
    return "java " + jar.replaceAll(".*/mcp(-core)?-|\\.jar$", "");
  }

  // --- Connections ------------------------------------------------------------------------------

  private McpSyncClient connect(String url) throws Exception {
    URI endpoint = URI.create(url);
    var transport = HttpClientStreamableHttpTransport.builder(endpoint.resolve("/").toString())
        .endpoint(endpoint.getPath())
        .requestBuilder(HttpRequest.newBuilder().header("Authorization", "Bearer " + plan.get("token").asText()))
        .resumableStreams(true);
    try {
      transport.getClass().getMethod("supportedProtocolVersions", List.class)
          .invoke(transport, List.of(plan.get("protocol").asText()));
    } catch (NoSuchMethodException old) {
      // This release supports a single revision.
    }
    McpSyncClient client = McpClient.sync(transport.build())
        .requestTimeout(Duration.ofSeconds(20))
        .progressConsumer(progress -> events.add(progress.message()))
        .build();
    McpSchema.InitializeResult initialized = client.initialize();
    if (protocol == null) {
      protocol = initialized.protocolVersion();
    }
    open.add(client);
    return client;
  }

  private McpSyncClient service() throws Exception {
    if (service == null) {
      service = connect(plan.get("service").asText());
    }
    return service;
  }

  // --- Scenarios --------------------------------------------------------------------------------

  private static String text(McpSyncClient client, String name, Map<String, Object> arguments, String progressToken) {
    Map<String, Object> meta = progressToken == null ? null : Map.of("progressToken", progressToken);
    McpSchema.CallToolResult result = client.callTool(new McpSchema.CallToolRequest(name, arguments, meta));
    return ((McpSchema.TextContent) result.content().get(0)).text();
  }

  private static String call(McpSyncClient client, JsonNode call) {
    return text(client, call.get("name").asText(), map(call.get("arguments")), null);
  }

  /** The error that {@code work} throws. */
  private static JsonNode errorOf(Runnable work) {
    try {
      work.run();
      return JSON.nullNode();
    } catch (RuntimeException error) {
      Throwable cause = error.getCause() == null ? error : error.getCause();
      ObjectNode failure = JSON.createObjectNode();
      failure.put("type", cause.getClass().getSimpleName());
      failure.put("message", error.getMessage() + ": " + cause.getMessage());
      if (error instanceof McpError mcp && mcp.getJsonRpcError() != null) {
        failure.put("code", mcp.getJsonRpcError().code());
      }
      return failure;
    }
  }

  /** Triggers a fault of this client's connection. */
  private boolean control(String what) throws Exception {
    HttpRequest request = HttpRequest.newBuilder(URI.create(plan.get("control").asText() + what))
        .POST(HttpRequest.BodyPublishers.ofString("")).build();
    String body = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body();
    return JSON.readTree(body).asBoolean();
  }

  /** Calls a tool with progress, and returns its events in order. */
  private ArrayNode reported(McpSyncClient client, JsonNode work) throws Exception {
    events.clear();
    String worked = text(client, SLOW, map(work.get("arguments")), "reported");
    ArrayNode reported = JSON.createArrayNode();
    // The SDK delivers progress concurrently with the result, which may overtake it.
    for (int step = 0; step < work.get("steps").asInt(); step++) {
      String event = events.poll(5, TimeUnit.SECONDS);
      if (event == null) {
        throw new IllegalStateException("missing progress after " + reported);
      }
      reported.add(event);
    }
    return reported.add(worked);
  }

  @SuppressWarnings("unchecked")
  private static Map<String, Object> map(JsonNode object) {
    return JSON.convertValue(object, Map.class);
  }

  private JsonNode flow() throws Exception {
    McpSyncClient client = connect(plan.get("url").asText());
    ObjectNode report = JSON.createObjectNode();
    report.set("tools", JSON.valueToTree(client.listTools().tools().stream().map(McpSchema.Tool::name).toList()));
    report.set("resourceTemplates", JSON.valueToTree(client.listResourceTemplates().resourceTemplates().stream()
        .map(McpSchema.ResourceTemplate::uriTemplate).toList()));
    report.put("text", call(client, plan.get("call")));
    var read = client.readResource(new McpSchema.ReadResourceRequest(plan.get("read").asText()));
    report.put("read", ((McpSchema.TextResourceContents) read.contents().get(0)).text());
    report.set("denied", errorOf(() -> call(client, plan.get("denied"))));
    return report;
  }

  private JsonNode progress() throws Exception {
    ObjectNode report = JSON.createObjectNode();
    report.set("events", reported(service(), plan.get("slow")));
    report.putArray("complaints");
    return report;
  }

  private JsonNode lostSession() throws Exception {
    McpSyncClient client = service();
    ObjectNode report = JSON.createObjectNode();
    report.put("ended", control("end-session"));
    report.set("error", errorOf(() -> text(client, "test_simple_text", Map.of(), null)));
    // The SDK starts a new session by itself, at the latest with the next request.
    report.put("again", text(client, "test_simple_text", Map.of(), null));
    return report;
  }

  private JsonNode proxies() throws Exception {
    ObjectNode report = JSON.createObjectNode();
    var proxies = plan.get("proxies").fields();
    while (proxies.hasNext()) {
      var proxy = proxies.next();
      McpSyncClient client = connect(proxy.getValue().asText());
      ObjectNode calls = report.putObject(proxy.getKey());
      calls.put("silent", text(client, SLOW, map(plan.get("silent").get(proxy.getKey())), null));
      calls.set("events", reported(client, plan.get("quick")));
      calls.put("protocol", client.getCurrentInitializationResult().protocolVersion());
    }
    return report;
  }
}
