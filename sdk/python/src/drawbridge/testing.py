"""Serves a tool service in a test, with a test's own keys in place of auth.

    async with testing.serving(Rooms()) as rooms:
        alice = RoomsServiceStub(rooms.channel(subject="alice"))
        found = await alice.Search(SearchRequest())

The server, its checks and its tokens are real; only auth's decision is missing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
import urllib.parse
from collections.abc import AsyncIterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ._readiness import Dependency
from ._serve import RunningService, Service, start
from ._settings import AUTH_ISSUER, Settings
from ._tokens import TOKEN_TYPE, TXN_TOKEN

__all__ = ["TestAuth", "TestService", "serving"]

ISSUER = "https://idp.example"


class TestAuth:
    """Signs transaction tokens, and publishes the key."""

    __test__ = False

    def __init__(self, key_id: str = "test") -> None:
        self.key_id = key_id
        self.private_key = Ed25519PrivateKey.generate()
        self.fetches = 0
        """How many times the key set was fetched."""
        keys = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.fetches += 1
                body = json.dumps(keys.key_set()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Requests are not logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.jwks_url = f"http://127.0.0.1:{self._server.server_port}/jwks"
        """Where the key set is."""

    def key_set(self) -> dict[str, Any]:
        """The published key set."""
        public = self.private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": self.key_id, "x": x}]}

    def claims(
        self, service: str, rpc: str, subject: str = "alice", tenant: str | None = "acme"
    ) -> dict[str, Any]:
        """The claims of a valid token for one RPC, `package.Service/Method`."""
        now = int(time.time())
        parts = (subject, tenant or "", ISSUER)
        context: dict[str, Any] = {
            "iss": ISSUER,
            "principal": "@".join(urllib.parse.quote_plus(part, safe="*") for part in parts),
            "client_id": "test",
            "tool": "test",
            "rpc": rpc,
        }
        if tenant is not None:
            context["tenant"] = tenant
        return {
            "iss": AUTH_ISSUER,
            "aud": service,
            "sub": subject,
            "iat": now,
            "exp": now + 30,
            "txn": "test",
            "scope": "mcp",
            "tctx": context,
        }

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        """A token with these claims; `header` replaces values of its header."""
        headers = {"typ": TOKEN_TYPE, "kid": self.key_id, **header}
        return jwt.encode(dict(claims), self.private_key, "EdDSA", headers=headers)

    def close(self) -> None:
        """Stops publishing."""
        self._server.shutdown()
        self._server.server_close()


class TestService:
    """A service that serves in a test."""

    __test__ = False

    def __init__(self, auth: TestAuth, running: RunningService, namespace: str) -> None:
        self.auth = auth
        self.running = running
        self.namespace = namespace
        self._channels: list[grpc.aio.Channel] = []

    def channel(
        self, *, subject: str = "alice", tenant: str | None = "acme", **claims: Any
    ) -> grpc.aio.Channel:
        """A channel that calls with a token of this caller; `claims` replace those of `tctx`."""

        def metadata(rpc: str) -> list[tuple[str, str]]:
            body = self.auth.claims(self.namespace, rpc, subject, tenant)
            body["tctx"].update(claims)
            return [(TXN_TOKEN, self.auth.sign(body))]

        return self._open([_UnaryTokens(metadata), _StreamTokens(metadata)])

    def unauthenticated_channel(self) -> grpc.aio.Channel:
        """A channel that calls without a token."""
        return self._open([])

    def _open(self, interceptors: Sequence[grpc.aio.ClientInterceptor]) -> grpc.aio.Channel:
        address = self.running.address
        channel = grpc.aio.insecure_channel(address, interceptors=interceptors)
        self._channels.append(channel)
        return channel

    async def close(self) -> None:
        """Closes the channels and stops the service."""
        for channel in self._channels:
            await channel.close()
        await self.running.stop()
        self.auth.close()


@contextlib.asynccontextmanager
async def serving(
    *servicers: object, dependencies: Sequence[Dependency] = (), **settings: Any
) -> AsyncIterator[TestService]:
    """Serves on free ports while the block runs; `settings` are those of `drawbridge.Settings`."""
    service, auth = Service(*servicers), TestAuth()
    free = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "auth_jwks_url": auth.jwks_url}
    running = await start(service, Settings(**{**free, **settings}), (), dependencies)
    test = TestService(auth, running, service.namespace)
    try:
        yield test
    finally:
        await test.close()


class _Tokens:
    """Adds a token for the RPC to each call."""

    def __init__(self, metadata: Any) -> None:
        self._metadata = metadata

    def _with_token(self, details: Any) -> Any:
        method = details.method.decode() if isinstance(details.method, bytes) else details.method
        rpc = method.lstrip("/")
        given = details.metadata or ()
        return details._replace(metadata=grpc.aio.Metadata(*given, *self._metadata(rpc)))


class _UnaryTokens(_Tokens, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(self._with_token(details), request)


class _StreamTokens(_Tokens, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(self._with_token(details), request)
