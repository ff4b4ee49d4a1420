"""Server reflection with comments, which are the descriptions that AI clients read.

Generated Python modules drop comments. `python -m drawbridge.build` writes the descriptor of each
file with its comments beside its module, `<name>_pb2.binpb`.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection_pb2

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Both versions have the same messages."""


class Reflection:
    """The contracts of some services."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted(services)
        self._pool = descriptor_pool.Default()
        self._files: dict[str, bytes] = {}

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serves reflection."""
        handler = grpc.stream_stream_rpc_method_handler(
            self._answer,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        for service in SERVICES:
            handlers = {"ServerReflectionInfo": handler}
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, handlers),)
            )

    async def _answer(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            response = reflection_pb2.ServerReflectionResponse(original_request=request)
            try:
                self._fill(response, request)
            except KeyError as error:
                response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]
                response.error_response.error_message = f"not found: {error.args[0]}"
            yield response

    def _fill(self, response: Any, request: Any) -> None:
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for service in self._services:
                response.list_services_response.service.add(name=service)
            return
        if kind == "file_by_filename":
            file = self._pool.FindFileByName(request.file_by_filename)
        elif kind == "file_containing_symbol":
            file = self._pool.FindFileContainingSymbol(request.file_containing_symbol)
        elif kind == "file_containing_extension":
            asked = request.file_containing_extension
            message = self._pool.FindMessageTypeByName(asked.containing_type)
            extension: Any = self._pool.FindExtensionByNumber(message, asked.extension_number)
            file = extension.file
        elif kind == "all_extension_numbers_of_type":
            name = request.all_extension_numbers_of_type
            message = self._pool.FindMessageTypeByName(name)
            answer = response.all_extension_numbers_response
            answer.base_type_name = name
            numbers = [extension.number for extension in self._pool.FindAllExtensions(message)]
            answer.extension_number.extend(numbers)
            return
        else:
            raise KeyError(kind)
        response.file_descriptor_response.file_descriptor_proto.extend(self._with_imports(file))

    def _with_imports(self, file: FileDescriptor) -> list[bytes]:
        """The file and what it imports, each once."""
        found: dict[str, bytes] = {}
        pending = [file]
        while pending:
            next_file = pending.pop()
            if next_file.name not in found:
                found[next_file.name] = self._encoded(next_file)
                pending.extend(next_file.dependencies)
        return list(found.values())

    def _encoded(self, file: FileDescriptor) -> bytes:
        if file.name not in self._files:
            self._files[file.name] = _with_comments(file) or file.serialized_pb
        return self._files[file.name]


def _with_comments(file: FileDescriptor) -> bytes | None:
    """The descriptor with comments, if it is beside the module of this very file."""
    name = file.name.removesuffix(".proto").replace("-", "_").replace("/", ".") + "_pb2"
    try:
        module = importlib.import_module(name)
        encoded = Path(module.__file__ or "").with_suffix(".binpb").read_bytes()
    except (ImportError, OSError):
        return None
    described = descriptor_pb2.FileDescriptorProto.FromString(encoded)
    described.ClearField("source_code_info")
    plain = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)
    # protoc writes the JSON names of fields into a set alone.
    for message in described.message_type:
        _clear_json_names(message)
    for message in plain.message_type:
        _clear_json_names(message)
    for either in (described, plain):
        for extension in either.extension:
            extension.ClearField("json_name")
    return encoded if described == plain else None


def _clear_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    for field in [*message.field, *message.extension]:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _clear_json_names(nested)
