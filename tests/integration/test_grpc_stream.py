"""ModelStreamInfer: order, concurrency, bad requests, and how a stream ends."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
from grpc_calls import channel, infer_request, refused, stub
from server_process import PATIENCE_S, Server, eventually, floats, waiting

from pyserve.protos import message


class Talk:
    """One stream, with the requests put in one by one; `hang_up` closes our half."""

    def __init__(self, opened: grpc.Channel, *, timeout: float = PATIENCE_S) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        self.answers = stub(opened, "ModelStreamInfer")(self._sent(), timeout=timeout)

    def _sent(self) -> Iterator[Any]:
        while (request := self._requests.get()) is not None:
            yield request

    def say(self, request: Any) -> None:
        self._requests.put(request)

    def hang_up(self) -> None:
        self._requests.put(None)


def test_answers_come_in_the_order_of_the_requests(server: Server) -> None:
    with channel(server) as opened:
        talk = Talk(opened)
        # Those of `slow` wait for a second and a half, those of `affine` for nothing.
        for index, model in enumerate(("slow", "affine", "slow", "affine")):
            talk.say(infer_request(model, 1, 2, 3, index, id=str(index)))
        talk.hang_up()
        answers = [one.infer_response for one in talk.answers]
    assert [one.id for one in answers] == ["0", "1", "2", "3"]
    assert [one.model_name for one in answers] == ["slow", "affine", "slow", "affine"]
    assert answers[3].raw_output_contents[0] == floats(3, 5, 7, 7)
    assert talk.answers.code() == grpc.StatusCode.OK


def test_requests_of_one_stream_are_batched_together(server: Server) -> None:
    """`patient` answers nobody before four rows have come: one stream brings them all."""
    batches = server.metric("pyserve_batches_total", model="patient")
    with channel(server) as opened:
        talk = Talk(opened)
        for index in range(2):
            talk.say(infer_request("patient", 1, 2, 3, 4, id=str(index)))
        eventually(lambda: waiting(server) == 2, "two requests wait")
        two_rows = message("inference.ModelInferRequest")(model_name="patient", id="2")
        two_rows.inputs.add(name="x", datatype="FP32", shape=[2, 4])
        two_rows.raw_input_contents.append(floats(*range(8)))
        talk.say(two_rows)
        talk.hang_up()
        answers = list(talk.answers)
    assert [one.infer_response.id for one in answers] == ["0", "1", "2"]
    assert server.metric("pyserve_batches_total", model="patient") == batches + 1


def test_a_bad_request_is_answered_and_the_stream_goes_on(server: Server) -> None:
    bad = [
        infer_request("nope", 1, id="a"),
        infer_request("affine", 1, 2, id="b"),
        infer_request("fussy", -1, 2, 3, 4, id="c"),
    ]
    with channel(server) as opened:
        talk = Talk(opened)
        for request in (*bad, infer_request("affine", 1, 2, 3, 4, id="d")):
            talk.say(request)
        talk.hang_up()
        answers = list(talk.answers)
    assert [one.infer_response.id for one in answers] == ["a", "b", "c", "d"]
    expected = (
        ('"nope"', "NOT_FOUND"),
        ("[1, 2]", "INVALID_ARGUMENT"),
        ("sad", "INTERNAL"),
    )
    for answer, (said, code) in zip(answers, expected, strict=False):
        assert said in answer.error_message
        assert answer.infer_response.parameters["error_code"].string_param == code
        assert not answer.infer_response.outputs
    assert answers[3].error_message == ""
    assert not answers[3].infer_response.parameters


def test_a_request_that_is_no_message_does_not_end_the_stream(server: Server) -> None:
    path = "/inference.GRPCInferenceService/ModelStreamInfer"
    good = infer_request("affine", 1, 2, 3, 4).SerializeToString()
    with channel(server) as opened:
        answers = list(opened.stream_stream(path)(iter([b"\xff", good]), timeout=PATIENCE_S))
    assert b"not a valid" in answers[0]
    assert floats(3, 5, 7, 9) in answers[1]


def test_a_stream_without_requests_ends_well(server: Server) -> None:
    with channel(server) as opened:
        talk = Talk(opened)
        talk.hang_up()
        assert list(talk.answers) == []
        assert talk.answers.code() == grpc.StatusCode.OK


def test_many_more_requests_than_a_stream_may_have_in_flight_are_all_answered(
    server: Server,
) -> None:
    with channel(server) as opened:
        talk = Talk(opened)
        for index in range(500):
            talk.say(infer_request("affine", 1, 2, 3, 4, id=str(index)))
        talk.hang_up()
        ids = [one.infer_response.id for one in talk.answers]
    assert ids == [str(index) for index in range(500)]


def test_a_client_that_leaves_a_stream_frees_the_queue(server: Server) -> None:
    with channel(server) as opened:
        talk = Talk(opened)
        for _ in range(3):
            talk.say(infer_request("patient", 1, 2, 3, 4))
        eventually(lambda: waiting(server) == 3, "three requests wait")
        talk.answers.cancel()
        eventually(lambda: waiting(server) == 0, "nobody waits")
        talk.hang_up()


def test_the_deadline_of_a_stream_is_that_of_its_requests(server: Server) -> None:
    with channel(server) as opened:
        talk = Talk(opened, timeout=0.2)
        talk.say(infer_request("patient", 1, 2, 3, 4))
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
            list(talk.answers)
        talk.hang_up()
    eventually(lambda: waiting(server) == 0, "nobody waits")
