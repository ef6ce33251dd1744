"""Builds request bodies for the tests of pyserve.wire, and reads them."""

import json
from typing import Any

import pytest

from pyserve.errors import InvalidInput
from pyserve.messages import InferRequest
from pyserve.wire import oip_binary, oip_json

Json = dict[str, Any]


def numbers(**changes: Any) -> Json:
    """One input in JSON, four FP32 numbers unless told otherwise; None takes a key away."""
    return _changed(
        {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}, changes
    )


def blob(size: int, **changes: Any) -> Json:
    """One input in binary data, FP32 unless told otherwise; None takes a key away."""
    parameters = {"binary_data_size": size}
    one = {"name": "x", "datatype": "FP32", "shape": [1, size // 4], "parameters": parameters}
    return _changed(one, changes)


def _changed(one: Json, changes: Json) -> Json:
    return {key: value for key, value in {**one, **changes}.items() if value is not None}


def body(*inputs: Json, **fields: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **fields}).encode()


def read(text: bytes) -> InferRequest:
    return oip_json.decode_request(text, model="m", version=None)


def read_binary(header: bytes, data: bytes) -> InferRequest:
    return oip_binary.decode_request(header + data, len(header), model="m", version=None)


def refused(text: bytes) -> str:
    """Both forms refuse `text`, for the same reason; returns it."""
    with pytest.raises(InvalidInput) as caught:
        read(text)
    with pytest.raises(InvalidInput) as again:
        read_binary(text, b"")
    assert again.value.message == caught.value.message
    return caught.value.message


def refused_binary(header: bytes, data: bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        read_binary(header, data)
    return caught.value.message
