"""pyserve.client over HTTP without a socket: what a question and an answer are in bytes."""

import json
import math
from typing import Any

import pytest

from pyserve.client.http_dialect import HttpDialect, retry_after_s
from pyserve.client.http_infer import HttpReply, encode_infer
from pyserve.client.steps import Wish, direct_request
from pyserve.errors import InvalidInput, ModelNotFound, PyserveError, QueueFull, Unavailable
from pyserve.messages import InputTensor
from pyserve.wire.oip_binary import decode_request

LENGTH = "Inference-Header-Content-Length"
A = InputTensor("a", "FP32", (1, 2), b"12345678")
B = InputTensor("b", "BYTES", (1,), b"\1\0\0\0x")


class Headers(dict[str, str]):
    """Like those of the HTTP libraries: names in any case."""

    def get(self, name: str, /) -> str | None:  # type: ignore[override]
        return next((value for key, value in self.items() if key.lower() == name.lower()), None)


def call(left_s: float = math.inf, **wish: Any) -> Any:
    request = direct_request(Wish("m", [A, B], **wish))
    assert request is not None
    return encode_infer(request, left_s)


def header(**wish: Any) -> dict[str, Any]:
    sent = call(**wish)
    value: dict[str, Any] = json.loads(sent.body[: int(sent.headers[LENGTH])])
    return value


def answer(value: object, blob: bytes = b"", status: int = 200, **headers: str) -> HttpReply:
    text = json.dumps(value).encode()
    more = {LENGTH: str(len(text))} if blob else {}
    return HttpReply(status, Headers(more | headers), text + blob)


def infer(reply: HttpReply) -> Any:
    request = direct_request(Wish("m", [A]))
    assert request is not None
    return HttpDialect("http://here").infer(request).decode(reply)


def test_a_request_is_what_the_server_reads() -> None:
    sent = call(id='an "id"', version=3)
    assert sent.path == "/v2/models/m/versions/3/infer"
    read = decode_request(sent.body, int(sent.headers[LENGTH]), model="m", version="3")
    assert [(one.name, one.datatype, one.shape, bytes(one.data)) for one in read.inputs] == [A, B]
    assert read.id == 'an "id"'
    assert read.binary_default
    assert read.timeout_us == 0


def test_wishes_stand_in_the_header() -> None:
    assert header(outputs=["y"], classification=2)["outputs"] == [
        {"name": "y", "parameters": {"binary_data": True, "classification": 2}}
    ]
    sent = header(priority=3, parameters={"mine": [1]}, left_s=1.5)
    assert sent["parameters"] == {
        "mine": [1],
        "binary_data_output": True,
        "priority": 3,
        "timeout": 1500000,
    }
    assert "outputs" not in sent
    assert "timeout" not in header()["parameters"]


@pytest.mark.parametrize("priority", [-1, 4, 1.0, "1", True])
def test_a_priority_that_is_none_is_not_even_sent(priority: Any) -> None:
    with pytest.raises(InvalidInput, match=r"priority is .*, expected 1 \(high\)"):
        call(priority=priority)


def test_names_never_leave_their_segment_of_the_path() -> None:
    request = direct_request(Wish("a/b ?é", [A], version="../1"))
    assert request is not None
    assert encode_infer(request, 1.0).path == "/v2/models/a%2Fb%20%3F%C3%A9/versions/..%2F1/infer"


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no form in JSON"):
        call(parameters={"x": object()})
    with pytest.raises(InvalidInput, match="list of names"):
        call(outputs="y")


def test_binary_and_json_outputs_are_read_in_one_answer() -> None:
    found = infer(
        answer(
            {
                "model_name": "m",
                "model_version": "2",
                "id": "7",
                "outputs": [
                    {"name": "t", "datatype": "BYTES", "shape": [2], "data": [["a"], "é"]},
                    {
                        "name": "y",
                        "datatype": "INT16",
                        "shape": [2],
                        "parameters": {"binary_data_size": 4},
                    },
                    {"name": "z", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2.5]]},
                    {"name": "h", "datatype": "BF16", "shape": [1], "data": [1.5]},
                ],
            },
            b"\1\0\2\0",
            **{"Server-Timing": "queue;dur=1"},
        )
    )
    assert (found.model, found.version, found.id) == ("m", "2", "7")
    assert found.strings("t").tolist() == ["a", "é"]
    assert found["y"].tolist() == [1, 2]
    assert found["z"].tolist() == [[1.0, 2.5]]
    assert found["h"].tolist() == [1.5]
    assert found.timing.seconds == {"queue": 0.001}


def output(datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    one = {"name": "y", "datatype": datatype, "shape": shape, "parameters": parameters}
    return {"model_name": "m", "outputs": [one]}


@pytest.mark.parametrize(
    "reply",
    [
        HttpReply(200, Headers(), b"<html>"),
        HttpReply(200, Headers(), b"[]"),
        HttpReply(200, Headers({LENGTH: "x"}), b"{}"),
        HttpReply(200, Headers({LENGTH: "-1"}), b"{}"),
        answer(output("FP32", [2], 8), b"1234"),
        answer(output("FP32", [2], 8), b"123456789"),
        answer(output("FP32", [3], 8), b"12345678"),
        answer(output("FP32", [-2], 8), b"12345678"),
        answer(output("FP32", [2], -8), b"12345678"),
        answer(output("FP99", [2], 8), b"12345678"),
        answer(output("BYTES", [1], 8), b"\xff\xff\xff\xff1234"),
        answer(output("BYTES", [2], 5), b"\1\0\0\0a"),
        answer({"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}]}),
        answer(
            {
                "model_name": "m",
                "outputs": [{"name": "y", "datatype": "UINT8", "shape": [1], "data": [300]}],
            }
        ),
    ],
)
def test_an_answer_that_makes_no_sense_is_no_model_servers(reply: HttpReply) -> None:
    with pytest.raises(Unavailable, match="http://here answers, but not as a model server does"):
        infer(reply)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "no such model"}, "no such model"),
        ({"code": 404, "type": "x", "message": "theirs"}, "theirs"),
        ({"detail": "not found"}, "not found"),
        ([], "status 404"),
    ],
)
def test_refusals_say_what_the_server_said(body: object, message: str) -> None:
    with pytest.raises(ModelNotFound, match=message) as caught:
        infer(answer(body, status=404))
    assert caught.value.__notes__ == ["HTTP 404"]


def test_a_full_queue_says_when_to_come_again() -> None:
    with pytest.raises(QueueFull) as caught:
        infer(answer({"error": "full"}, status=429, **{"Retry-After": "7"}))
    assert caught.value.retry_after_s == 7
    with pytest.raises(PyserveError, match="status 500"):
        infer(HttpReply(500, Headers(), b""))


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s("1.5") == 1.5
    assert retry_after_s("-1") == 0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    for text in (None, "soon", "nan", "inf"):
        assert retry_after_s(text) is None
