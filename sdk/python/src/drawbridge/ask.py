"""Asks the person, or the client, during a call.

A handler answers with an `InputRequired`, which ends the call. The edge asks in the client's own
revision of MCP and calls the RPC again with the same request, whose field of the type
`InputResponses` then has the answers:

    answers = ask.Answers(request.input)
    if "confirm" not in answers:
        yield BookEvent(input_required=ask.required(confirm=ask.form("Book the room?")))
        return
    if not answers.form("confirm").accepted:
        raise FailedPrecondition("the person did not confirm the booking")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from .mcp.v1.interaction_pb2 import (
    ElicitForm,
    ElicitResult,
    ElicitUrl,
    InputRequest,
    InputRequired,
    InputResponses,
    ListRoots,
    Sampling,
    SamplingResult,
)

__all__ = ["Answer", "Answers", "form", "page", "required", "roots", "sampling"]


def required(*, state: bytes = b"", **requests: InputRequest) -> InputRequired:
    """Requests to the client, by the names under which their answers arrive.

    `state` comes back with the answers. Clients cannot read or change it, and it is valid only for
    the same principal and the same request.
    """
    return InputRequired(requests=requests, state=state)


def form(message: str, properties: Mapping[str, Any] | None = None, *required: str) -> InputRequest:
    """The person fills in a form. Without properties it is a question to accept or decline.

    `properties` is the JSON Schema of each field, which must be primitive; `required` are the names
    of fields that must be filled in.
    """
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties or {})}
    if required:
        schema["required"] = list(required)
    requested = Struct()
    json_format.ParseDict(schema, requested)
    return InputRequest(form=ElicitForm(message=message, requested_schema=requested))


def page(message: str, url: str) -> InputRequest:
    """The person opens a page, for data that must not pass through the client.

    The answer means that they agreed to open it, not that they have finished there.
    """
    return InputRequest(url=ElicitUrl(message=message, url=url))


def sampling(request: Sampling) -> InputRequest:
    """The client's model writes a message."""
    return InputRequest(sampling=request)


def roots() -> InputRequest:
    """The client lists its roots."""
    return InputRequest(roots=ListRoots())


@dataclass(frozen=True)
class Answer:
    """The person's answer to a form or a page."""

    accepted: bool
    """Whether the person accepted."""
    declined: bool
    """Whether the person declined. Neither: they dismissed the question."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The values of the form, if the person accepted."""


class Answers:
    """The client's answers, and what it can be asked. Without answers on the first call."""

    def __init__(self, responses: InputResponses) -> None:
        self._responses = responses

    def __contains__(self, name: object) -> bool:
        """Whether there is a valid answer to this request."""
        return name in self._responses.responses

    @property
    def state(self) -> bytes:
        """The state from the requests."""
        return self._responses.state

    @property
    def can_fill_forms(self) -> bool:
        """Whether the client can show the person a form."""
        return self._responses.client.elicit_form

    @property
    def can_open_pages(self) -> bool:
        """Whether the client can open a page for the person."""
        return self._responses.client.elicit_url

    @property
    def can_sample(self) -> bool:
        """Whether the client's model can write a message."""
        return self._responses.client.sampling

    @property
    def can_list_roots(self) -> bool:
        """Whether the client can list its roots."""
        return self._responses.client.roots

    def form(self, name: str) -> Answer | None:
        """The answer to a form or a page; `None` without one."""
        if name not in self or not self._responses.responses[name].HasField("elicitation"):
            return None
        result = self._responses.responses[name].elicitation
        return Answer(
            accepted=result.action == ElicitResult.ACTION_ACCEPT,
            declined=result.action == ElicitResult.ACTION_DECLINE,
            values=json_format.MessageToDict(result.content),
        )

    def page(self, name: str) -> Answer | None:
        """The answer to a page; `None` without one."""
        return self.form(name)

    def sampling(self, name: str) -> SamplingResult | None:
        """The message that the client's model wrote; `None` without one."""
        if name not in self or not self._responses.responses[name].HasField("sampling"):
            return None
        return self._responses.responses[name].sampling

    def roots(self, name: str) -> dict[str, str] | None:
        """The names of the client's roots by their URIs; `None` if there is no answer."""
        if name not in self or not self._responses.responses[name].HasField("roots"):
            return None
        return {root.uri: root.name for root in self._responses.responses[name].roots.roots}
