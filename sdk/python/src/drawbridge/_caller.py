"""The caller of an RPC, as its transaction token identifies it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Actor:
    """A service that acts for the subject (RFC 8693 section 4.1)."""

    issuer: str
    """Its issuer."""
    subject: str
    """Its subject at that issuer."""
    previous: Actor | None = None
    """The previous actor for the same subject. `None`: the subject itself called."""


@dataclass(frozen=True)
class Caller:
    """The verified caller of an RPC."""

    subject: str
    """The subject, at `issuer`. Subjects of different issuers are different."""
    issuer: str
    """The subject's issuer."""
    tenant: str | None
    """The tenant, if any."""
    principal: str
    """Issuer, subject and tenant in one text: the identity to store."""
    client_id: str
    """The OAuth client through which the subject calls."""
    scopes: frozenset[str]
    """The scopes of the caller's access token."""
    groups: tuple[str, ...]
    """Groups from the caller's access token."""
    roles: tuple[str, ...]
    """Roles from the caller's access token."""
    email: str | None
    """The person's email address."""
    mfa: bool
    """Whether the person authenticated with more than one factor."""
    workload: bool
    """Whether the subject is a program that calls in its own name."""
    actor: Actor | None
    """The service that acts for the subject. `None`: the subject itself calls."""
    tool: str
    """The tool, resource or prompt that is called."""
    request_id: str
    """The id of the request that caused the call."""
    token: str = field(repr=False)
    """The transaction token. It is a credential for this RPC: never log it."""
    message_sha256: str | None = field(default=None, repr=False)
    """The digest of the only message that the token authorizes. `None`: any message."""


def parse_caller(claims: Mapping[str, Any], token: str) -> Caller:
    """The caller of these verified claims. Raises `ValueError` if one is missing or mistyped."""
    context = _object(claims, "tctx")
    facts = context.get("facts") or {}
    if not isinstance(facts, dict):
        raise ValueError("facts")
    return Caller(
        subject=_text(claims, "sub"),
        issuer=_text(context, "iss"),
        tenant=_optional_text(context, "tenant"),
        principal=_text(context, "principal"),
        client_id=_text(context, "client_id"),
        scopes=frozenset(_text(claims, "scope").split()),
        groups=_texts(facts, "groups"),
        roles=_texts(facts, "roles"),
        email=_optional_text(facts, "email"),
        mfa=facts.get("mfa") is True,
        workload=facts.get("workload") is True,
        actor=_actor(claims.get("act")),
        tool=_text(context, "tool"),
        request_id=_text(claims, "txn"),
        token=token,
        message_sha256=_optional_text(context, "message_sha256"),
    )


def _actor(value: object) -> Actor | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("act")
    return Actor(_text(value, "iss"), _text(value, "sub"), _actor(value.get("act")))


def _object(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = of.get(name)
    if not isinstance(value, dict):
        raise ValueError(name)
    return value


def _text(of: Mapping[str, Any], name: str) -> str:
    value = of.get(name)
    if not isinstance(value, str):
        raise ValueError(name)
    return value


def _optional_text(of: Mapping[str, Any], name: str) -> str | None:
    return None if of.get(name) is None else _text(of, name)


def _texts(of: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = of.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(name)
    return tuple(values)


_current: ContextVar[Caller] = ContextVar("drawbridge_caller")


def caller() -> Caller:
    """The verified caller of the RPC that is being handled.

    Raises `LookupError` outside of a handler.
    """
    return _current.get()


def set_caller(of_this_call: Caller) -> None:
    """Sets the caller for the task that handles the call."""
    _current.set(of_this_call)


def request_id() -> str | None:
    """The id of the request that is being handled, for logs. `None` outside of a handler."""
    current = _current.get(None)
    return None if current is None else current.request_id
