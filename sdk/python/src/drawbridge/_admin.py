"""The admin port: health, readiness and metrics, for operators only."""

from __future__ import annotations

import ipaddress
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from threading import Thread
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, generate_latest

from ._readiness import Readiness

TIMEOUT_SECONDS = 5.0
"""How long a request may take to arrive."""
POLL_SECONDS = 0.05
"""How often the thread looks whether it should stop."""


class AdminServer:
    """Serves `/healthz`, `/readyz` and `/metrics` in a thread of its own.

    It accepts requests whose host is an IP address, `localhost` or an allowed name: DNS rebinding
    needs a name that the attacker controls.
    """

    def __init__(
        self,
        address: tuple[str, int],
        readiness: Readiness,
        registry: CollectorRegistry,
        allowed_hosts: frozenset[str] = frozenset(),
    ) -> None:
        class Handler(_Handler):
            def routes(self, query: str) -> dict[str, tuple[HTTPStatus, bytes]]:
                return {
                    "/healthz": (HTTPStatus.OK, b"ok\n"),
                    "/readyz": _readyz(readiness, query),
                    "/metrics": (HTTPStatus.OK, generate_latest(registry)),
                }

            def is_allowed(self, host: str) -> bool:
                return is_host_allowed(host, allowed_hosts)

        class Server(ThreadingHTTPServer):
            address_family = AF_INET6 if ":" in address[0] else AF_INET
            daemon_threads = True

        self._server = Server(address, Handler)
        host, port = self._server.server_address[:2]
        self.address = f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"
        """The bound address."""
        Thread(target=self._server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()

    def close(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()


def _readyz(readiness: Readiness, query: str) -> tuple[HTTPStatus, bytes]:
    body = readiness.report(verbose=query.startswith("verbose"))
    status = HTTPStatus.OK if body["ready"] else HTTPStatus.SERVICE_UNAVAILABLE
    return status, json.dumps(body).encode()


def is_host_allowed(host: str, allowed_hosts: frozenset[str]) -> bool:
    """Whether the admin port accepts this `Host` header."""
    if not host or "@" in host:
        return False
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name in allowed_hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_SECONDS
    server_version = "drawbridge"
    sys_version = ""

    def routes(self, query: str) -> dict[str, tuple[HTTPStatus, bytes]]:
        raise NotImplementedError

    def is_allowed(self, host: str) -> bool:
        raise NotImplementedError

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.is_allowed(hosts[0]):
            message = "the Host header names another server; allow it with --admin-allowed-host\n"
            self._respond(HTTPStatus.FORBIDDEN, message.encode())
            return
        target = urlsplit(self.path)
        routes = self.routes(target.query)
        self._respond(*routes.get(target.path, (HTTPStatus.NOT_FOUND, b"not found\n")))

    def _respond(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Probes are not logged."""
