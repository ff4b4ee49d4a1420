"""Uses an MCP server like an application, with the official Python SDK or FastMCP's client.

    scenarios.py PLAN

PLAN is JSON from tests/tests/e2e/interop/clients.rs, which documents the scenarios. Prints one JSON
object with the result of each. An expected error is part of the result; any other error is raised,
so the exit code is 1.

The plan's `client` is `python` (the newest release), `python-1.20` or `fastmcp`; each runs in its own
virtual environment.
"""

import asyncio
import html
import json
import re
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from urllib.parse import parse_qs, urljoin, urlsplit

import anyio

PLAN = json.loads(sys.argv[1])
OLD = PLAN["client"] == "python-1.20"
if OLD:
    import httpx
    from mcp import ClientSession, types
    from mcp.client.auth import OAuthClientProvider
    from mcp.client.streamable_http import streamablehttp_client
    from mcp.shared.message import ClientMessageMetadata
else:
    import httpx2 as httpx
    from mcp import Client
    from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
    from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

# Nothing listens here: the redirect is read and never followed.
REDIRECT_URI = "http://127.0.0.1:8976/callback"
MODE = {"2025-11-25": "legacy", "2026-07-28": "2026-07-28"}.get(PLAN["protocol"])
SLOW = "test_slow_work"
STEPS = []


# --- Signing in ---------------------------------------------------------------------------------


async def record(response):
    STEPS.append(f"{response.request.method} {response.request.url.path} {response.status_code}")


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
    """The user's browser: submits the sign-in form and reads the redirect."""

    async def open(self, url):
        async with httpx.AsyncClient(event_hooks={"response": [record]}) as http:
            page = await http.get(url)
            form = re.search(r'<form method="post" action="([^"]+)">', page.text)
            if not form:
                raise RuntimeError(f"no sign-in form, but {page.status_code}: {page.text[:500]}")
            hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text)
            fields = {name: html.unescape(value) for name, value in hidden}
            fields |= {"username": PLAN["username"], "password": PLAN["password"], "decision": "allow"}
            sent = await http.post(urljoin(url, html.unescape(form[1])), data=fields)
        query = parse_qs(urlsplit(sent.headers["location"]).query)
        self.query = {name: values[0] for name, values in query.items()}

    async def callback(self):
        if OLD:
            return self.query["code"], self.query.get("state")
        return AuthorizationCodeResult(**{name: self.query.get(name) for name in ("code", "state", "iss")})


def authentication(url):
    """Signs in at the mesh, and uses the plan's token elsewhere."""
    if url != PLAN["url"]:
        return {"headers": {"authorization": f"Bearer {PLAN['token']}"}}
    browser = Browser()
    metadata = OAuthClientMetadata(client_name="python scenarios", redirect_uris=[REDIRECT_URI])
    return {"auth": OAuthClientProvider(url, metadata, Storage(), browser.open, browser.callback)}


def http_client(headers=None, timeout=None, auth=None, **options):
    timeout = timeout or httpx.Timeout(30)
    hooks = {"response": [record]}
    return httpx.AsyncClient(headers=headers, timeout=timeout, auth=auth, event_hooks=hooks, **options)


# --- Connections --------------------------------------------------------------------------------


# Messages that the SDK could not handle.
COMPLAINTS = []


async def on_message(message):
    if isinstance(message, Exception):
        COMPLAINTS.append(str(message))


class Newest:
    """The newest SDK's client."""

    def __init__(self, client):
        self.client = client
        self.protocol = client.protocol_version

    @staticmethod
    @asynccontextmanager
    async def connect(url, mode):
        async with http_client(**authentication(url)) as http:
            transport = streamable_http_client(url, http_client=http)
            async with Client(transport, mode=mode, message_handler=on_message) as client:
                yield Newest(client)

    async def call(self, name, arguments, on_progress=None):
        return (await self.client.call_tool(name, arguments, progress_callback=on_progress)).content[0].text

    async def read(self, uri):
        return (await self.client.read_resource(uri)).contents[0].text

    async def tools(self):
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def templates(self):
        listed = await self.client.list_resource_templates()
        return [template.uri_template for template in listed.resource_templates]

    async def call_with_broken_stream(self, work):
        return await call_with_progress(self, work)


class FastMcp(Newest):
    """FastMCP's client, built on the SDK's."""

    @staticmethod
    @asynccontextmanager
    async def connect(url, mode):
        import fastmcp
        from fastmcp.client.auth import OAuth
        from fastmcp.client.transports import StreamableHttpTransport

        class SignIn(OAuth):
            browser = Browser()

            async def redirect_handler(self, authorization_url):
                await self.browser.open(authorization_url)

            async def callback_handler(self):
                return await self.browser.callback()

        auth = SignIn() if url == PLAN["url"] else PLAN["token"]
        transport = StreamableHttpTransport(url, auth=auth, httpx_client_factory=http_client)
        async with fastmcp.Client(transport, mode=mode, message_handler=on_message) as client:
            yield FastMcp(client)

    async def call(self, name, arguments, on_progress=None):
        result = await self.client.call_tool(name, arguments, progress_handler=on_progress)
        return result.content[0].text

    async def read(self, uri):
        return (await self.client.read_resource(uri))[0].text

    async def tools(self):
        return [tool.name for tool in await self.client.list_tools()]

    async def templates(self):
        return [template.uri_template for template in await self.client.list_resource_templates()]


class Old:
    """A session of the SDK's version 1."""

    def __init__(self, session):
        self.session = session
        self.broken = asyncio.Event()

    @staticmethod
    @asynccontextmanager
    async def connect(url, mode):
        connection = Old(None)
        client = streamablehttp_client(url, httpx_client_factory=http_client, **authentication(url))
        async with client as (read, write, _):
            async with ClientSession(read, write, message_handler=connection.on_message) as session:
                connection.session = session
                connection.protocol = (await session.initialize()).protocolVersion
                yield connection

    async def on_message(self, message):
        await on_message(message)
        if isinstance(message, Exception):
            self.broken.set()

    async def call(self, name, arguments, on_progress=None):
        return (await self.session.call_tool(name, arguments, progress_callback=on_progress)).content[0].text

    async def read(self, uri):
        return (await self.session.read_resource(uri)).contents[0].text

    async def tools(self):
        return [tool.name for tool in (await self.session.list_tools()).tools]

    async def templates(self):
        return [template.uriTemplate for template in (await self.session.list_resource_templates()).resourceTemplates]

    async def call_with_broken_stream(self, work):
        """With version 1 the application must resume a broken stream."""
        events, token = [], None

        async def on_progress(_progress, _total, message):
            events.append(message)

        async def on_token(value):
            nonlocal token
            token = value

        async def send(**metadata):
            metadata = ClientMessageMetadata(on_resumption_token_update=on_token, **metadata)
            params = types.CallToolRequestParams(name=SLOW, arguments=work["arguments"])
            request = types.ClientRequest(types.CallToolRequest(method="tools/call", params=params))
            result = await self.session.send_request(
                request, types.CallToolResult, metadata=metadata, progress_callback=on_progress
            )
            events.append(result.content[0].text)

        first = asyncio.create_task(send())
        await self.broken.wait()
        # Progress arrives under the number of the new request.
        callbacks = self.session._progress_callbacks
        callbacks[max(callbacks) + 1] = on_progress
        await send(resumption_token=token)
        first.cancel()
        return events


CONNECT = {"python": Newest, "python-1.20": Old, "fastmcp": FastMcp}[PLAN["client"]].connect


# --- Scenarios ----------------------------------------------------------------------------------


async def error_of(work):
    """The error that `work` raises."""
    try:
        await work
    except Exception as error:
        return {"type": type(error).__name__, "code": code(error), "message": str(error)}
    return None


def code(error):
    return getattr(error, "code", None) or getattr(getattr(error, "error", None), "code", None)


async def control(what):
    """Triggers a fault of this client's connection."""
    async with httpx.AsyncClient() as http:
        return (await http.post(urljoin(PLAN["control"], what), timeout=30)).json()


async def call_with_progress(connection, work):
    """Calls a tool with progress, and returns its events in order."""
    events = []

    async def on_progress(_progress, _total, message):
        events.append(message)

    events.append(await connection.call(SLOW, work["arguments"], on_progress))
    return events


class Scenarios:
    def __init__(self, stack):
        self.stack = stack
        self.connection = None
        self.protocol = None

    async def open(self, url, mode=MODE):
        connection = await self.stack.enter_async_context(CONNECT(url, mode))
        self.protocol = self.protocol or connection.protocol
        return connection

    async def service(self):
        self.connection = self.connection or await self.open(PLAN["service"])
        return self.connection

    async def flow(self):
        connection = await self.open(PLAN["url"])
        return {
            "tools": await connection.tools(),
            "resourceTemplates": await connection.templates(),
            "text": await connection.call(PLAN["call"]["name"], PLAN["call"]["arguments"]),
            "read": await connection.read(PLAN["read"]),
            "denied": await error_of(connection.call(PLAN["denied"]["name"], PLAN["denied"]["arguments"])),
            "steps": STEPS.copy(),
        }

    async def progress(self):
        events = await call_with_progress(await self.service(), PLAN["slow"])
        return {"events": events, "complaints": COMPLAINTS.copy()}

    async def cancel(self):
        connection = await self.service()
        with anyio.CancelScope() as scope:

            async def on_progress(*_):
                scope.cancel()

            await connection.call(SLOW, {"milliseconds": 60_000}, on_progress)
        return {"error": {"cancelled": scope.cancelled_caught}, "stopped": await control("stopped")}

    async def broken_stream(self):
        connection = await self.service()
        await control("cut")
        return await connection.call_with_broken_stream(PLAN["quick"])

    async def lost_session(self):
        connection = await self.service()
        ended = await control("end-session")
        error = await error_of(connection.call("test_simple_text", {}))
        # The SDK does not start a new session; the application must.
        if error:
            self.connection = None
        again = await (await self.service()).call("test_simple_text", {})
        return {"ended": ended, "error": error, "again": again}

    async def proxies(self):
        report = {}
        for name, url in PLAN["proxies"].items():
            # With the newest revision the client negotiates, and falls back to the previous one.
            connection = await self.open(url, "auto" if MODE == "2026-07-28" else MODE)
            silent = await connection.call(SLOW, PLAN["silent"][name])
            events = await call_with_progress(connection, PLAN["quick"])
            report[name] = {"protocol": connection.protocol, "silent": silent, "events": events}
        return report


async def main():
    is_fastmcp = PLAN["client"] == "fastmcp"
    report = {"client": f"fastmcp {version('fastmcp')}" if is_fastmcp else f"python mcp {version('mcp')}"}
    async with AsyncExitStack() as stack:
        scenarios = Scenarios(stack)
        for name in PLAN["scenarios"]:
            report[name] = await getattr(scenarios, name)()
        report["protocol"] = scenarios.protocol
        print(json.dumps(report), flush=True)


asyncio.run(main())
