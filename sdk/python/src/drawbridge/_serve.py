"""Serves a tool service: gRPC with health and reflection, and the admin port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from ._admin import AdminServer
from ._fetch import key_fetcher
from ._guard import Guard, check_handler
from ._keys import KeySet
from ._logs import FIELDS, install_logs
from ._mtls import Identity, sibling_id
from ._readiness import REQUIRED, SERVING, Dependency, Monitors, Readiness
from ._reflection import SERVICES as REFLECTION_SERVICES
from ._reflection import Reflection
from ._settings import Settings, parse_address, parse_settings
from ._socket import binding, is_socket, parse_socket, socket_address
from ._tokens import Verifier
from ._traces import export_spans
from .mcp.v1 import options_pb2

logger = logging.getLogger(__name__)

STOP_SECONDS = 5.0
"""How long calls in flight may take to finish in `RunningService.stop`."""
FLUSH_SECONDS = 0.2
"""How long the last responses may take to leave."""
METADATA_BYTES_MAX = 64 * 1024
"""The most metadata of one call."""
CONCURRENT_STREAMS_MAX = 1024
"""Calls that one connection may have open at once."""
KEEP_ALIVE_MS = 20_000


class ContractError(Exception):
    """The service cannot be a tool service."""


class _Recorder:
    """Takes the handlers that generated code adds to a server."""

    def __init__(self) -> None:
        self.handlers: dict[str, dict[str, Any]] = {}

    def add_generic_rpc_handlers(self, _handlers: Any) -> None:
        """The same handlers follow by the name of their service."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.handlers[service] = handlers


def _handlers_of(servicer: object) -> dict[str, dict[str, Any]]:
    """The handlers of a servicer, by the names of its services."""
    recorder = _Recorder()
    for base in type(servicer).__mro__:
        module = sys.modules.get(base.__module__)
        add = getattr(module, f"add_{base.__name__}_to_server", None)
        if add is not None:
            add(servicer, recorder)
    if not recorder.handlers:
        raise ContractError(
            f"{type(servicer).__name__} is not a subclass of a generated …Servicer class"
        )
    return recorder.handlers


def _namespace_of(services: Sequence[ServiceDescriptor]) -> str:
    """The namespace that the contract of all these services declares."""
    extension: Any = options_pb2.service
    namespaces: set[str] = set()
    for service in services:
        namespace = service.GetOptions().Extensions[extension].namespace
        if not namespace:
            raise ContractError(
                f"{service.full_name} has no option (drawbridge.mcp.v1.service).namespace"
            )
        namespaces.add(namespace)
    if len(namespaces) != 1:
        names = ", ".join(sorted(namespaces))
        raise ContractError(f"one process serves one namespace, but these are {names}")
    return namespaces.pop()


class Service:
    """The servicers of one namespace."""

    def __init__(self, *servicers: object) -> None:
        if not servicers:
            raise ContractError("there is no servicer to serve")
        self.handlers: dict[str, dict[str, Any]] = {}
        for servicer in servicers:
            self.handlers.update(_handlers_of(servicer))
        pool = descriptor_pool.Default()
        self.namespace = _namespace_of([pool.FindServiceByName(name) for name in self.handlers])
        """The service's name in policies, and the audience of its transaction tokens."""
        for service, handlers in self.handlers.items():
            for method, handler in handlers.items():
                check_handler(f"{service}/{method}", handler)


class RunningService:
    """A service that serves."""

    def __init__(
        self,
        server: grpc.aio.Server,
        admin: AdminServer,
        readiness: Readiness,
        health: health_aio.HealthServicer,
        guard: Guard,
        monitors: Monitors,
        address: str,
    ) -> None:
        self.address = address
        """Where gRPC is served, as bound."""
        self.admin_address = admin.address
        """Where health, readiness and metrics are served, as bound."""
        self._server = server
        self._admin = admin
        self._readiness = readiness
        self._health = health
        self._guard = guard
        self._monitors = monitors

    @property
    def not_ready(self) -> str | None:
        """Why the service is not ready. `None`: it is."""
        return self._readiness.reason

    async def stop(self) -> None:
        """Stops in one process with its callers: without a delay."""
        await self.drain(0, STOP_SECONDS)

    async def drain(self, delay_seconds: float, timeout_seconds: float) -> None:
        """Stops: not ready, a delay in which calls are still accepted so that load balancers
        notice, no new calls, and calls in flight finish within a timeout.
        """
        self._readiness.set(SERVING, REQUIRED, "stopping")
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(delay_seconds)
        stopping = asyncio.create_task(self._server.stop(timeout_seconds))
        # Those who watch the health never end: they must not hold the drain until its deadline.
        idle = asyncio.create_task(self._guard.idle())
        await asyncio.wait({stopping, idle}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        # A call ends for its handler before its last response has left.
        await asyncio.wait({stopping}, timeout=FLUSH_SECONDS)
        await self._server.stop(None)
        await stopping
        await self._monitors.close()
        await asyncio.to_thread(self._admin.close)


async def start(
    service: Service,
    settings: Settings,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    dependencies: Sequence[Dependency] = (),
) -> RunningService:
    """Starts the service. Raises `OSError` or `ValueError` if it cannot."""
    settings.check()
    identity = _open_identity(settings)
    auth_id = settings.auth_spiffe_id
    if identity is not None and auth_id is None:
        auth_id = sibling_id(identity.current.spiffe_id, "auth")
    fetch = key_fetcher(
        settings.auth_jwks_url, identity, auth_id, allow_plaintext=settings.allow_plaintext
    )
    keys = KeySet(fetch)
    verifier = Verifier(service.namespace, settings.auth_issuer, keys)
    allowed = None if identity is None else frozenset(settings.mtls_allow)
    guard = Guard(verifier, allowed)
    server = grpc.aio.server(
        interceptors=[guard, *interceptors],
        options=_options(settings),
        maximum_concurrent_rpcs=settings.calls_max,
    )
    for name, handlers in service.handlers.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    Reflection([*service.handlers, "grpc.health.v1.Health", *REFLECTION_SERVICES]).add_to(server)
    readiness, needed = Readiness(guard.registry), (_auth_keys(keys), *dependencies)
    for dependency in needed:
        readiness.expect(dependency)
    address = _bind(server, settings, identity)
    admin = AdminServer(
        parse_address(settings.admin_listen),
        readiness,
        guard.registry,
        settings.admin_allowed_hosts,
    )
    monitors = Monitors()
    if identity is not None:
        monitors.start(identity.follow(lambda problem: readiness.note("mtls", problem)))
    await server.start()
    monitors.start(keys.fetch_ahead())
    for dependency in needed:
        monitors.start(readiness.monitor(dependency))
    monitors.start(_follow(readiness, health, ("", *service.handlers)))
    readiness.set(SERVING, REQUIRED, None)
    return RunningService(server, admin, readiness, health, guard, monitors, address)


def _auth_keys(keys: KeySet) -> Dependency:
    """Without auth's keys the service refuses every call. Once it has them, it uses them for an
    hour without auth.
    """

    async def check() -> str | None:
        return None if keys.is_usable else "have not been fetched, or are too old"

    return Dependency("auth_keys", check)


async def _follow(
    readiness: Readiness, health: health_aio.HealthServicer, names: Sequence[str]
) -> None:
    """Health of gRPC says what readiness says."""
    while True:
        ready = await readiness.changed()
        states = health_pb2.HealthCheckResponse
        for name in names:
            await health.set(name, states.SERVING if ready else states.NOT_SERVING)


def _open_identity(settings: Settings) -> Identity | None:
    files = (
        settings.mtls_certificate_file,
        settings.mtls_key_file,
        settings.mtls_trust_bundle_file,
    )
    certificate, key, trust_bundle = files
    if certificate is None or key is None or trust_bundle is None:
        return None
    return Identity(certificate, key, trust_bundle)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        # Two processes on one port would share its calls in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.request_bytes_max),
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.max_concurrent_streams", CONCURRENT_STREAMS_MAX),
        ("grpc.keepalive_time_ms", KEEP_ALIVE_MS),
        # A transaction token is for the bytes of a message: compressed requests are refused.
        ("grpc.compression_enabled_algorithms_bitset", 1),
    ]


def _bind(server: grpc.aio.Server, settings: Settings, identity: Identity | None) -> str:
    """Binds, and returns the bound address."""
    try:
        if is_socket(settings.listen):
            path = parse_socket(settings.listen)
            with binding(path):
                server.add_insecure_port(socket_address(path))
            return socket_address(path)
        if identity is not None:
            port = server.add_secure_port(settings.listen, identity.server_credentials())
        else:
            port = server.add_insecure_port(settings.listen)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {settings.listen}: {error}") from error
    return f"{settings.listen.rpartition(':')[0]}:{port}"


@contextlib.asynccontextmanager
async def serving(
    *servicers: object,
    settings: Settings | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    dependencies: Sequence[Dependency] = (),
) -> AsyncIterator[RunningService]:
    """Serves while the block runs, for programs with a loop of their own."""
    service = Service(*servicers)
    running = await start(service, settings or Settings(), interceptors, dependencies)
    try:
        yield running
    finally:
        await running.stop()


def serve(
    *servicers: object,
    settings: Settings | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    dependencies: Sequence[Dependency] = (),
) -> None:
    """Serves the servicers of one namespace until Ctrl-C or SIGTERM.

    `settings` are the defaults of the process's arguments and environment variables.
    `interceptors` run after the checks of this package, for example OpenTelemetry's.
    `dependencies` are what the handlers need: the service is ready while the required ones are up.
    """
    try:
        service = Service(*servicers)
        parsed = parse_settings(service.namespace, settings or Settings())
        install_logs(parsed.log_format, parsed.log)
        asyncio.run(_run(service, parsed, interceptors, dependencies))
    except (ContractError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


async def _run(
    service: Service,
    settings: Settings,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    dependencies: Sequence[Dependency],
) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, lambda: (second if first.is_set() else first).set())
    export_last_spans = export_spans(service.namespace, os.environ)
    running = await start(service, settings, interceptors, dependencies)
    fields = {"address": running.address, "admin": running.admin_address}
    logger.info("serving", extra={FIELDS: fields})
    await first.wait()
    logger.info("draining; a second signal ends the process at once")
    draining = asyncio.create_task(
        running.drain(settings.drain_delay_ms / 1000, settings.drain_timeout_ms / 1000)
    )
    interrupted = asyncio.create_task(second.wait())
    await asyncio.wait({draining, interrupted}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        logger.error("ended by a second signal, before the calls in flight had ended")
        logging.shutdown()
        # At once: neither handlers nor threads are waited for.
        os._exit(1)
    interrupted.cancel()
    await draining
    await asyncio.to_thread(export_last_spans)
