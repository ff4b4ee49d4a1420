"""The service `{{name}}`: finds and books meeting rooms."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable

import drawbridge
from drawbridge import AlreadyExists, FailedPrecondition, NotFound, Progress, ask

import {{name}}_pb2 as pb
from {{name}}_pb2_grpc import {{Camel}}ServiceServicer

LIMIT = 20
"""The maximum number of rooms of a search without a limit."""

# A sample. A real service asks a calendar.
ROOMS = (
    pb.Room(
        id="ada",
        name="Ada",
        building=pb.BUILDING_NORTH,
        seats=8,
        equipment=[pb.EQUIPMENT_SCREEN, pb.EQUIPMENT_WHITEBOARD],
    ),
    pb.Room(
        id="boole",
        name="Boole",
        building=pb.BUILDING_NORTH,
        seats=4,
        equipment=[pb.EQUIPMENT_WHITEBOARD],
    ),
    pb.Room(
        id="curie",
        name="Curie",
        building=pb.BUILDING_SOUTH,
        seats=20,
        equipment=[pb.EQUIPMENT_SCREEN, pb.EQUIPMENT_CAMERA],
    ),
)


class {{Camel}}({{Camel}}ServiceServicer):
    """The handlers of the contract. Auth has permitted each call, and its arguments are valid."""

    def __init__(self, rooms: Iterable[pb.Room] = ROOMS) -> None:
        self._rooms = {room.id: room for room in rooms}
        self._bookings: dict[str, pb.Booking] = {}

    async def Search(
        self, request: pb.SearchRequest, context: drawbridge.Context
    ) -> pb.SearchResponse:
        """Finds meeting rooms."""
        found = [room for room in self._rooms.values() if matches(room, request.filter)]
        limit = request.limit if request.HasField("limit") else LIMIT
        return pb.SearchResponse(rooms=found[:limit])

    async def Book(
        self, request: pb.BookRequest, context: drawbridge.Context
    ) -> AsyncIterator[pb.BookEvent]:
        """Books a meeting room, once the person has confirmed it."""
        room = self._free_room(request.room_id)
        answers = ask.Answers(request.input)
        answer = answers.form("confirm")
        if answer is None:
            if not answers.can_fill_forms:
                raise FailedPrecondition(
                    "a booking needs the person's confirmation, and this client cannot ask for it"
                )
            question = ask.form(f"Book {room.name} ({room.seats} seats) for: {request.purpose}?")
            # The call ends here. The edge asks the person, and calls again with the answer.
            yield pb.BookEvent(input_required=ask.required(confirm=question))
            return
        if not answer.accepted:
            raise FailedPrecondition("the person did not confirm the booking")
        yield pb.BookEvent(progress=Progress(progress=1, total=2, message="checking the calendar"))
        booking = pb.Booking(
            id=str(uuid.uuid4()),
            room=room,
            purpose=request.purpose,
            booked_by=drawbridge.caller().subject,
        )
        self._bookings[room.id] = booking
        yield pb.BookEvent(progress=Progress(progress=2, total=2, message="booked"))
        yield pb.BookEvent(booking=booking)

    def _free_room(self, room_id: str) -> pb.Room:
        if room_id not in self._rooms:
            raise NotFound(f"room_id: no room `{room_id}`; search for one")
        if room_id in self._bookings:
            raise AlreadyExists(f"room `{room_id}` is already booked")
        return self._rooms[room_id]


def matches(room: pb.Room, conditions: pb.RoomFilter) -> bool:
    """Whether a room meets all conditions of a filter."""
    return (
        (not conditions.HasField("building") or room.building == conditions.building)
        and room.seats >= conditions.seats_min
        and set(conditions.equipment) <= set(room.equipment)
    )


if __name__ == "__main__":
    drawbridge.serve({{Camel}}())
