"""Finds and books a room at a service from a template, with the official Python SDK.

    rooms.py --url URL --token TOKEN --protocol REVISION --room ID --answer accept|decline|none

`none` is a client that cannot ask its user. Prints one JSON object.
"""

import argparse
import json

import anyio
import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

MODES = {"2025-11-25": "legacy", "2026-07-28": "2026-07-28"}


async def main():
    parser = argparse.ArgumentParser()
    for name in ("url", "token", "protocol", "room", "answer"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    asked, progress = [], []

    async def elicit(_context, params):
        asked.append(params.message)
        content = {} if args.answer == "accept" else None
        return types.ElicitResult(action=args.answer, content=content)

    async def on_progress(done, total, message):
        progress.append([done, total, message])

    headers = {"authorization": f"Bearer {args.token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(
            streamable_http_client(args.url, http_client=http),
            mode=MODES[args.protocol],
            elicitation_callback=None if args.answer == "none" else elicit,
        ) as client,
    ):
        conditions = {"building": "BUILDING_NORTH", "seats_min": 5}
        found = await client.call_tool("rooms_search", {"filter": conditions})
        arguments = {"room_id": args.room, "purpose": "stand-up"}
        booked = await client.call_tool("rooms_book", arguments, progress_callback=on_progress)
        report = {
            "protocolVersion": client.protocol_version,
            "found": [room["id"] for room in found.structured_content["rooms"]],
            "asked": asked,
            "progress": progress,
            "isError": bool(booked.is_error),
            "booking": booked.structured_content,
            "text": booked.content[0].text,
        }
        print(json.dumps(report), flush=True)


anyio.run(main)
