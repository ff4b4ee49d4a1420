"""What a caller sees of a service: results, errors, events, and the limits of requests."""

import asyncio

import drawbridge.testing
import grpc
import pytest
from drawbridge.mcp.v1.interaction_pb2 import ElicitResult, InputResponse, InputResponses
from greeter import Greeter
from greeter_pb2 import CountRequest, FailRequest, GreetRequest
from greeter_pb2_grpc import GreeterServiceStub


async def refused(call):
    """The status and the message of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value.code(), failed.value.details()


async def test_a_handler_knows_its_verified_caller():
    async with drawbridge.testing.serving(Greeter()) as service:
        for subject in ("alice", "bob"):
            stub = GreeterServiceStub(service.channel(subject=subject))
            answer = await stub.Greet(GreetRequest(name="Ada"))
            assert (answer.greeting, answer.caller) == ("Hello, Ada!", subject)


def test_outside_of_a_handler_there_is_no_caller():
    with pytest.raises(LookupError):
        drawbridge.caller()


async def test_events_arrive_in_order():
    async with drawbridge.testing.serving(Greeter()) as service:
        stub = GreeterServiceStub(service.channel())
        events = [event async for event in stub.Count(CountRequest(to=2))]
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds == ["progress", "progress", "result"]
        assert events[-1].result.counted == 2


async def test_a_question_ends_the_call_and_its_answer_continues_it():
    async with drawbridge.testing.serving(Greeter()) as service:
        stub = GreeterServiceStub(service.channel())
        [event] = [event async for event in stub.Count(CountRequest(to=101))]
        assert event.input_required.requests["sure"].form.message == "Sure?"

        def answered(action):
            response = InputResponse(elicitation=ElicitResult(action=action))
            answers = InputResponses(responses={"sure": response}, state=event.input_required.state)
            return CountRequest(to=101, input=answers)

        accepted = stub.Count(answered(ElicitResult.ACTION_ACCEPT))
        events = [event async for event in accepted]
        assert events[-1].result.counted == 101
        declined = stub.Count(answered(ElicitResult.ACTION_DECLINE)).read()
        assert await refused(declined) == (grpc.StatusCode.FAILED_PRECONDITION, "not confirmed")


async def test_an_error_of_a_tool_is_its_status_and_any_other_reveals_nothing():
    async with drawbridge.testing.serving(Greeter()) as service:
        stub = GreeterServiceStub(service.channel())
        for how, expected in {
            "tool": (grpc.StatusCode.INVALID_ARGUMENT, "how: invalid"),
            "abort": (grpc.StatusCode.NOT_FOUND, "aborted"),
            "bug": (grpc.StatusCode.INTERNAL, "the service failed"),
        }.items():
            assert await refused(stub.Fail(FailRequest(how=how))) == expected


async def test_nul_in_a_string_is_refused_with_the_path_of_its_field():
    async with drawbridge.testing.serving(Greeter()) as service:
        stub = GreeterServiceStub(service.channel())
        for field, request in {
            "name": GreetRequest(name="a\0b"),
            "others": GreetRequest(others=["a", "\0"]),
            "titles.key": GreetRequest(titles={"\0": "x"}),
            "titles.value": GreetRequest(titles={"x": "\0"}),
            "next.next.name": GreetRequest(next=GreetRequest(next=GreetRequest(name="\0"))),
        }.items():
            assert await refused(stub.Greet(request)) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{field}: must not contain the character NUL (U+0000)",
            )
        await stub.Greet(GreetRequest(name="Ada", picture=b"\0"))


async def test_bytes_that_are_not_a_message_are_an_invalid_argument():
    async with drawbridge.testing.serving(Greeter()) as service:
        call = service.channel().unary_unary("/greeter.v1.GreeterService/Greet")
        assert await refused(call(b"\xff")) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "the message does not match the contract",
        )


async def test_compressed_streamed_and_large_requests_are_refused():
    async with drawbridge.testing.serving(Greeter(), request_bytes_max=1000) as service:
        stub = GreeterServiceStub(service.channel())
        call = stub.Greet(GreetRequest(name="a" * 500), compression=grpc.Compression.Gzip)
        assert (await refused(call))[0] == grpc.StatusCode.UNIMPLEMENTED
        call = stub.Greet(GreetRequest(name="a" * 2000))
        assert (await refused(call))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        call = stub.Collect(iter([GreetRequest()]))
        assert (await refused(call))[0] == grpc.StatusCode.UNIMPLEMENTED


async def test_a_cancelled_call_cancels_its_handler():
    greeter = Greeter()
    async with drawbridge.testing.serving(greeter) as service:
        call = GreeterServiceStub(service.channel()).Count(CountRequest(to=0))
        await greeter.started.wait()
        call.cancel()
        await greeter.cancelled.wait()


async def test_calls_in_flight_finish_when_the_service_stops():
    greeter = Greeter()
    async with drawbridge.testing.serving(greeter) as service:
        call = GreeterServiceStub(service.channel()).Count(CountRequest(to=0))
        await greeter.started.wait()
        stopping = asyncio.create_task(service.running.stop())
        await asyncio.sleep(0)
        greeter.release.set()
        assert [event async for event in call][-1].result.counted == 0
        await stopping
