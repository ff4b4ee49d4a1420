// Drives Chromium through a sign-in and tool calls, and through the attempts of a page of a foreign
// origin.
//
//   DRAWBRIDGE_TOOLS=… node drive.mjs --browser PATH --mcp URL --app URL --foreign URL
//     --username U --password P
//
// `app` is a page with an allowed origin, `foreign` one without. Prints one JSON object for a test
// to assert on; any error is thrown, so the exit code is 1.

import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const tools = process.env.DRAWBRIDGE_TOOLS ?? fileURLToPath(new URL("../../../.tools", import.meta.url));
const require = createRequire(join(resolve(tools, "browser", "node_modules"), "drive.mjs"));
const puppeteer = require("puppeteer-core");

const names = ["browser", "mcp", "app", "foreign", "username", "password"];
const { values: args } = parseArgs({ options: Object.fromEntries(names.map((name) => [name, { type: "string" }])) });
for (const name of names) {
  if (!args[name]) throw new Error(`--${name} is missing`);
}

// Generous for a busy machine.
const timeout = 120_000;
const browser = await puppeteer.launch({
  executablePath: args.browser,
  // Chromium cannot sandbox as root, and it opens no untrusted page here.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  timeout,
  protocolTimeout: timeout,
});
try {
  const app = await signIn(await browser.newPage());
  const foreign = await trespass(await browser.newPage(), app);
  delete app.seen.token;
  console.log(JSON.stringify({ app, foreign }));
} finally {
  await browser.close();
}

/** Signs in as a user: follows the redirect, enters a wrong password, signs in, and returns. */
async function signIn(page) {
  page.setDefaultTimeout(timeout);
  const complaints = [];
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  await page.goto(`${args.app}?mcp=${encodeURIComponent(args.mcp)}`);
  await settled(page, () => window.failed || document.querySelector("#password"));
  const authorize = page.url();
  // The page is styled, so its content security policy permits its style.
  const styled = await page.$eval("button.primary", (button) => getComputedStyle(button).borderRadius);
  await submit(page, "wrong");
  await page.waitForSelector(".alert");
  const complaintsAtSignIn = complaints.filter((text) => /content security|refused/i.test(text));
  await submit(page, args.password);
  await settled(page, () => window.failed || window.seen);
  const { failed, seen } = await page.evaluate(() => ({ failed: window.failed, seen: window.seen }));
  if (failed) throw new Error(`the page failed: ${failed}\n${complaints.join("\n")}`);
  return { authorize, styled, complaints: complaintsAtSignIn, backAt: new URL(page.url()).origin, seen };
}

async function submit(page, password) {
  await page.$eval("#username", (input) => (input.value = ""));
  await page.type("#username", args.username);
  await page.type("#password", password);
  await Promise.all([page.waitForNavigation(), page.click("button.primary")]);
}

/** Waits across navigations, which abort evaluations in the page. */
async function settled(page, isDone) {
  const deadline = Date.now() + timeout;
  for (;;) {
    try {
      const remaining = Math.max(deadline - Date.now(), 1);
      await page.waitForFunction(isDone, { timeout: remaining, polling: 100 });
      break;
    } catch (error) {
      if (Date.now() >= deadline || !/context|navigat|detached/i.test(String(error))) throw error;
    }
  }
  const failed = await page.evaluate(() => window.failed);
  if (failed) throw new Error(`the page failed: ${failed}`);
}

/** Reports what a page of a foreign origin can read, send and frame. */
async function trespass(page, { authorize, seen }) {
  page.setDefaultTimeout(timeout);
  await page.goto(args.foreign);
  const read = await page.evaluate(
    async (mcp, token) => {
      const origin = new URL(mcp).origin;
      const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" });
      const json = { "Content-Type": "application/json", Accept: "application/json, text/event-stream" };
      const attempts = {
        anonymously: [mcp, { method: "POST", headers: json, body }],
        withAToken: [mcp, { method: "POST", headers: { ...json, Authorization: `Bearer ${token}` }, body }],
        withoutAPreflight: [mcp, { method: "POST", body }],
        theMetadata: [`${origin}/.well-known/oauth-protected-resource`, {}],
      };
      const outcome = {};
      for (const [name, [url, init]] of Object.entries(attempts)) {
        outcome[name] = await fetch(url, init).then(
          (response) => `read ${response.status}`,
          (error) => error.name,
        );
      }
      const blind = await fetch(mcp, { method: "POST", body, mode: "no-cors" });
      outcome.blindly = `${blind.type} ${blind.status}`;
      return outcome;
    },
    args.mcp,
    seen.token,
  );
  const complaints = [];
  page.on("console", (message) => complaints.push(message.text()));
  const framed = {};
  // Every origin may frame the first one.
  for (const [name, url] of Object.entries({ app: args.app, signIn: authorize, edge: args.mcp })) {
    await page.evaluate(async (url) => {
      const frame = document.createElement("iframe");
      const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
      frame.src = url;
      document.body.append(frame);
      await loaded;
    }, url);
    const title = await page.frames().at(-1).evaluate(() => document.title);
    const refused = complaints.some((text) => text.includes("frame-ancestors 'none'") && text.includes(new URL(url).origin));
    framed[name] = { title, refused };
  }
  return { read, framed };
}
