"""Calls over gRPC with nothing but grpc itself and the messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from server_process import PATIENCE_S, Server, floats

from pyserve.protos import message, methods

Metadata = Sequence[tuple[str, str]]

SERVICE = "inference.GRPCInferenceService"


@contextmanager
def channel(server: Server, *options: tuple[str, int]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc, options=list(options)) as opened:
        yield opened


def stub(opened: grpc.Channel, method: str, service: str = SERVICE) -> Any:
    """What calls one method; it takes and gives messages."""
    found = next(one for one in methods(service) if one.name == method)
    kinds = ("stream" if found.client_streaming else "unary") + "_"
    kinds += "stream" if found.server_streaming else "unary"
    return getattr(opened, kinds)(
        found.path,
        request_serializer=found.request.SerializeToString,
        response_deserializer=found.response.FromString,
    )


def call(server: Server, method: str, *, metadata: Metadata = (), **fields: Any) -> Any:
    """Call one method of the inference service, with the fields of its request."""
    with channel(server) as opened:
        found = next(one for one in methods(SERVICE) if one.name == method)
        request = found.request(**fields)
        return stub(opened, method)(request, metadata=metadata, timeout=PATIENCE_S)


def infer_request(model: str, *values: float, **fields: str) -> Any:
    """One row of numbers for `affine` and its like."""
    request = message("inference.ModelInferRequest")(model_name=model, **fields)
    request.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
    request.raw_input_contents.append(floats(*values))
    return request


def infer(server: Server, request: Any, *, metadata: Metadata = ()) -> Any:
    with channel(server) as opened:
        return stub(opened, "ModelInfer")(request, metadata=metadata, timeout=PATIENCE_S)


@contextmanager
def refused(code: grpc.StatusCode, said: str = "") -> Iterator[None]:
    """Expect a call to end with a status, and its message to have some words in it."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() == code, caught.value.details()
    assert said in caught.value.details()
    assert "Traceback" not in caught.value.details()
