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
 * Uses an MCP server as applications do, through the official Java SDK.
 *
 * <p>Its argument is JSON; tests/tests/e2e/front_door/clients.rs makes it and says what its
 * scenarios are. Prints one JSON object with what came of each. What a client is to be refused is
 * part of the result; whatever else goes wrong is thrown, so the exit code is 1. The SDK does not
 * sign in, so it is given a token.
 *
 * <p>It compiles against the newest release and against 0.11.3, and calls what only one of them has
 * by reflection.
 */
public final class Scenarios {
  private static final String SLOW = "test_slow_work";
  private static final ObjectMapper JSON = new ObjectMapper();

  private final JsonNode plan;
  private final List<McpSyncClient> open = new ArrayList<>();
  /** What came of the call that is under way, in its order. */
  private final BlockingQueue<String> events = new LinkedBlockingQueue<>();
  private McpSyncClient service;
  private String protocol;

  private Scenarios(JsonNode plan) {
    this.plan = plan;
  }

  public static void main(String[] args) throws Exception {
    Scenarios scenarios = new Scenarios(JSON.readTree(args[0]));
    ObjectNode seen = JSON.createObjectNode();
    seen.put("client", scenarios.version());
    for (JsonNode name : scenarios.plan.get("scenarios")) {
      seen.set(name.asText(), scenarios.run(name.asText()));
    }
    seen.put("protocol", scenarios.protocol);
    System.out.println(seen);
    scenarios.open.forEach(McpSyncClient::closeGracefully);
    // The SDK's threads would go on.
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

  /** The SDK's release, which its jar has in its name. */
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
      // It speaks the one revision that it has.
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
  private static JsonNode refused(Runnable work) {
    try {
      work.run();
      return JSON.nullNode();
    } catch (RuntimeException error) {
      Throwable cause = error.getCause() == null ? error : error.getCause();
      ObjectNode refused = JSON.createObjectNode();
      refused.put("type", cause.getClass().getSimpleName());
      refused.put("message", error.getMessage() + ": " + cause.getMessage());
      if (error instanceof McpError mcp && mcp.getJsonRpcError() != null) {
        refused.put("code", mcp.getJsonRpcError().code());
      }
      return refused;
    }
  }

  /** Has something happen to this client that it cannot do itself. */
  private boolean control(String what) throws Exception {
    HttpRequest request = HttpRequest.newBuilder(URI.create(plan.get("control").asText() + what))
        .POST(HttpRequest.BodyPublishers.noBody()).build();
    String answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body();
    return JSON.readTree(answer).asBoolean();
  }

  /** Calls what reports, and returns what came, in its order. */
  private ArrayNode reported(McpSyncClient client, JsonNode work) throws Exception {
    events.clear();
    String worked = text(client, SLOW, map(work.get("arguments")), "reported");
    ArrayNode reported = JSON.createArrayNode();
    // The SDK hands progress over beside the result, which may overtake it.
    for (int step = 0; step < work.get("steps").asInt(); step++) {
      String event = events.poll(5, TimeUnit.SECONDS);
      if (event == null) {
        throw new IllegalStateException("of the progress came " + reported);
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
    ObjectNode seen = JSON.createObjectNode();
    seen.set("tools", JSON.valueToTree(client.listTools().tools().stream().map(McpSchema.Tool::name).toList()));
    seen.set("resourceTemplates", JSON.valueToTree(client.listResourceTemplates().resourceTemplates().stream()
        .map(McpSchema.ResourceTemplate::uriTemplate).toList()));
    seen.put("text", call(client, plan.get("call")));
    var read = client.readResource(new McpSchema.ReadResourceRequest(plan.get("read").asText()));
    seen.put("read", ((McpSchema.TextResourceContents) read.contents().get(0)).text());
    seen.set("denied", refused(() -> call(client, plan.get("denied"))));
    return seen;
  }

  private JsonNode progress() throws Exception {
    ObjectNode seen = JSON.createObjectNode();
    seen.set("events", reported(service(), plan.get("slow")));
    seen.putArray("complaints");
    return seen;
  }

  private JsonNode lostSession() throws Exception {
    McpSyncClient client = service();
    ObjectNode seen = JSON.createObjectNode();
    seen.put("ended", control("end-session"));
    seen.set("error", refused(() -> text(client, "test_simple_text", Map.of(), null)));
    // The SDK starts again by itself, at the latest with the next request.
    seen.put("again", text(client, "test_simple_text", Map.of(), null));
    return seen;
  }

  private JsonNode proxies() throws Exception {
    ObjectNode seen = JSON.createObjectNode();
    var proxies = plan.get("proxies").fields();
    while (proxies.hasNext()) {
      var proxy = proxies.next();
      McpSyncClient client = connect(proxy.getValue().asText());
      ObjectNode calls = seen.putObject(proxy.getKey());
      calls.put("silent", text(client, SLOW, map(plan.get("silent").get(proxy.getKey())), null));
      calls.set("events", reported(client, plan.get("quick")));
      calls.put("protocol", client.getCurrentInitializationResult().protocolVersion());
    }
    return seen;
  }
}
