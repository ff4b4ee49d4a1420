"""Signs in to an MCP server and uses it, through the official Python SDK.

    python flow.py --url URL --username U --password P \\
        [--call TOOL JSON_ARGUMENTS]... [--read URI]... [--protocol REVISION]

Prints one JSON object, for a test to assert on. `steps` lists every HTTP request in the order of its answers. A
call or read that is refused is part of the result; whatever else goes wrong is raised, so the exit code is 1.

The SDK offers two eras and no choice within one: 2026-07-28 without a handshake, or `initialize` with 2025-11-25.
Without --protocol it asks `server/discover` which of them the server speaks.
"""

import argparse
import asyncio
import html
import json
import re
from contextlib import asynccontextmanager
from importlib.metadata import version
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

# Nothing listens here: the answer is read from the redirect and never followed.
REDIRECT_URI = "http://127.0.0.1:8976/callback"
MODES = {None: "auto", "2025-11-25": "legacy", "2026-07-28": "2026-07-28"}


class Recorder:
    """What is seen of HTTP: every step, and how the server last refused a message."""

    def __init__(self):
        self.steps = []
        self.failure = {}

    async def on_response(self, response):
        request = response.request
        self.steps.append(f"{request.method} {request.url.path} {response.status_code}")
        if request.method == "POST" and response.status_code >= 400:
            await response.aread()
            self.failure = {"status": response.status_code, "body": json_or_text(response.text)}


class Storage:
    """Tokens and the client's registration, in memory."""

    tokens = client_info = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client_info

    async def set_client_info(self, client_info):
        self.client_info = client_info


class Browser:
    """The user and their browser: opens the sign-in page, fills in its form, and reads where it leads to."""

    def __init__(self, username, password, recorder):
        self.fields = {"username": username, "password": password, "decision": "allow"}
        self.hooks = {"response": [recorder.on_response]}
        self.answer = {}

    async def open(self, url):
        async with httpx2.AsyncClient(event_hooks=self.hooks) as http:
            page = await http.get(url)
            form = re.search(r'<form method="post" action="([^"]+)">', page.text)
            hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text)
            if not form:
                raise RuntimeError(f"no sign-in form, but {page.status_code}: {said(page.text)}")
            fields = {name: html.unescape(value) for name, value in hidden} | self.fields
            sent = await http.post(urljoin(url, html.unescape(form[1])), data=fields)
        location = sent.headers.get("location", "")
        if not location.startswith(REDIRECT_URI):
            raise RuntimeError(f"signing in did not lead back, but {sent.status_code}: {said(sent.text)}")
        self.answer = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}

    async def callback(self):
        answer = self.answer
        return AuthorizationCodeResult(code=answer.get("code", ""), state=answer.get("state"), iss=answer.get("iss"))


def said(page):
    """What a page tells its user, or how it begins."""
    alert = re.search(r'role="alert">([^<]*)', page)
    return alert[1] if alert else page[:500]


def json_or_text(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


async def attempt(recorder, work):
    """The fields that `work` gives, or the error that the SDK raises with what HTTP said."""
    recorder.failure = {}
    try:
        return await work
    except Exception as error:
        told = {name: getattr(error, name, None) for name in ("code", "data")}
        return {"error": {"type": type(error).__name__, "message": str(error)} | told | recorder.failure}


async def call(client, name, arguments):
    progress = []

    async def on_progress(value, _total, _message):
        progress.append(value)

    result = await client.call_tool(name, arguments, progress_callback=on_progress)
    text = next((block.text for block in result.content if block.type == "text"), None)
    return {
        "isError": bool(result.is_error),
        "text": text,
        "structured": result.structured_content,
        "progress": progress,
    }


async def read(client, uri):
    result = await client.read_resource(uri)
    return {"text": getattr(result.contents[0], "text", None)}


@asynccontextmanager
async def connect(args, browser, recorder):
    metadata = OAuthClientMetadata(client_name="python flow", redirect_uris=[REDIRECT_URI])
    auth = OAuthClientProvider(args.url, metadata, Storage(), browser.open, browser.callback)
    async with httpx2.AsyncClient(auth=auth, timeout=30, event_hooks={"response": [recorder.on_response]}) as http:
        async with Client(streamable_http_client(args.url, http_client=http), mode=MODES[args.protocol]) as client:
            yield client


async def flow(args):
    recorder = Recorder()
    browser = Browser(args.username, args.password, recorder)
    async with connect(args, browser, recorder) as client:
        tools = await client.list_tools()
        templates = await client.list_resource_templates()
        calls = [
            {"name": name} | await attempt(recorder, call(client, name, json.loads(arguments)))
            for name, arguments in args.call
        ]
        reads = [{"uri": uri} | await attempt(recorder, read(client, uri)) for uri in args.read]
        return {
            "sdk": f"python mcp {version('mcp')}",
            "protocolVersion": client.protocol_version,
            "iss": browser.answer.get("iss"),
            "tools": [tool.name for tool in tools.tools],
            "resourceTemplates": [template.uri_template for template in templates.resource_templates],
            "calls": calls,
            "reads": reads,
            "steps": recorder.steps,
        }


def parse_arguments():
    parser = argparse.ArgumentParser()
    for name in ("--url", "--username", "--password"):
        parser.add_argument(name, required=True)
    parser.add_argument("--call", nargs=2, action="append", default=[], metavar=("TOOL", "JSON_ARGUMENTS"))
    parser.add_argument("--read", action="append", default=[], metavar="URI")
    parser.add_argument("--protocol", choices=[name for name in MODES if name])
    return parser.parse_args()


if __name__ == "__main__":
    try:
        print(json.dumps(asyncio.run(flow(parse_arguments()))))
    except Exception as error:
        # The SDK's task groups wrap what went wrong.
        while hasattr(error, "exceptions"):
            error = error.exceptions[0]
        raise error from None
