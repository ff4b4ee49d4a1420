"""Finds the character NUL in the strings of a message."""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def find_nul(message: Message) -> str | None:
    """The path of the first string field that contains NUL, from the outermost message.

    C code ends a string at NUL, so it is not a valid character. Fields of the type `bytes` may
    contain it.
    """
    for field, value in message.ListFields():
        found = _in_field(field, value)
        if found is not None:
            return f"{field.name}.{found}" if found else field.name
    return None


def _in_field(field: FieldDescriptor, value: object) -> str | None:
    """The path within a field; empty if it is the field itself."""
    entry = field.message_type if field.type == FieldDescriptor.TYPE_MESSAGE else None
    if entry is not None and entry.GetOptions().map_entry:
        for key, item in value.items():  # type: ignore[attr-defined]
            if isinstance(key, str) and "\0" in key:
                return "key"
            found = _in_value(item)
            if found is not None:
                return f"value.{found}" if found else "value"
        return None
    values = value if _is_repeated(field) else [value]
    for item in values:  # type: ignore[attr-defined]
        found = _in_value(item)
        if found is not None:
            return found
    return None


def _in_value(value: object) -> str | None:
    if isinstance(value, str):
        return "" if "\0" in value else None
    return find_nul(value) if isinstance(value, Message) else None


def _is_repeated(field: FieldDescriptor) -> bool:
    return field.is_repeated
