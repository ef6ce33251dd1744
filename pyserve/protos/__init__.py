"""The protocols' messages and services, from the .proto files beside this one.

They live in a descriptor pool of their own.  Other libraries, such as Triton's client, register
messages of the same names in protobuf's default pool, where a second one would be an error; and a
process may use both.  Nothing is generated in Python, so no generated code can be too old or too
new for the protobuf that is installed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_DESCRIPTORS = Path(__file__).parent / "protos.binpb"


class Method(NamedTuple):
    """One method of a service; the classes are protobuf's messages."""

    name: str
    path: str
    request: Any
    response: Any
    client_streaming: bool
    server_streaming: bool


@cache
def pool() -> Any:
    """Return the `DescriptorPool` that holds all of them."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    try:
        data = _DESCRIPTORS.read_bytes()
    except FileNotFoundError:
        raise ImportError(
            f"{_DESCRIPTORS.name} is not there: it is made when pyserve is built; in a checkout "
            "run `python pyserve/protos/build.py`"
        ) from None
    found = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        found.Add(file)
    return found


def add(descriptors: bytes) -> None:
    """Add a serialized FileDescriptorProto of somebody else's, all of whose imports are here."""
    pool().AddSerializedFile(descriptors)


@cache
def message(full_name: str) -> Any:
    """Return the class of a message, such as `inference.ModelInferRequest`."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(pool().FindMessageTypeByName(full_name))


def services() -> list[str]:
    """Return the full names of all services of the .proto files."""
    from google.protobuf import descriptor_pb2

    files = descriptor_pb2.FileDescriptorSet.FromString(_DESCRIPTORS.read_bytes()).file
    return [f"{file.package}.{one.name}" for file in files for one in file.service]


def methods(service: str) -> list[Method]:
    """Return the methods of a service, such as `inference.GRPCInferenceService`."""
    return [
        Method(
            one.name,
            f"/{service}/{one.name}",
            message(one.input_type.full_name),
            message(one.output_type.full_name),
            one.client_streaming,
            one.server_streaming,
        )
        for one in pool().FindServiceByName(service).methods
    ]
