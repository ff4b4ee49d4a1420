"""Fetches auth's keys: over plain HTTP on loopback, https, or mTLS from auth alone."""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import json
import socket
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from ._keys import Fetch
from ._mtls import Identity

TIMEOUT_SECONDS = 5.0
"""How long one connection or one read may take."""
BODY_BYTES_MAX = 1024 * 1024
"""The largest key set."""


def is_loopback(host: str) -> bool:
    """Whether an address is of this host alone. Names other than `localhost` may lead anywhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_url(url: str, *, allow_plaintext: bool) -> SplitResult:
    """Checks a URL of auth's keys. Raises `ValueError` if keys cannot be fetched from it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url}: expected a URL such as https://auth:7110/.well-known/jwks.json")
    if parts.scheme == "http" and not (allow_plaintext or is_loopback(parts.hostname)):
        raise ValueError(
            f"{url}: plaintext beyond loopback: use https, or allow it with --allow-plaintext"
        )
    return parts


def key_fetcher(
    url: str, identity: Identity | None, auth_id: str | None, *, allow_plaintext: bool
) -> Fetch:
    """Fetches the key set at `url`. An https URL is fetched by mTLS if there is a certificate:
    a server of other keys could impersonate any caller.
    """
    parts = parse_url(url, allow_plaintext=allow_plaintext)

    def context() -> ssl.SSLContext | None:
        if parts.scheme == "http":
            return None
        if identity is None:
            return ssl.create_default_context()
        return identity.client_context()

    expected = auth_id if identity is not None and parts.scheme == "https" else None

    async def fetch() -> tuple[Any, str | None]:
        body, cache_control = await asyncio.to_thread(_get, parts, context, expected)
        return json.loads(body), cache_control

    return fetch


def _get(
    url: SplitResult, context: Callable[[], ssl.SSLContext | None], expected: str | None
) -> tuple[bytes, str | None]:
    """The body and the `Cache-Control` header of a document."""
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    plain = socket.create_connection((host, port), TIMEOUT_SECONDS)
    tls = context()
    if tls is None:
        return _get_http1(url, plain)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    with tls.wrap_socket(plain, server_hostname=host) as connection:
        if expected is not None:
            _check_peer(connection, expected)
        # A gRPC server speaks HTTP/2 alone.
        if connection.selected_alpn_protocol() == "h2":
            return _get_http2(url, connection)
        return _get_http1(url, connection)


def _check_peer(connection: ssl.SSLSocket, expected: str) -> None:
    names = (connection.getpeercert() or {}).get("subjectAltName", ())
    uris = [name[1] for name in names if name[0] == "URI"]
    if uris != [expected]:
        raise OSError(f"the peer is {', '.join(map(str, uris)) or 'unknown'}, not {expected}")


def _get_http1(url: SplitResult, connection: socket.socket) -> tuple[bytes, str | None]:
    client = http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_SECONDS)
    client.sock = connection
    try:
        client.request("GET", url.path or "/")
        response = client.getresponse()
        if response.status != http.client.OK:
            raise OSError(f"{url.geturl()} answered with the status {response.status}")
        body = response.read(BODY_BYTES_MAX + 1)
    except http.client.HTTPException as error:
        raise OSError(f"{url.geturl()}: {error!r}") from error
    finally:
        client.close()
    return _bounded(body), response.headers.get("Cache-Control")


def _get_http2(url: SplitResult, connection: ssl.SSLSocket) -> tuple[bytes, str | None]:
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    client.send_headers(
        1,
        [
            (":method", "GET"),
            (":scheme", url.scheme),
            (":authority", url.netloc),
            (":path", url.path or "/"),
        ],
        end_stream=True,
    )
    headers: dict[str, str] = {}
    body = b""
    try:
        while True:
            connection.sendall(client.data_to_send())
            received = connection.recv(65536)
            if not received:
                raise OSError(f"{url.geturl()} closed the connection")
            for event in client.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    headers = {str(name): str(value) for name, value in event.headers}
                elif isinstance(event, h2.events.DataReceived):
                    body = _bounded(body + event.data)
                    client.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    raise OSError(f"{url.geturl()} reset the request")
                elif isinstance(event, h2.events.StreamEnded):
                    if headers.get(":status") != "200":
                        status = headers.get(":status")
                        raise OSError(f"{url.geturl()} answered with the status {status}")
                    return body, headers.get("cache-control")
    except h2.exceptions.H2Error as error:
        raise OSError(f"{url.geturl()}: {error!r}") from error


def _bounded(body: bytes) -> bytes:
    if len(body) > BODY_BYTES_MAX:
        raise OSError(f"the key set has more than {BODY_BYTES_MAX} bytes")
    return body
