"""The service as a caller sees it: a real server, with tokens of a test's own keys."""

from collections.abc import AsyncIterator

import drawbridge.testing
import grpc
import pytest
import pytest_asyncio
from drawbridge.mcp.v1.interaction_pb2 import (
    ClientCapabilities,
    ElicitResult,
    InputResponse,
    InputResponses,
)

import {{name}}_pb2 as pb
from {{name}}_pb2_grpc import {{Camel}}ServiceStub
from {{name}}_service import {{Camel}}

ASKABLE = ClientCapabilities(elicit_form=True)


@pytest_asyncio.fixture
async def service() -> AsyncIterator[drawbridge.testing.TestService]:
    async with drawbridge.testing.serving({{Camel}}()) as service:
        yield service


async def search(service, **conditions):
    """The ids of the rooms that a filter finds."""
    stub = {{Camel}}ServiceStub(service.channel())
    found = await stub.Search(pb.SearchRequest(filter=pb.RoomFilter(**conditions)))
    return [room.id for room in found.rooms]


async def book(service, room_id="ada", action=None, client=ASKABLE):
    """The events of a booking, with the person's answer if there is one."""
    answers = InputResponses(client=client)
    if action is not None:
        confirm = InputResponse(elicitation=ElicitResult(action=action))
        answers.responses["confirm"].CopyFrom(confirm)
    request = pb.BookRequest(room_id=room_id, purpose="stand-up", input=answers)
    stub = {{Camel}}ServiceStub(service.channel(subject="alice"))
    return [event async for event in stub.Book(request)]


async def refused(call):
    """The status of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value.code()


async def test_a_search_finds_the_rooms_that_meet_all_conditions(service):
    assert await search(service) == ["ada", "boole", "curie"]
    assert await search(service, building=pb.BUILDING_NORTH, seats_min=5) == ["ada"]
    both = [pb.EQUIPMENT_SCREEN, pb.EQUIPMENT_CAMERA]
    assert await search(service, equipment=both) == ["curie"]


async def test_a_booking_asks_the_person_and_is_made_once_they_confirm(service):
    [asked] = await book(service)
    question = asked.input_required.requests["confirm"].form.message
    assert question == "Book Ada (8 seats) for: stand-up?"
    events = await book(service, action=ElicitResult.ACTION_ACCEPT)
    assert [event.progress.message for event in events[:-1]] == ["checking the calendar", "booked"]
    assert events[-1].booking.booked_by == "alice"
    assert await refused(book(service)) == grpc.StatusCode.ALREADY_EXISTS


async def test_nothing_is_booked_unless_the_person_confirms(service):
    precondition = grpc.StatusCode.FAILED_PRECONDITION
    assert await refused(book(service, action=ElicitResult.ACTION_DECLINE)) == precondition
    assert await refused(book(service, client=ClientCapabilities())) == precondition
    [asked] = await book(service)
    assert asked.HasField("input_required")


async def test_an_unknown_room_is_not_found(service):
    assert await refused(book(service, room_id="turing")) == grpc.StatusCode.NOT_FOUND


async def test_a_call_without_a_token_is_unauthenticated(service):
    stub = {{Camel}}ServiceStub(service.unauthenticated_channel())
    assert await refused(stub.Search(pb.SearchRequest())) == grpc.StatusCode.UNAUTHENTICATED
