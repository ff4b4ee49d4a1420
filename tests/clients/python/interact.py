"""Calls tools that report, that take too long and that ask, through the official Python SDK.

    interact.py --url URL --token TOKEN [--protocol REVISION]

Prints one JSON object, and stays connected until its input ends: a test can tell a call that was cancelled from one
whose client has gone.
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


class Person:
    """Answers whatever a tool asks, and remembers what that was."""

    def __init__(self):
        self.asked = []

    async def elicit(self, _context, params):
        self.asked.append(params.message)
        return types.ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.com"})

    async def sample(self, _context, params):
        self.asked.append(params.messages[0].content.text)
        return types.CreateMessageResult(role="assistant", content=types.TextContent(type="text", text="42"), model="m")

    async def roots(self, _context):
        self.asked.append("roots")
        return types.ListRootsResult(roots=[types.Root(uri="file:///work")])


async def text(client, name, arguments, **options):
    return (await client.call_tool(name, arguments, **options)).content[0].text


async def reported(client):
    """What came, in its order."""
    events = []

    async def on_progress(_progress, _total, message):
        events.append(message)

    events.append(await text(client, SLOW, {"milliseconds": 300}, progress_callback=on_progress))
    return events


async def cancelled_while_it_reports(client):
    with anyio.CancelScope() as scope:

        async def on_progress(*_):
            scope.cancel()

        await client.call_tool(SLOW, {"milliseconds": 60_000}, progress_callback=on_progress)
    return scope.cancelled_caught


async def cancelled_while_it_is_silent(client):
    with anyio.move_on_after(0.5) as scope:
        await client.call_tool(SLOW, {"milliseconds": 60_000})
    return scope.cancelled_caught


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--protocol", choices=[name for name in MODES if name])
    args = parser.parse_args()
    person = Person()
    headers = {"authorization": f"Bearer {args.token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(
            streamable_http_client(args.url, http_client=http),
            mode=MODES[args.protocol],
            elicitation_callback=person.elicit,
            sampling_callback=person.sample,
            list_roots_callback=person.roots,
        ) as client,
    ):
        seen = {
            "protocolVersion": client.protocol_version,
            "events": await reported(client),
            "cancelled": [await cancelled_while_it_reports(client), await cancelled_while_it_is_silent(client)],
            "answers": [
                await text(client, "test_elicitation", {"message": "Who are you?"}),
                await text(client, "test_sampling", {"prompt": "What is 6 times 7?"}),
                await text(client, "test_input_required_result_list_roots", {}),
            ],
            "asked": person.asked,
        }
        print(json.dumps(seen), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


anyio.run(main)
