#!/usr/bin/env python3
"""Calls a tool at a constant rate, whatever becomes of the calls, until SIGTERM.

    load.py URL AUTHORITY RATE TOOL ARGUMENTS

The token is in DRAWBRIDGE_CLIENT_TOKEN. Every second call uses a connection that stays open. No call
is repeated. Prints one line with the numbers and exits with 1 if a call failed or none was made.
"""

import http.client
import json
import os
import signal
import ssl
import sys
import threading
import time
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 30
# The edge closes idle connections after 30 seconds; a call that is sent at that moment would be lost.
IDLE_MAX_SECONDS = 5


class Connections:
    """Connections to one URL, those in use excepted."""

    def __init__(self, url: str, authority: str) -> None:
        self.url = urlsplit(url)
        self.tls = ssl.create_default_context(cafile=authority)
        self.idle: list[tuple[float, http.client.HTTPSConnection]] = []
        self.lock = threading.Lock()

    def take(self) -> http.client.HTTPSConnection:
        with self.lock:
            while self.idle:
                since, connection = self.idle.pop()
                if time.monotonic() - since < IDLE_MAX_SECONDS:
                    return connection
                connection.close()
        return http.client.HTTPSConnection(
            self.url.hostname, self.url.port, timeout=TIMEOUT_SECONDS, context=self.tls
        )

    def give_back(self, connection: http.client.HTTPSConnection) -> None:
        with self.lock:
            self.idle.append((time.monotonic(), connection))


class Load:
    """What became of the calls."""

    def __init__(self, connections: Connections, tool: str, arguments: str) -> None:
        self.connections = connections
        params = {"name": tool, "arguments": json.loads(arguments)}
        self.message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        self.headers = {
            "authorization": "Bearer " + os.environ["DRAWBRIDGE_CLIENT_TOKEN"],
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-11-25",
        }
        self.milliseconds: list[float] = []
        self.failures: list[str] = []

    def call(self, stays_open: bool) -> None:
        began = time.monotonic()
        try:
            self.exchange(stays_open)
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            self.failures.append(f"{time.strftime('%T')} {type(error).__name__}: {error}")
        self.milliseconds.append((time.monotonic() - began) * 1000)

    def exchange(self, stays_open: bool) -> None:
        connection = self.connections.take()
        headers = self.headers if stays_open else {**self.headers, "connection": "close"}
        connection.request("POST", self.connections.url.path, json.dumps(self.message), headers)
        response = connection.getresponse()
        body = response.read().decode()
        # http.client opens a new connection for the next request where the server has closed it.
        if stays_open and connection.sock:
            self.connections.give_back(connection)
        else:
            connection.close()
        events = [line[6:] for line in body.splitlines() if line.startswith("data: ")]
        if response.status != 200:
            raise ValueError(f"status {response.status}: {body[:300]}")
        result = json.loads(events[-1] if events else body)["result"]
        if result.get("isError"):
            raise ValueError(f"an error of the tool: {body[:300]}")

    def report(self) -> int:
        times = sorted(self.milliseconds)
        for failure in self.failures[:10]:
            print(failure, file=sys.stderr)
        if not times:
            print("no call was made", file=sys.stderr)
            return 1
        p99 = times[len(times) * 99 // 100]
        print(f"{len(times)} calls, {len(self.failures)} lost; p99 {p99:.0f} ms, max {times[-1]:.0f} ms")
        return 1 if self.failures else 0


def main() -> int:
    url, authority, rate, tool, arguments = sys.argv[1:]
    load = Load(Connections(url, authority), tool, arguments)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    calls, number, began = [], 0, time.monotonic()
    while not stop.wait(max(0, began + number / int(rate) - time.monotonic())):
        calls.append(threading.Thread(target=load.call, args=(number % 2 == 0,)))
        calls[-1].start()
        number += 1
    for call in calls:
        call.join()
    return load.report()


sys.exit(main())
