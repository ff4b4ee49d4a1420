"""The service that tests serve."""

import asyncio
from collections.abc import AsyncIterator

import drawbridge
from drawbridge import ask
from greeter_pb2 import CountEvent, CountResponse, GreetResponse
from greeter_pb2_grpc import GreeterServiceServicer


class Greeter(GreeterServiceServicer):
    """Greets, counts and fails."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def Greet(self, request, context):
        caller = drawbridge.caller()
        return GreetResponse(greeting=f"Hello, {request.name}!", caller=caller.subject)

    async def Count(self, request, context) -> AsyncIterator[CountEvent]:
        if request.to == 0:
            self.started.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if request.to > 100:
            answers = ask.Answers(request.input)
            if "sure" not in answers:
                yield CountEvent(input_required=ask.required(sure=ask.form("Sure?"), state=b"1"))
                return
            if not answers.form("sure").accepted:
                raise drawbridge.FailedPrecondition("not confirmed")
        for step in range(request.to):
            yield CountEvent(progress=drawbridge.Progress(progress=step + 1, total=request.to))
        yield CountEvent(result=CountResponse(counted=request.to))

    async def Fail(self, request, context):
        if request.how == "abort":
            await context.abort(drawbridge.NotFound.code, "aborted")
        if request.how == "tool":
            raise drawbridge.InvalidArgument("how: invalid")
        raise RuntimeError("the password is swordfish")

    async def Collect(self, requests, context):
        raise AssertionError("never called")
