"""pyserve.client over gRPC without a connection: messages, and what the ends of calls mean."""

import math
from typing import Any

import numpy as np
import pytest

from pyserve import errors
from pyserve.client.grpc_dialect import GrpcDialect, GrpcReply, encode_infer, refusal
from pyserve.client.retries import NoAnswer
from pyserve.client.steps import Wish, direct_request
from pyserve.errors import InvalidInput, Unavailable
from pyserve.messages import InputTensor
from pyserve.protos import message

A = InputTensor("a", "FP32", (1, 2), b"12345678")
B = InputTensor("b", "BYTES", (1,), b"\1\0\0\0x")
DIALECT = GrpcDialect("grpc://here:1")


def sent(left_s: float = math.inf, **wish: Any) -> Any:
    request = direct_request(Wish("m", [A, B], **wish))
    assert request is not None
    return message("inference.ModelInferRequest").FromString(encode_infer(request, left_s))


def decoded(answer: Any) -> Any:
    request = direct_request(Wish("m", [A]))
    assert request is not None
    reply = GrpcReply(answer.SerializeToString(), {"server-timing": "queue;dur=1"})
    return DIALECT.infer(request).decode(reply)


def response(*outputs: dict[str, Any], raw: tuple[bytes, ...] = ()) -> Any:
    answer = message("inference.ModelInferResponse")(model_name="m", model_version="1", id="i")
    for one in outputs:
        contents = {key: value for key, value in one.items() if key.endswith("contents")}
        plain = {key: value for key, value in one.items() if key not in contents}
        output = answer.outputs.add(**plain)
        for key, value in contents.items():
            getattr(output.contents, key).extend(value)
    answer.raw_output_contents.extend(raw)
    return answer


def test_a_request_is_the_message_of_the_protocol() -> None:
    found = sent(
        1.5,
        id="7",
        version="2",
        outputs=["y"],
        priority=3,
        classification=4,
        parameters={"flag": True, "count": 2, "part": 0.5, "word": "x"},
    )
    assert (found.model_name, found.model_version, found.id) == ("m", "2", "7")
    assert [(one.name, one.datatype, list(one.shape)) for one in found.inputs] == [
        ("a", "FP32", [1, 2]),
        ("b", "BYTES", [1]),
    ]
    assert list(found.raw_input_contents) == [A.data, B.data]
    assert found.outputs[0].parameters["classification"].int64_param == 4
    assert found.parameters["priority"].uint64_param == 3
    assert found.parameters["timeout"].int64_param == 1500000
    assert found.parameters["flag"].bool_param is True
    assert found.parameters["count"].int64_param == 2
    assert found.parameters["part"].double_param == 0.5
    assert found.parameters["word"].string_param == "x"


def test_what_a_message_cannot_say_is_refused() -> None:
    with pytest.raises(InvalidInput, match='parameter "x" is of type list'):
        sent(parameters={"x": []})
    with pytest.raises(InvalidInput, match="no form in gRPC"):
        sent(version="\ud800")
    with pytest.raises(InvalidInput, match="HTTP only"):
        DIALECT.metrics()


def test_raw_and_typed_contents_are_read() -> None:
    found = decoded(response({"name": "y", "datatype": "INT16", "shape": [2]}, raw=(b"\1\0\2\0",)))
    assert found["y"].tolist() == [1, 2]
    assert (found.model, found.version, found.id) == ("m", "1", "i")
    assert found.timing.seconds == {"queue": 0.001}
    typed = decoded(
        response(
            {"name": "i", "datatype": "INT8", "shape": [2], "int_contents": [-1, 2]},
            {"name": "f", "datatype": "FP32", "shape": [1], "fp32_contents": [0.5]},
            {"name": "b", "datatype": "BOOL", "shape": [1], "bool_contents": [True]},
            {"name": "s", "datatype": "BYTES", "shape": [1], "bytes_contents": [b"x"]},
        )
    )
    assert typed["i"].dtype == np.int8
    assert typed["i"].tolist() == [-1, 2]
    assert typed["f"].tolist() == [0.5]
    assert typed["b"].tolist() == [True]
    assert typed["s"].tolist() == [b"x"]


@pytest.mark.parametrize(
    "answer",
    [
        response({"name": "y", "datatype": "INT16", "shape": [2]}, raw=(b"123",)),
        response({"name": "y", "datatype": "INT16", "shape": [1]}, raw=(b"12", b"34")),
        response({"name": "y", "datatype": "FP99", "shape": [1]}, raw=(b"12",)),
        response({"name": "y", "datatype": "INT16", "shape": [-1]}, raw=(b"12",)),
        response({"name": "y", "datatype": "INT8", "shape": [1], "int_contents": [300]}),
        response({"name": "y", "datatype": "FP16", "shape": [1], "fp32_contents": [1]}),
    ],
)
def test_an_answer_that_makes_no_sense_is_no_model_servers(answer: Any) -> None:
    with pytest.raises(Unavailable, match="grpc://here:1 answers, but not as a model server"):
        decoded(answer)


def test_bytes_that_are_no_message_are_no_model_servers() -> None:
    with pytest.raises(Unavailable, match="not as a model server"):
        DIALECT.server_metadata().decode(GrpcReply(b"\xff\xff", {}))


def ended(code: str, details: str, *trailers: tuple[str, str]) -> errors.PyserveError:
    return refusal("grpc://here:1", code, details, trailers, 2.0)


def test_the_end_of_a_call_is_the_exception_of_its_row() -> None:
    full = ended("RESOURCE_EXHAUSTED", "full", ("retry-after", "3"))
    assert isinstance(full, errors.QueueFull)
    assert full.retry_after_s == 3
    assert full.__notes__ == ["gRPC RESOURCE_EXHAUSTED"]
    assert type(ended("RESOURCE_EXHAUSTED", "large")) is errors.PayloadTooLarge
    assert type(ended("UNAVAILABLE", "the server is shutting down")) is Unavailable
    assert ended("DEADLINE_EXCEEDED", "the deadline passed").message == "the deadline passed"
    assert ended("DEADLINE_EXCEEDED", "Deadline Exceeded").message == "no answer within 2 s"


@pytest.mark.parametrize(
    ("details", "again", "words"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:1: Connection refused",
            "always",
            "cannot reach grpc://here:1: Connection refused; is `pyserve serve`",
        ),
        ("DNS resolution failed for x", "always", "cannot reach"),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:1: Tls handshake failed "
            "(TSI_PROTOCOL_FAILURE): CERTIFICATE_VERIFY_FAILED: self signed certificate: OK",
            "never",
            "no secure connection to grpc://here:1: (TSI_PROTOCOL_FAILURE): CERTIFICATE_VERIFY",
        ),
        ("Socket closed", "repeatable", "hung up before it answered"),
        ("recvmsg:Connection reset by peer", "repeatable", "hung up before it answered"),
    ],
)
def test_a_call_that_no_server_ended_got_no_answer(details: str, again: str, words: str) -> None:
    error = ended("UNAVAILABLE", details)
    assert isinstance(error, NoAnswer)
    assert error.again == again
    assert words in error.message
