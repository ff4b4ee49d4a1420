"""A tool service in Python. It takes the arguments of the package `drawbridge`."""

from pathlib import Path

import drawbridge
from compiled import compiled

compiled(Path(__file__).parent / "contract")

import greeter_pb2 as pb  # noqa: E402
from greeter_pb2_grpc import GreeterServiceServicer  # noqa: E402


class Greeter(GreeterServiceServicer):
    """Greets and counts."""

    async def Greet(self, request, context):
        if not request.name:
            raise drawbridge.InvalidArgument("name: must not be empty")
        return pb.GreetResponse(
            greeting=f"Hello, {request.name}!", caller=drawbridge.caller().subject
        )

    async def Count(self, request, context):
        for step in range(request.to):
            yield pb.CountEvent(progress=drawbridge.Progress(progress=step + 1, total=request.to))
        yield pb.CountEvent(result=pb.CountResponse(counted=request.to))


drawbridge.serve(Greeter())
