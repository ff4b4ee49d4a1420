// Writes a picture of the development authorization server's sign-in page.
//
//   DRAWBRIDGE_TOOLS=… node sign-in.mjs BROWSER ISSUER RESOURCE FILE

import { createHash, randomBytes } from "node:crypto";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const tools = process.env.DRAWBRIDGE_TOOLS ?? fileURLToPath(new URL("../../.tools", import.meta.url));
const require = createRequire(join(resolve(tools, "browser", "node_modules"), "sign-in.mjs"));
const puppeteer = require("puppeteer-core");

const [executablePath, issuer, resource, path] = process.argv.slice(2);
const redirect = "http://127.0.0.1:33418/callback";
const server = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json();
const client = await (
  await fetch(server.registration_endpoint, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      client_name: "Claude Code",
      redirect_uris: [redirect],
      token_endpoint_auth_method: "none",
    }),
  })
).json();
const authorize = new URL(server.authorization_endpoint);
authorize.search = new URLSearchParams({
  response_type: "code",
  client_id: client.client_id,
  redirect_uri: redirect,
  code_challenge: createHash("sha256").update(randomBytes(32)).digest("base64url"),
  code_challenge_method: "S256",
  resource,
  scope: "mcp",
  state: "screens",
});

const browser = await puppeteer.launch({
  executablePath,
  // Chromium cannot sandbox as root, and it opens no untrusted page here.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--font-render-hinting=none"],
});
try {
  const page = await browser.newPage();
  await page.setViewport({ width: 560, height: 640 });
  await page.goto(authorize.href);
  await page.waitForSelector("#password");
  // A blinking cursor would be another picture at each run.
  await page.evaluate(() => document.activeElement?.blur());
  await page.screenshot({ path, fullPage: true });
} finally {
  await browser.close();
}
