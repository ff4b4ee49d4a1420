"""Tool services for Drawbridge, in Python.

A tool service is an ordinary typed gRPC service; options in its `.proto` make its RPCs tools of AI
clients. Write the contract, compile it with `python -m drawbridge.build`, write a class with its
handlers, and serve it:

    import drawbridge
    from lines_pb2 import CountRequest, CountResponse
    from lines_pb2_grpc import LineServiceServicer

    class Lines(LineServiceServicer):
        async def Count(self, request: CountRequest, context) -> CountResponse:
            return CountResponse(lines=len(request.text.splitlines()))

    drawbridge.serve(Lines())

`serve` adds health, reflection, mTLS, the check of transaction tokens, and the admin port.
"""

from . import ask, errors
from ._caller import Actor, Caller, caller
from ._guard import Context
from ._readiness import Dependency
from ._serve import ContractError, RunningService, serve, serving
from ._settings import Settings
from .errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ToolError,
    Unavailable,
)
from .mcp.v1.content_pb2 import LogMessage, Progress

__all__ = [
    "Actor",
    "AlreadyExists",
    "Caller",
    "Context",
    "ContractError",
    "Dependency",
    "FailedPrecondition",
    "InvalidArgument",
    "LogMessage",
    "NotFound",
    "PermissionDenied",
    "Progress",
    "RunningService",
    "Settings",
    "ToolError",
    "Unavailable",
    "ask",
    "caller",
    "errors",
    "serve",
    "serving",
]
