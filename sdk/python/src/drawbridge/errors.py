"""Errors that a tool returns to its caller.

The model reads the message of a `ToolError`: name the field and the reason. Any other exception of
a handler is logged, and the caller learns no cause.
"""

import grpc

__all__ = [
    "AlreadyExists",
    "FailedPrecondition",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "ToolError",
    "Unavailable",
]


class ToolError(Exception):
    """A gRPC status that ends the call.

    What a model learns of each code:
    https://grpc.io/docs/guides/status-codes and the how-to *Write a tool service*.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class InvalidArgument(ToolError):
    """An argument is invalid, whatever the state of the service."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(ToolError):
    """What the arguments name does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(ToolError):
    """What the call would create exists."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(ToolError):
    """The call cannot succeed in the present state, for example because the person declined."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class PermissionDenied(ToolError):
    """The service does not permit the call to this caller."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unavailable(ToolError):
    """The call may succeed if it is repeated later."""

    code = grpc.StatusCode.UNAVAILABLE
