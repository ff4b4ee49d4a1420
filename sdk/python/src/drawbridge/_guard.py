"""What every call needs: an accepted peer, a transaction token, a valid message, a measurement."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry, Histogram

from ._caller import Caller, set_caller
from ._keys import KeysUnavailable
from ._nul import find_nul
from ._tokens import TXN_TOKEN, TokenRefused, Verifier, check_message
from ._traces import begin_span, end_span, name_of
from .errors import ToolError

logger = logging.getLogger(__name__)

PUBLIC_SERVICES = (
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
)
"""Services that need no transaction token: they reveal no one's data."""

CREDENTIALS = (TXN_TOKEN, "authorization")
"""Metadata with credentials. A call carries each of them at most once."""

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Upper bounds of the latency histogram, in seconds."""

Context = grpc.aio.ServicerContext[Any, Any]
Behavior = Callable[[Any, Context], Any]


class _Refused(Exception):
    """The call ends with this status."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Guard(grpc.aio.ServerInterceptor):
    """Checks every call before its handler sees it."""

    def __init__(self, verifier: Verifier, allowed_peers: frozenset[str] | None) -> None:
        self._verifier = verifier
        # `None`: the connection is in plaintext, and peers have no ids.
        self._allowed_peers = allowed_peers
        self.registry = CollectorRegistry()
        self._durations = Histogram(
            "rpc_server_call_duration_seconds",
            "RPCs that were served",
            ["rpc_method", "rpc_response_status_code"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Waits until no call of a tool is running."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if method.startswith(PUBLIC_SERVICES):
            return self._peers_only(handler)
        if handler.request_streaming:
            return _client_streams_refused()
        call = _Call(self, method.lstrip("/"), handler)
        # The bytes are decoded once the token has been verified for them.
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                call.stream, response_serializer=handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            call.unary, response_serializer=handler.response_serializer
        )

    def _peers_only(self, handler: Any) -> Any:
        """The handler of a public RPC, for accepted peers."""

        async def unary(request: Any, context: Context) -> Any:
            await self._accept_peer_or_abort(context)
            return await handler.unary_unary(request, context)

        async def stream(request: Any, context: Context) -> Any:
            await self._accept_peer_or_abort(context)
            behavior = handler.stream_stream or handler.unary_stream
            responses = behavior(request, context)
            if hasattr(responses, "__aiter__"):
                async for response in responses:
                    await context.write(response)
            else:
                await responses

        coders = (handler.request_deserializer, handler.response_serializer)
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(stream, *coders)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(stream, *coders)
        return grpc.unary_unary_rpc_method_handler(unary, *coders)

    async def _accept_peer_or_abort(self, context: Context) -> None:
        try:
            self.accept_peer(context)
        except _Refused as refused:
            await context.abort(refused.code, str(refused))

    def accept_peer(self, context: Context) -> None:
        """Refuses a service that may not call this one."""
        if self._allowed_peers is None:
            return
        # gRPC sets it for a certificate with exactly one URI, which is a SPIFFE id.
        peers = [peer.decode() for peer in context.auth_context().get("peer_spiffe_id", [])]
        if len(peers) != 1 or peers[0] not in self._allowed_peers:
            logger.info("rejected a peer: %s", ", ".join(peers) or "it has no SPIFFE id")
            raise _Refused(grpc.StatusCode.PERMISSION_DENIED, "this service may not call")

    async def authenticate(self, rpc: str, message: bytes, context: Context) -> Caller:
        """The verified caller of a call with this message."""
        metadata = context.invocation_metadata() or ()
        values: dict[str, list[str]] = {name: [] for name in CREDENTIALS}
        for key, value in metadata:
            if key in values:
                values[key].append(value if isinstance(value, str) else "")
        try:
            for name in CREDENTIALS:
                if len(values[name]) > 1:
                    raise TokenRefused(f"the call carries more than one value of {name}")
            caller = await self._verifier.verify(next(iter(values[TXN_TOKEN]), None), rpc)
            check_message(caller, message)
        except TokenRefused as error:
            logger.info("rejected a call without a valid transaction token: %s", error)
            raise _Refused(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error
        except KeysUnavailable as error:
            raise _Refused(
                grpc.StatusCode.UNAVAILABLE, "transaction tokens cannot be verified now; retry"
            ) from error
        return caller

    def begin(self, rpc: str, context: Context) -> Callable[[grpc.StatusCode], None]:
        """Counts, measures and traces a call. Returns what records its outcome."""
        self._running += 1
        self._idle.clear()
        span, started = begin_span(rpc, context.invocation_metadata() or ()), perf_counter()

        def end(code: grpc.StatusCode) -> None:
            end_span(span, code)
            self._end(rpc, code, started)

        return end

    def _end(self, rpc: str, code: grpc.StatusCode, started: float) -> None:
        self._durations.labels(rpc, name_of(code)).observe(perf_counter() - started)
        self._running -= 1
        if self._running == 0:
            self._idle.set()


class _Call:
    """The calls of one RPC."""

    def __init__(self, guard: Guard, rpc: str, handler: Any) -> None:
        self._guard = guard
        self._rpc = rpc
        self._decode = handler.request_deserializer
        self._behavior: Behavior = handler.unary_stream or handler.unary_unary

    async def unary(self, message: bytes, context: Context) -> Any:
        """Handles a call that returns one message."""
        end, code = self._guard.begin(self._rpc, context), grpc.StatusCode.OK
        try:
            request = await self._admit(message, context)
            return await self._behavior(request, context)
        except BaseException as error:
            code = _code_of(error, context)
            await self._end(error, context)
        finally:
            end(code)

    async def stream(self, message: bytes, context: Context) -> AsyncIterator[Any]:
        """Handles a call that returns events."""
        end, code = self._guard.begin(self._rpc, context), grpc.StatusCode.OK
        try:
            request = await self._admit(message, context)
            async for event in self._behavior(request, context):
                yield event
        except BaseException as error:
            code = _code_of(error, context)
            await self._end(error, context)
        finally:
            end(code)

    async def _admit(self, message: bytes, context: Context) -> Any:
        """The decoded request of an authenticated caller."""
        self._guard.accept_peer(context)
        set_caller(await self._guard.authenticate(self._rpc, message, context))
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        try:
            request = self._decode(message)
        except DecodeError as error:
            raise _Refused(invalid, "the message does not match the contract") from error
        field = find_nul(request) if b"\0" in message else None
        if field is not None:
            raise _Refused(invalid, f"{field}: must not contain the character NUL (U+0000)")
        return request

    async def _end(self, error: BaseException, context: Context) -> NoReturn:
        """Ends the call with the status of the error."""
        if isinstance(error, (_Refused, ToolError)):
            await context.abort(error.code, str(error))
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            # The caller learns no cause.
            logger.error("%s failed", self._rpc, exc_info=error)
            await context.abort(grpc.StatusCode.INTERNAL, "the service failed")
        raise error


def _code_of(error: BaseException, context: Context) -> grpc.StatusCode:
    if isinstance(error, (_Refused, ToolError)):
        return error.code
    if isinstance(error, grpc.aio.AbortError):
        code = context.code()
        return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN
    if isinstance(error, Exception):
        return grpc.StatusCode.INTERNAL
    return grpc.StatusCode.CANCELLED


def _client_streams_refused() -> Any:
    """Client-streaming RPCs are not tools: an authorization decision covers one message."""

    async def refuse(_requests: Any, context: Context) -> NoReturn:
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            "the service has no RPC of this name that takes one message",
        )
        raise AssertionError("abort raises")

    return grpc.stream_unary_rpc_method_handler(refuse)


def check_handler(rpc: str, handler: Any) -> None:
    """Checks that a handler is asynchronous. Raises `TypeError`."""
    if handler.request_streaming:
        return
    behavior = handler.unary_stream or handler.unary_unary
    if handler.response_streaming and not inspect.isasyncgenfunction(behavior):
        raise TypeError(f"the handler of {rpc} must be an `async def` that yields its events")
    if not handler.response_streaming and not inspect.iscoroutinefunction(behavior):
        raise TypeError(f"the handler of {rpc} must be an `async def`")
