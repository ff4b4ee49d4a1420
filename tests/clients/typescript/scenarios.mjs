// Uses an MCP server like an application, with the official TypeScript SDK.
//
//   DRAWBRIDGE_TOOLS=… node scenarios.mjs PLAN
//
// PLAN is JSON from tests/tests/e2e/interop/clients.rs, which documents the scenarios. Prints one
// JSON object with the result of each. An expected error is part of the result; any other error is
// thrown, so the exit code is 1.
//
// The plan's `client` is a folder of DRAWBRIDGE_TOOLS into which tests/setup.sh installs the
// release: `node` (the newest of version 1), `typescript-1.20`, `typescript-2`, or `mcp-remote`,
// which bridges clients that support only stdio.

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const plan = JSON.parse(process.argv[2]);
const tools = process.env.DRAWBRIDGE_TOOLS ?? fileURLToPath(new URL("../../../.tools", import.meta.url));
const bridge = plan.client === "mcp-remote" ? modules("mcp-remote") : null;
const sdk = modules(bridge ? "typescript-2" : plan.client);
const is2 = existsSync(join(sdk, "@modelcontextprotocol", "client"));
const require = createRequire(join(sdk, "scenarios.mjs"));
const { Client, StreamableHTTPClientTransport, UnauthorizedError } = is2
  ? require("@modelcontextprotocol/client")
  : {
      ...require("@modelcontextprotocol/sdk/client/index.js"),
      ...require("@modelcontextprotocol/sdk/client/streamableHttp.js"),
      ...require("@modelcontextprotocol/sdk/client/auth.js"),
    };

// Nothing listens here: the redirect is read and never followed.
const REDIRECT_URI = "http://127.0.0.1:8976/callback";
const SLOW = "test_slow_work";

function modules(folder) {
  return resolve(tools, folder, "node_modules");
}

function version() {
  const [folder, name] = bridge
    ? [bridge, "mcp-remote"]
    : [sdk, is2 ? "@modelcontextprotocol/client" : "@modelcontextprotocol/sdk"];
  const { version } = JSON.parse(readFileSync(join(folder, name, "package.json"), "utf8"));
  return `${name} ${version}`;
}

// --- Signing in ---------------------------------------------------------------------------------

// Every HTTP request, in the order of the responses.
const steps = [];

async function recordingFetch(url, init = {}) {
  const response = await fetch(url, init);
  steps.push(`${init.method ?? "GET"} ${new URL(url).pathname} ${response.status}`);
  return response;
}

// An application's registration and tokens, in memory.
class Provider {
  redirectUrl = REDIRECT_URI;
  clientMetadata = { client_name: "typescript scenarios", redirect_uris: [REDIRECT_URI] };
  #state = crypto.randomUUID();

  state = () => this.#state;
  clientInformation = () => this.client;
  saveClientInformation = (client) => void (this.client = client);
  tokens = () => this.saved;
  saveTokens = (tokens) => void (this.saved = tokens);
  codeVerifier = () => this.verifier;
  saveCodeVerifier = (verifier) => void (this.verifier = verifier);
  redirectToAuthorization = (url) => void (this.authorizationUrl = url);
}

// Acts as the user's browser: submits the sign-in form and returns the redirect's target.
async function signIn(url) {
  const page = await recordingFetch(url);
  const text = await page.text();
  const action = text.match(/<form method="post" action="([^"]+)">/)?.[1];
  if (!action) throw new Error(`no sign-in form, but ${page.status}: ${text.slice(0, 500)}`);
  const body = new URLSearchParams({ username: plan.username, password: plan.password, decision: "allow" });
  for (const [, name, value] of text.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)">/g)) {
    body.set(name, value);
  }
  const sent = await recordingFetch(new URL(action, url), { method: "POST", body, redirect: "manual" });
  const location = sent.headers.get("location");
  if (!location) throw new Error(`no redirect after sign-in, but ${sent.status}`);
  return new URL(location);
}

// --- Connections --------------------------------------------------------------------------------

// The clients to close at the end.
const open = [];
// Messages that the SDK could not handle.
const complaints = [];

// Requests the plan's revision; `mode` allows a fallback.
function newClient(mode = { pin: plan.protocol }) {
  const isLegacy = plan.protocol !== "2026-07-28";
  const options = isLegacy
    ? { versionNegotiation: { mode: "legacy" }, supportedProtocolVersions: [plan.protocol] }
    : { versionNegotiation: { mode } };
  return new Client({ name: "typescript scenarios", version: "1" }, is2 ? options : {});
}

async function connected(client, transport) {
  client.onerror = (error) => {
    complaints.push(error.message);
    client.onBroken?.();
  };
  await client.connect(transport);
  open.push({ client, transport });
  return client;
}

// Connects with the plan's token.
function connect(url, mode) {
  if (bridge) return connectByStdio(url, ["--header", `Authorization: Bearer ${plan.token}`]);
  const headers = { authorization: `Bearer ${plan.token}` };
  return connected(newClient(mode), new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
}

// Signs in and connects.
async function signInAndConnect(url) {
  if (bridge) return connectByStdio(url, []);
  const authProvider = new Provider();
  const newTransport = () =>
    new StreamableHTTPClientTransport(new URL(url), { authProvider, fetch: recordingFetch });
  const transport = newTransport();
  try {
    return await connected(newClient(), transport);
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
  }
  const query = (await signIn(authProvider.authorizationUrl)).searchParams;
  if (query.get("state") !== authProvider.state()) throw new Error("the state does not match");
  // Version 2 checks the issuer of the redirect.
  await transport.finishAuth(is2 ? query : query.get("code"));
  return connected(newClient(), newTransport());
}

let config;

async function connectByStdio(url, headers) {
  const { StdioClientTransport } = require("@modelcontextprotocol/client/stdio");
  config ??= mkdtempSync(join(tmpdir(), "mcp-remote-"));
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [join(bridge, "mcp-remote", "dist", "proxy.js"), url, "--transport", "http-only", "--allow-http", ...headers],
    // It opens a browser, and prints the page's URL on standard error.
    env: { ...process.env, BROWSER: "true", MCP_REMOTE_CONFIG_DIR: config },
    stderr: "pipe",
  });
  let output = "";
  transport.stderr.on("data", async (data) => {
    output += data;
    const [, page] = output.match(/(http\S+\/authorize\?\S+)\s/) ?? [];
    if (!page) return;
    output = "";
    await fetch(await signIn(page));
  });
  return connected(newClient(), transport);
}

// --- Scenarios ----------------------------------------------------------------------------------

function call(client, name, toolArguments, options) {
  const params = { name, arguments: toolArguments };
  return is2 ? client.callTool(params, options) : client.callTool(params, undefined, options);
}

async function text(client, name, toolArguments, options) {
  return (await call(client, name, toolArguments, options)).content[0].text;
}

// The error that `work` throws.
async function errorOf(work) {
  try {
    await work();
  } catch (error) {
    return { type: error.constructor.name, code: error.code ?? null, message: error.message };
  }
  return null;
}

// Triggers a fault of this client's connection.
async function control(what) {
  const response = await fetch(new URL(what, plan.control), { method: "POST" });
  return response.json();
}

// Calls a tool with progress, and returns its events in order.
async function callWithProgress(client, work) {
  const events = [];
  const onprogress = ({ message }) => events.push(message);
  events.push(await text(client, SLOW, work.arguments, { onprogress }));
  return events;
}

// The same with a broken stream, which the application must resume with SDK 1.20.
async function callWithBrokenStream(client, work) {
  if (plan.client !== "typescript-1.20") return callWithProgress(client, work);
  const events = [];
  const onprogress = ({ message }) => events.push(message);
  const broken = new Promise((resolve) => (client.onBroken = resolve));
  let resumptionToken;
  const onresumptiontoken = (token) => (resumptionToken = token);
  text(client, SLOW, work.arguments, { onprogress, onresumptiontoken }).catch(() => {});
  await broken;
  events.push(await text(client, SLOW, work.arguments, { resumptionToken, onprogress: () => {} }));
  return events;
}

const scenarios = {
  async flow() {
    const client = await signInAndConnect(plan.url);
    const listed = await client.listTools();
    const { resourceTemplates } = await client.listResourceTemplates();
    const { contents } = await client.readResource({ uri: plan.read });
    return {
      steps,
      tools: listed.tools.map(({ name }) => name),
      resourceTemplates: resourceTemplates.map(({ uriTemplate }) => uriTemplate),
      text: await text(client, plan.call.name, plan.call.arguments),
      read: contents[0].text,
      denied: await errorOf(() => call(client, plan.denied.name, plan.denied.arguments)),
    };
  },

  async progress() {
    const client = await service();
    complaints.length = 0;
    return { events: await callWithProgress(client, plan.slow), complaints: [...complaints] };
  },

  async cancel() {
    const client = await service();
    const controller = new AbortController();
    const options = { signal: controller.signal, onprogress: () => controller.abort("enough") };
    const error = await errorOf(() => call(client, SLOW, { milliseconds: 60_000 }, options));
    return { error, stopped: await control("stopped") };
  },

  async broken_stream() {
    const client = await service();
    await control("cut");
    return callWithBrokenStream(client, plan.quick);
  },

  async lost_session() {
    const client = await service();
    const ended = await control("end-session");
    const error = await errorOf(() => text(client, "test_simple_text", {}));
    // If the SDK does not start a new session, the application must.
    if (error) connection = undefined;
    return { ended, error, again: await text(await service(), "test_simple_text", {}) };
  },

  async proxies() {
    const report = {};
    for (const [name, url] of Object.entries(plan.proxies)) {
      // With the newest revision the client negotiates, and falls back to the previous one.
      const client = await connect(url, "auto");
      const silent = await text(client, SLOW, plan.silent[name]);
      report[name] = { protocol: protocolVersion(open.at(-1)), silent, events: await callWithProgress(client, plan.quick) };
    }
    return report;
  },
};

let connection;

async function service() {
  connection ??= await connect(plan.service);
  return connection;
}

function protocolVersion({ client, transport }) {
  return is2 ? client.getNegotiatedProtocolVersion() : transport.protocolVersion;
}

const report = { client: version() };
for (const name of plan.scenarios) report[name] = await scenarios[name]();
report.protocol = protocolVersion(open[0]);
console.log(JSON.stringify(report));
await Promise.allSettled(open.map(({ client }) => client.close()));
if (config) rmSync(config, { recursive: true });
// The SDK would still try to resume the streams of cancelled calls.
process.exit();
