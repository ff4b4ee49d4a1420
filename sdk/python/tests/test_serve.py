"""What a service serves beside its tools, and how it starts and stops."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import drawbridge.testing
import grpc
import pytest
from drawbridge._admin import is_host_allowed
from drawbridge._serve import ContractError, Service
from drawbridge._settings import Settings, parse_settings
from greeter import Greeter
from greeter_pb2 import GreetRequest
from greeter_pb2_grpc import GreeterServiceServicer, GreeterServiceStub
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

GREETER = "greeter.v1.GreeterService"


def get(address, path, **headers):
    """The status and the body of a document on the admin port."""
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_serves_the_contract_with_its_comments_without_a_token(version):
    async with drawbridge.testing.serving(Greeter()) as service:
        call = service.unauthenticated_channel().stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )

        async def ask(**request):
            asked = [reflection_pb2.ServerReflectionRequest(**request)]
            return [response async for response in call(iter(asked))][0]

        listed = (await ask(list_services="")).list_services_response.service
        assert GREETER in [service.name for service in listed]
        found = await ask(file_containing_symbol=GREETER)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(file)
            for file in found.file_descriptor_response.file_descriptor_proto
        ]
        names = {file.name for file in files}
        assert {"greeter.proto", "drawbridge/mcp/v1/options.proto"} <= names
        comments = [place.leading_comments for place in files[0].source_code_info.location]
        assert " Greets a person.\n" in comments
        missing = await ask(file_by_filename="missing.proto")
        assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def ready(service):
    """Waits until the service is ready."""
    while service.running.not_ready:
        await asyncio.sleep(0.01)


async def test_health_follows_the_service_without_a_token():
    async with drawbridge.testing.serving(Greeter()) as service:
        await ready(service)
        health = health_pb2_grpc.HealthStub(service.unauthenticated_channel())
        for name in ("", GREETER):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service=GREETER))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        # The watcher does not hold the drain until its deadline.
        stopping = asyncio.create_task(service.running.stop())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await asyncio.wait_for(stopping, 4)


async def test_the_admin_port_serves_health_readiness_and_metrics():
    async with drawbridge.testing.serving(Greeter()) as service:
        admin = service.running.admin_address
        await ready(service)
        stub = GreeterServiceStub(service.channel())
        await stub.Greet(GreetRequest(name="Ada"))
        assert await asyncio.to_thread(get, admin, "/healthz") == (200, "ok\n")
        status, body = await asyncio.to_thread(get, admin, "/readyz")
        assert (status, json.loads(body)) == (200, {"ready": True})
        _, metrics = await asyncio.to_thread(get, admin, "/metrics")
        labels = f'rpc_method="{GREETER}/Greet",rpc_response_status_code="OK"'
        assert f"rpc_server_call_duration_seconds_count{{{labels}}} 1.0" in metrics
        evil = await asyncio.to_thread(lambda: get(admin, "/metrics", Host="evil.example"))
        assert evil[0] == 403


def test_the_admin_port_accepts_addresses_and_allowed_names():
    allowed = frozenset({"metrics.acme.internal"})
    for host in ("127.0.0.1", "10.1.2.3:7451", "[::1]:1", "LocalHost", "metrics.acme.internal:1"):
        assert is_host_allowed(host, allowed), host
    for host in ("", "evil.example", "localhost.evil.example", "a@127.0.0.1", "127.1", "[::1"):
        assert not is_host_allowed(host, allowed), host


def test_a_handler_that_is_not_asynchronous_does_not_start():
    class Synchronous(Greeter):
        def Greet(self, request, context):
            return None

    with pytest.raises(TypeError, match=f"the handler of {GREETER}/Greet must be an `async def`"):
        Service(Synchronous())


def test_a_class_without_a_contract_does_not_start():
    with pytest.raises(ContractError, match="not a subclass of a generated"):
        Service(object())
    with pytest.raises(TypeError, match="async def"):
        Service(GreeterServiceServicer())


def check_error(capsys, expected, *arguments, **environment):
    with pytest.raises(SystemExit):
        parse_settings("greeter", Settings(), arguments, environment)
    assert expected in capsys.readouterr().err


def test_options_are_arguments_and_environment_variables(capsys):
    parsed = parse_settings(
        "greeter",
        Settings(),
        ["--listen", "127.0.0.1:1"],
        {"DRAWBRIDGE_GREETER_LISTEN": "127.0.0.1:2", "DRAWBRIDGE_GREETER_AUTH_ISSUER": "x"},
    )
    assert (parsed.listen, parsed.auth_issuer) == ("127.0.0.1:1", "x")
    allowed = parse_settings(
        "greeter",
        Settings(),
        ["--listen", "0.0.0.0:1"],
        {"DRAWBRIDGE_GREETER_ALLOW_PLAINTEXT": "true"},
    )
    assert allowed.allow_plaintext
    check_error(capsys, "plaintext beyond loopback", "--listen", "0.0.0.0:1")
    check_error(capsys, "plaintext beyond loopback", "--auth-jwks-url", "http://auth:1/jwks")
    check_error(capsys, "expected an address and a port", "--listen", "7450")
    check_error(capsys, "mTLS needs", "--mtls-key-file", "x")
    check_error(capsys, "--mtls-allow requires", "--mtls-allow", "spiffe://a/b")
    check_error(capsys, "neither true nor false", DRAWBRIDGE_GREETER_ALLOW_PLAINTEXT="perhaps")


async def test_a_port_in_use_is_an_error():
    async with drawbridge.testing.serving(Greeter()) as service:
        with pytest.raises(OSError, match="cannot listen on"):
            async with drawbridge.testing.serving(Greeter(), listen=service.running.address):
                pass


def process_of(tmp_path, *options):
    """A service as a process, and the log line with which it serves."""
    program = tmp_path / "program.py"
    lines = ["import drawbridge", "from greeter import Greeter", "drawbridge.serve(Greeter())"]
    program.write_text("\n".join(lines))
    search = [str(Path(__file__).parent), *sys.path]
    process = subprocess.Popen(
        [
            *(sys.executable, program, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"),
            *options,
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
    )
    return process, json.loads(process.stderr.readline())


@pytest.fixture
def auth():
    """An auth of the test."""
    auth = drawbridge.testing.TestAuth()
    yield auth
    auth.close()


def test_a_process_says_where_it_serves_and_stops_at_sigterm(tmp_path, auth):
    options = ("--auth-jwks-url", auth.jwks_url, "--drain-delay-ms", "0")
    process, line = process_of(tmp_path, *options)
    assert (line["message"], line["level"]) == ("serving", "INFO")
    while get(line["admin"], "/readyz")[0] != 200:
        time.sleep(0.01)
    assert line["address"].startswith("127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    process.stderr.close()


def test_a_process_serves_during_the_drain_delay_and_a_second_signal_ends_it_at_once(
    tmp_path, auth
):
    options = ("--auth-jwks-url", auth.jwks_url, "--drain-delay-ms", "600000")
    process, line = process_of(tmp_path, *options)
    process.send_signal(signal.SIGTERM)
    assert "draining" in process.stderr.readline()
    while "stopping" not in get(line["admin"], "/readyz")[1]:
        time.sleep(0.01)
    with grpc.insecure_channel(line["address"]) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 1
    process.stderr.close()
