"""Calls tools with progress, cancels slow ones, and answers input requests, with the official Python SDK.

    interact.py --url URL --token TOKEN [--protocol REVISION]

Prints one JSON object, and stays connected until its input ends, so that a test can distinguish a cancelled call from
a disconnected client.
"""

import argparse
import json
import sys

import anyio
import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

MODES = {None: "auto", "2025-11-25": "legacy", "2026-07-28": "2026-07-28"}
SLOW = "test_slow_work"


class User:
    """Answers every input request, and records it."""

    def __init__(self):
        self.requests = []

    async def elicit(self, _context, params):
        self.requests.append(params.message)
        return types.ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.com"})

    async def sample(self, _context, params):
        self.requests.append(params.messages[0].content.text)
        return types.CreateMessageResult(role="assistant", content=types.TextContent(type="text", text="42"), model="m")

    async def roots(self, _context):
        self.requests.append("roots")
        return types.ListRootsResult(roots=[types.Root(uri="file:///work")])


async def text(client, name, arguments, **options):
    return (await client.call_tool(name, arguments, **options)).content[0].text


async def reported(client):
    """The events of a call with progress, in order."""
    events = []

    async def on_progress(_progress, _total, message):
        events.append(message)

    events.append(await text(client, SLOW, {"milliseconds": 300}, progress_callback=on_progress))
    return events


async def cancelled_during_progress(client):
    with anyio.CancelScope() as scope:

        async def on_progress(*_):
            scope.cancel()

        await client.call_tool(SLOW, {"milliseconds": 60_000}, progress_callback=on_progress)
    return scope.cancelled_caught


async def cancelled_during_silence(client):
    with anyio.move_on_after(0.5) as scope:
        await client.call_tool(SLOW, {"milliseconds": 60_000})
    return scope.cancelled_caught


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--protocol", choices=[name for name in MODES if name])
    args = parser.parse_args()
    user = User()
    headers = {"authorization": f"Bearer {args.token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(
            streamable_http_client(args.url, http_client=http),
            mode=MODES[args.protocol],
            elicitation_callback=user.elicit,
            sampling_callback=user.sample,
            list_roots_callback=user.roots,
        ) as client,
    ):
        report = {
            "protocolVersion": client.protocol_version,
            "events": await reported(client),
            "cancelled": [await cancelled_during_progress(client), await cancelled_during_silence(client)],
            "answers": [
                await text(client, "test_elicitation", {"message": "Who are you?"}),
                await text(client, "test_sampling", {"prompt": "What is 6 times 7?"}),
                await text(client, "test_input_required_result_list_roots", {}),
            ],
            "asked": user.requests,
        }
        print(json.dumps(report), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


anyio.run(main)
