"""A call is a span in the trace of its caller."""

import signal
from concurrent.futures import ThreadPoolExecutor

import drawbridge.testing
import grpc
import pytest
from drawbridge._tokens import TXN_TOKEN
from drawbridge._traces import export_spans
from greeter import Greeter
from greeter_pb2 import CountRequest, FailRequest, GreetRequest
from greeter_pb2_grpc import GreeterServiceStub
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from test_serve import process_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "request-1")]
SERVICE = "greeter.v1.GreeterService"


@pytest.fixture(scope="module")
def provider():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # A process has one.
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(provider):
    provider.clear()
    return provider


class Traced(Greeter):
    async def Greet(self, request, context):
        with trace.get_tracer("test").start_as_current_span("work"):
            return await super().Greet(request, context)


async def outcome(call):
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_call_is_a_span_in_the_trace_of_its_caller_and_its_work_is_below_it(spans):
    async with drawbridge.testing.serving(Traced()) as service:
        stub = GreeterServiceStub(service.channel(subject="alice"))
        await stub.Greet(GreetRequest(name="Ada"), metadata=HEADERS)
        async for _ in stub.Count(CountRequest(to=2), metadata=HEADERS):
            pass
        # A call without a trace begins one.
        await stub.Greet(GreetRequest(name="Ada"))
    work, greet, count, _, own = spans.get_finished_spans()
    assert (work.name, work.parent.span_id) == ("work", greet.context.span_id)
    for span, rpc in ((greet, "Greet"), (count, "Count")):
        assert (span.name, span.kind) == (f"{SERVICE}/{rpc}", trace.SpanKind.SERVER)
        assert f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == PARENT
        assert dict(span.attributes) == {
            "rpc.system.name": "grpc",
            "rpc.method": f"{SERVICE}/{rpc}",
            "request_id": "request-1",
            "rpc.response.status_code": "OK",
        }
    assert own.parent is None


async def test_the_span_of_a_failed_call_has_its_status_and_no_token_or_cause(spans):
    async with drawbridge.testing.serving(Greeter()) as service:
        stub = GreeterServiceStub(service.channel(subject="alice"))
        internal, invalid = grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT
        assert await outcome(stub.Fail(FailRequest(how="x"))) == internal
        assert await outcome(stub.Fail(FailRequest(how="tool"))) == invalid
        refused = GreeterServiceStub(service.unauthenticated_channel())
        await outcome(refused.Greet(GreetRequest(), metadata=[(TXN_TOKEN, "secret-token")]))
    found = spans.get_finished_spans()
    codes = [span.attributes["rpc.response.status_code"] for span in found]
    assert codes == ["INTERNAL", "INVALID_ARGUMENT", "UNAUTHENTICATED"]
    assert [span.status.status_code.name for span in found] == ["ERROR", "UNSET", "UNSET"]
    for span in found:
        assert "swordfish" not in span.to_json() and "secret-token" not in span.to_json()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self):
        self.spans = []

    def Export(self, request, context):
        for group in request.resource_spans:
            names = {one.key: one.value.string_value for one in group.resource.attributes}
            for scope in group.scope_spans:
                self.spans += [(names["service.name"], span.name) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def test_a_process_exports_its_last_spans_before_it_ends(tmp_path, monkeypatch):
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    auth, rpc = drawbridge.testing.TestAuth(), f"{SERVICE}/Greet"
    options = ("--auth-jwks-url", auth.jwks_url, "--drain-delay-ms", "0")
    process, line = process_of(tmp_path, *options)
    with grpc.insecure_channel(line["address"]) as channel:
        token = auth.sign(auth.claims("greeter", rpc))
        GreeterServiceStub(channel).Greet(GreetRequest(), metadata=[(TXN_TOKEN, token)])
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    process.stderr.close()
    auth.close()
    server.stop(None)
    assert collector.spans == [("greeter", rpc)]


def test_without_an_endpoint_or_when_it_is_disabled_nothing_is_exported():
    before = trace.get_tracer_provider()
    disabled = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}
    for environment in ({}, disabled, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}):
        export_spans("greeter", environment)()
        assert trace.get_tracer_provider() is before
