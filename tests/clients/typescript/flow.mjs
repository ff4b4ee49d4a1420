// Signs in to an MCP server and uses it, through the official TypeScript SDK.
//
//   DRAWBRIDGE_TOOLS=… node flow.mjs --url URL --username U --password P \
//       [--call TOOL JSON_ARGUMENTS]... [--read URI]... [--protocol REVISION]
//
// Prints one JSON object, for a test to assert on. `steps` lists every HTTP request in the order of its answers. A
// call or read that is refused is part of the result; whatever else goes wrong is thrown, so the exit code is 1.
//
// The SDK is loaded from the folder `node` of DRAWBRIDGE_TOOLS, where tests/setup.sh installs it, by default in
// `.tools` of the repository. An import cannot name such a folder, so it is required.
//
// Version 1 of the SDK asks for 2025-11-25 and cannot be told to ask for another revision.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const tools = process.env.DRAWBRIDGE_TOOLS ?? fileURLToPath(new URL("../../../.tools", import.meta.url));
const modules = resolve(tools, "node", "node_modules");
const require = createRequire(join(modules, "flow.mjs"));
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { UnauthorizedError } = require("@modelcontextprotocol/sdk/client/auth.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { LATEST_PROTOCOL_VERSION } = require("@modelcontextprotocol/sdk/types.js");
const sdk = JSON.parse(readFileSync(join(modules, "@modelcontextprotocol", "sdk", "package.json"), "utf8"));

// Nothing listens here: the answer is read from the redirect and never followed.
const REDIRECT_URI = "http://127.0.0.1:8976/callback";

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    url: { type: "string" },
    username: { type: "string" },
    password: { type: "string" },
    call: { type: "string", multiple: true, default: [] },
    read: { type: "string", multiple: true, default: [] },
    protocol: { type: "string", default: LATEST_PROTOCOL_VERSION },
  },
});
for (const name of ["url", "username", "password"]) {
  if (!args[name]) throw new Error(`--${name} is missing`);
}
if (positionals.length !== args.call.length) throw new Error("--call takes a tool's name and its arguments");
if (args.protocol !== LATEST_PROTOCOL_VERSION) throw new Error(`this SDK asks only for ${LATEST_PROTOCOL_VERSION}`);

// What is seen of HTTP: every step, and how the server last refused a message.
const steps = [];
let failure = {};

async function recordingFetch(url, init = {}) {
  const response = await fetch(url, init);
  const method = init.method ?? "GET";
  steps.push(`${method} ${new URL(url).pathname} ${response.status}`);
  if (method === "POST" && response.status >= 400) {
    failure = { status: response.status, body: jsonOrText(await response.clone().text()) };
  }
  return response;
}

// What an application remembers of its registration and its tokens, in memory.
class Provider {
  redirectUrl = REDIRECT_URI;
  clientMetadata = { client_name: "typescript flow", redirect_uris: [REDIRECT_URI] };
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

// The user and their browser: opens the sign-in page, fills in its form, and reads where it leads to.
async function signIn(url) {
  const page = await recordingFetch(url);
  const text = await page.text();
  const action = text.match(/<form method="post" action="([^"]+)">/)?.[1];
  if (!action) throw new Error(`no sign-in form, but ${page.status}: ${said(text)}`);
  const body = new URLSearchParams({ username: args.username, password: args.password, decision: "allow" });
  for (const [, name, value] of text.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)">/g)) {
    body.set(name, value);
  }
  const sent = await recordingFetch(new URL(action, url), { method: "POST", body, redirect: "manual" });
  const location = sent.headers.get("location") ?? "";
  if (!location.startsWith(REDIRECT_URI)) {
    throw new Error(`signing in did not lead back, but ${sent.status}: ${said(await sent.text())}`);
  }
  return new URL(location).searchParams;
}

async function connect() {
  const authProvider = new Provider();
  const open = () => new StreamableHTTPClientTransport(new URL(args.url), { authProvider, fetch: recordingFetch });
  const client = new Client({ name: "typescript flow", version: "1" });
  const refused = open();
  try {
    await client.connect(refused);
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
  }
  const answer = await signIn(authProvider.authorizationUrl);
  // The SDK takes the code alone and leaves this to the application.
  if (answer.get("state") !== authProvider.state()) throw new Error("the answer has another state");
  await refused.finishAuth(answer.get("code"));
  const transport = open();
  await client.connect(transport);
  return { client, transport, iss: answer.get("iss") };
}

// What a page tells its user, or how it begins.
function said(page) {
  return page.match(/role="alert">([^<]*)/)?.[1] ?? page.slice(0, 500);
}

function jsonOrText(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// The fields that `work` gives, or the error that the SDK throws with what HTTP said.
async function attempt(work) {
  failure = {};
  try {
    return await work();
  } catch (error) {
    const { code = null, data = null, message } = error;
    return { error: { type: error.constructor.name, message, code, data, ...failure } };
  }
}

async function call(client, name, toolArguments) {
  const progress = [];
  const onprogress = (value) => progress.push(value.progress);
  const result = await client.callTool({ name, arguments: toolArguments }, undefined, { onprogress });
  const text = result.content.find((block) => block.type === "text")?.text ?? null;
  return { isError: result.isError ?? false, text, structured: result.structuredContent ?? null, progress };
}

async function read(client, uri) {
  const { contents } = await client.readResource({ uri });
  return { text: contents[0].text ?? null };
}

const { client, transport, iss } = await connect();
const listed = await client.listTools();
const { resourceTemplates } = await client.listResourceTemplates();
const calls = [];
for (const [at, name] of args.call.entries()) {
  calls.push({ name, ...(await attempt(() => call(client, name, JSON.parse(positionals[at])))) });
}
const reads = [];
for (const uri of args.read) {
  reads.push({ uri, ...(await attempt(() => read(client, uri))) });
}
const result = {
  sdk: `typescript ${sdk.name} ${sdk.version}`,
  protocolVersion: transport.protocolVersion,
  iss,
  tools: listed.tools.map((tool) => tool.name),
  resourceTemplates: resourceTemplates.map((template) => template.uriTemplate),
  calls,
  reads,
  steps,
};
await client.close();
console.log(JSON.stringify(result));
