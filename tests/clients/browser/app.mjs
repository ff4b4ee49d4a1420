// An MCP client in a web page. It starts with the URL of the MCP endpoint and `fetch` alone, and
// follows OAuth 2.1 and the MCP specification. It redirects to the sign-in page and returns with a
// code.
//
// Its report is in `window.seen`; an error in `window.failed`.

const here = location.origin + location.pathname;
const storage = sessionStorage;

try {
  const query = new URLSearchParams(location.search);
  if (query.has("mcp")) await leave(query.get("mcp"));
  else await comeBack(query);
} catch (error) {
  window.failed = String(error?.stack ?? error);
}

/** Discovers the issuer, registers, and redirects to its sign-in page. */
async function leave(mcp) {
  const challenge = await fetch(mcp, { method: "POST", headers: headers(), body: message("tools/list") });
  const authenticate = challenge.headers.get("www-authenticate") ?? "";
  const [, metadata] = /resource_metadata="([^"]+)"/.exec(authenticate) ?? [];
  if (challenge.status !== 401 || !metadata) throw new Error(`no challenge: ${challenge.status} ${authenticate}`);
  const resource = await json(await fetch(metadata, { headers: { "MCP-Protocol-Version": "2025-11-25" } }));
  const issuer = resource.authorization_servers[0].replace(/\/$/, "");
  const server = await json(await fetch(`${issuer}/.well-known/oauth-authorization-server`));
  const client = await json(
    await fetch(server.registration_endpoint, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        client_name: "A web page",
        redirect_uris: [here],
        token_endpoint_auth_method: "none",
      }),
    }),
  );
  const verifier = base64url(crypto.getRandomValues(new Uint8Array(32)));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  const state = base64url(crypto.getRandomValues(new Uint8Array(16)));
  const request = { mcp, resource: resource.resource, issuer: server.issuer, client: client.client_id, verifier, state };
  storage.setItem("request", JSON.stringify({ ...request, token: server.token_endpoint }));
  const authorize = new URL(server.authorization_endpoint);
  authorize.search = new URLSearchParams({
    response_type: "code",
    client_id: client.client_id,
    redirect_uri: here,
    code_challenge: base64url(new Uint8Array(digest)),
    code_challenge_method: "S256",
    resource: resource.resource,
    scope: resource.scopes_supported.join(" "),
    state,
  });
  location.assign(authorize);
}

/** Exchanges the code for a token, and uses it with and without an MCP session. */
async function comeBack(query) {
  const request = JSON.parse(storage.getItem("request"));
  storage.clear();
  if (query.get("state") !== request.state || query.get("iss") !== request.issuer) throw new Error("the state or the issuer does not match");
  const token = await json(
    await fetch(request.token, {
      method: "POST",
      body: new URLSearchParams({
        grant_type: "authorization_code",
        code: query.get("code"),
        redirect_uri: here,
        client_id: request.client,
        code_verifier: request.verifier,
        resource: request.resource,
      }),
    }),
  );
  const bearer = { Authorization: `Bearer ${token.access_token}` };
  window.seen = {
    older: await withSession(request.mcp, bearer),
    newest: await withoutSession(request.mcp, bearer),
    // The test shows that a foreign page cannot use even a valid token.
    token: token.access_token,
  };
}

/** 2025-11-25, with a session. */
async function withSession(mcp, bearer) {
  const send = (body, more = {}) => fetch(mcp, { method: "POST", headers: headers({ ...bearer, ...more }), body });
  const opened = await send(
    message("initialize", {
      protocolVersion: "2025-11-25",
      capabilities: {},
      clientInfo: { name: "page", version: "1" },
    }),
  );
  const session = { "Mcp-Session-Id": opened.headers.get("mcp-session-id") };
  const initialized = await reply(opened);
  const notified = await send(JSON.stringify({ jsonrpc: "2.0", method: "notifications/initialized" }), session);
  const tools = await reply(await send(message("tools/list"), session));
  const called = await reply(await send(message("tools/call", search()), session));
  const abort = new AbortController();
  const events = await fetch(mcp, {
    headers: { ...bearer, ...session, Accept: "text/event-stream", "MCP-Protocol-Version": "2025-11-25" },
    signal: abort.signal,
  });
  abort.abort();
  const deleted = await fetch(mcp, { method: "DELETE", headers: headers({ ...bearer, ...session }) });
  return {
    server: initialized.result.protocolVersion,
    requestId: Boolean(opened.headers.get("x-request-id")),
    initialized: notified.status,
    tools: tools.result.tools.map((tool) => tool.name),
    found: called.result.structuredContent,
    events: [events.status, events.headers.get("content-type")],
    deleted: deleted.ok,
  };
}

/** 2026-07-28: no session, and headers that repeat fields of the body. */
async function withoutSession(mcp, bearer) {
  const send = (method, params = {}) => {
    const more = { "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method };
    if (params.name) more["Mcp-Name"] = params.name;
    const _meta = {
      "io.modelcontextprotocol/protocolVersion": "2026-07-28",
      "io.modelcontextprotocol/clientInfo": { name: "page", version: "1" },
      "io.modelcontextprotocol/clientCapabilities": {},
    };
    const body = message(method, { ...params, _meta });
    return fetch(mcp, { method: "POST", headers: headers({ ...bearer, ...more }), body }).then(reply);
  };
  const discovered = await send("server/discover");
  const tools = await send("tools/list");
  const called = await send("tools/call", search());
  return {
    versions: discovered.result.supportedVersions,
    tools: tools.result.tools.map((tool) => tool.name),
    found: called.result.structuredContent,
  };
}

function search() {
  return { name: "code_search", arguments: { query: "permit", path: "policies", max_results: 1 } };
}

function headers(more = {}) {
  return {
    "Content-Type": "application/json",
    Accept: "application/json, text/event-stream",
    "MCP-Protocol-Version": "2025-11-25",
    ...more,
  };
}

function message(method, params = {}) {
  return JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
}

/** The reply to a message: a JSON body, or the last event of a stream. */
async function reply(response) {
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.status} ${text}`);
  if (!response.headers.get("content-type").startsWith("text/event-stream")) return JSON.parse(text);
  const events = text.split("\n").filter((line) => line.startsWith("data:") && line.length > 6);
  return JSON.parse(events.at(-1).slice(5));
}

async function json(response) {
  if (!response.ok) throw new Error(`${response.url}: ${response.status} ${await response.text()}`);
  return response.json();
}

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
