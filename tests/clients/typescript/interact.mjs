// Calls tools with progress, cancels slow ones, and answers input requests, with the official
// TypeScript SDK.
//
//   DRAWBRIDGE_TOOLS=… node interact.mjs --url URL --token TOKEN
//
// Prints one JSON object, and stays connected until its input ends, so that a test can distinguish
// a cancelled call from a disconnected client. The SDK is loaded from the folder `node` of
// DRAWBRIDGE_TOOLS, and requests 2025-11-25.

import { createRequire } from "node:module";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const tools = process.env.DRAWBRIDGE_TOOLS ?? fileURLToPath(new URL("../../../.tools", import.meta.url));
const require = createRequire(resolve(tools, "node", "node_modules", "interact.mjs"));
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const schemas = require("@modelcontextprotocol/sdk/types.js");

const options = { url: { type: "string" }, token: { type: "string" } };
const { values: args } = parseArgs({ options });

// Every input request is answered and recorded.
const requests = [];
const capabilities = { elicitation: {}, sampling: {}, roots: {} };
const client = new Client({ name: "typescript interact", version: "1" }, { capabilities });
client.setRequestHandler(schemas.ElicitRequestSchema, ({ params }) => {
  requests.push(params.message);
  return { action: "accept", content: { username: "ada", email: "ada@example.com" } };
});
client.setRequestHandler(schemas.CreateMessageRequestSchema, ({ params }) => {
  requests.push(params.messages[0].content.text);
  return { role: "assistant", content: { type: "text", text: "42" }, model: "m" };
});
client.setRequestHandler(schemas.ListRootsRequestSchema, () => {
  requests.push("roots");
  return { roots: [{ uri: "file:///work" }] };
});

async function text(name, toolArguments, callOptions) {
  const { content } = await client.callTool({ name, arguments: toolArguments }, undefined, callOptions);
  return content[0].text;
}

// Whether the call ends because of its signal.
async function cancelled(signal, onprogress) {
  try {
    await text("test_slow_work", { milliseconds: 60_000 }, { signal, onprogress });
    return false;
  } catch (error) {
    if (!signal.aborted) throw error;
    return true;
  }
}

const headers = { authorization: `Bearer ${args.token}` };
const transport = new StreamableHTTPClientTransport(new URL(args.url), { requestInit: { headers } });
await client.connect(transport);

// The events in order.
const events = [];
const onprogress = ({ message }) => events.push(message);
events.push(await text("test_slow_work", { milliseconds: 300 }, { onprogress }));
const controller = new AbortController();
const report = {
  protocolVersion: transport.protocolVersion,
  events,
  cancelled: [
    await cancelled(controller.signal, () => controller.abort("enough")),
    await cancelled(AbortSignal.timeout(500)),
  ],
  answers: [
    await text("test_elicitation", { message: "Who are you?" }),
    await text("test_sampling", { prompt: "What is 6 times 7?" }),
    await text("test_input_required_result_list_roots", {}),
  ],
  asked: requests,
  };
console.log(JSON.stringify(report));
for await (const _ of process.stdin);
await client.close();
// The SDK would still try to resume the streams of the cancelled calls.
process.exit();
