"""Spans of OpenTelemetry: each call is a span in the trace of its caller.

They need the extra `drawbridge[otel]`. A process exports them where `OTEL_EXPORTER_OTLP_ENDPOINT`
says; a program with a tracer provider of its own has them there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from opentelemetry.trace import Span

try:
    from opentelemetry import context, propagate, trace
except ImportError:
    _has_api = False
else:
    _has_api = True

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables with the address of an OTLP collector (gRPC)."""

FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""The statuses that are errors of a server (OpenTelemetry's conventions for gRPC)."""


def name_of(code: grpc.StatusCode) -> str:
    """A status as in metrics and spans: `INVALID_ARGUMENT`."""
    return code.name


def begin_span(rpc: str, metadata: Iterable[tuple[str, str | bytes]]) -> Span | None:
    """Begins the span of a call, in the trace that its metadata names. It is the current span until
    the task of the call ends. `None` without OpenTelemetry.
    """
    if not _has_api:
        return None
    carrier = {key: value for key, value in metadata if isinstance(value, str)}
    attributes = {"rpc.system.name": "grpc", "rpc.method": rpc}
    if "x-request-id" in carrier:
        attributes["request_id"] = carrier["x-request-id"]
    span = trace.get_tracer("drawbridge").start_span(
        rpc,
        context=propagate.extract(carrier),
        kind=trace.SpanKind.SERVER,
        attributes=attributes,
    )
    # Each call is a task of its own, with a context of its own: nothing is left to detach.
    context.attach(trace.set_span_in_context(span))
    return span


def end_span(span: Span | None, code: grpc.StatusCode) -> None:
    """Ends the span of a call."""
    if span is None:
        return
    span.set_attribute("rpc.response.status_code", name_of(code))
    if code in FAULTS:
        span.set_status(trace.StatusCode.ERROR)
    span.end()


def export_spans(service: str, environment: Mapping[str, str]) -> Callable[[], None]:
    """Exports spans where the environment says. Returns what exports the last ones at the end."""
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    endpoint = next((name for name in ENDPOINTS if environment.get(name)), None)
    if endpoint is None or disabled:
        return _nothing
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("%s has no effect: install drawbridge[otel]", endpoint)
        return _nothing
    name = environment.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _nothing() -> None:
    """There is nothing to export."""
