"""pyserve.messages: the values between the protocols and the service."""

import msgspec
import pytest

from pyserve.messages import InferRequest, InputTensor, RequestedOutput


def test_a_request_asks_for_everything_as_json_without_a_deadline_unless_it_says_so() -> None:
    tensor = InputTensor("x", "FP32", (1,), b"\0\0\0\0")
    request = InferRequest(model="m", version=None, inputs=[tensor])
    assert request.outputs is None
    assert not request.binary_default
    assert (request.id, request.deadline_ns, request.timeout_us, request.priority) == ("", 0, 0, 0)


def test_messages_do_not_change() -> None:
    output = RequestedOutput("y", True)
    with pytest.raises(AttributeError):
        setattr(output, output.__struct_fields__[0], "z")
    request = InferRequest(model="m", version="1", inputs=[])
    changed = msgspec.structs.replace(request, id="7")
    assert (request.id, changed.id) == ("", "7")
