"""A client cannot tell by which lane its request went: the same bytes get the same answers.

Two servers with the same models, one with and one without the express lane, get each request; then
status lines, headers and bodies are compared, byte for byte but for the time of day and durations.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from lane_requests import (
    BAD_REQUESTS,
    BINARY,
    BINARY_OUT,
    BODY,
    GOOD,
    GOOD_REQUESTS,
    LENGTH,
    LIMIT,
    NAN,
    NO_HTTP,
    PATH,
    ROW,
    SMALL,
    X,
    described,
    head,
    infer,
    infer_binary,
    infer_raw,
    odd,
    output,
    rows,
)
from lanes import END, Heard, heard, normal, statuses, talk
from served_models import EVERY
from server_process import FLAGS, Server, floats, numbers, raw_post, start, tensor, three_waiting


class Servers(NamedTuple):
    express: Server
    plain: Server


@pytest.fixture(scope="module")
def servers(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One with the express lane, one without; both must end cleanly."""
    logs = tmp_path_factory.mktemp("servers")
    arguments = ["--model-repository", str(model_repository), "--max-body-bytes", str(LIMIT)]
    with ExitStack() as stack:
        both = Servers(
            *(
                stack.enter_context(start(logs / lane, *arguments, f"--{flag}"))
                for lane, flag in FLAGS.items()
            )
        )
        yield both
        for server in both:
            assert server.stop() == 0
            assert "Traceback" not in server.log.read_text()


def agreed(servers: Servers, *writes: bytes, end: bool = True) -> list[Heard]:
    """Send the same to both, and return what both answered."""
    if end:
        writes = (*writes[:-1], writes[-1] + END)
    express, plain = (talk(server, *writes) for server in servers)
    assert normal(express) == normal(plain)
    return heard(plain)


@pytest.mark.parametrize("request_", GOOD_REQUESTS.values(), ids=GOOD_REQUESTS)
def test_a_good_request_gets_the_same_answer(servers: Servers, request_: bytes) -> None:
    answers = agreed(servers, request_)
    assert set(statuses(answers)) == {200}


@pytest.mark.parametrize(("status", "request_"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_gets_the_same_error(servers: Servers, status: int, request_: bytes) -> None:
    answers = agreed(servers, request_)
    assert statuses(answers) == [status]
    assert list(json.loads(answers[0].body)) == ["error"]


@pytest.mark.parametrize("request_", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_odd_or_no_http_is_treated_alike(servers: Servers, request_: bytes) -> None:
    assert agreed(servers, request_)
    # And behind a good request; by itself, for aiohttp loses what stands before an error.
    agreed(servers, SMALL, request_)


@pytest.mark.parametrize("dtype", EVERY)
def test_every_dtype_is_read_and_written_alike(servers: Servers, dtype: str) -> None:
    random_ = random.Random(dtype)
    values = {}
    for name, kind in EVERY.items():
        if name == dtype and kind.is_floating_point:
            few = torch.tensor([[random_.uniform(-9, 9) * 10.0 ** random_.randint(-4, 3), -0.0]])
            values[name] = few.to(kind)
        elif name == dtype and kind != torch.bool:
            limits = np.iinfo(name)
            values[name] = torch.from_numpy(np.array([[limits.min, limits.max]], dtype=name))
        else:
            values[name] = torch.tensor([[1, 0]]).to(kind)
    wire = {name: name.upper() if name != "boolean" else "BOOL" for name in EVERY}
    outputs = [output(f"same_{dtype}"), output("same_fp64", True), output("same_boolean")]
    outputs = list({one["name"]: one for one in outputs}.values())
    as_json = [tensor(name, wire[name], [1, 2], one.tolist()) for name, one in values.items()]
    blobs = [one.view(torch.uint8).numpy().tobytes() for one in values.values()]
    as_binary = [
        described(name, wire[name], [1, 2], len(blob))
        for name, blob in zip(values, blobs, strict=True)
    ]
    for more in ({"outputs": outputs}, BINARY_OUT, {}):
        answers = agreed(
            servers,
            infer("every", {"inputs": as_json} | more)
            + infer_binary("every", {"inputs": as_binary} | more, *blobs),
        )
        assert statuses(answers) == [200, 200]
        assert answers[0].body == answers[1].body
        index = list(EVERY).index(dtype)
        if more is BINARY_OUT:
            assert b"".join(blobs) == answers[0].body[-len(b"".join(blobs)) :]
        elif not more:
            data = json.loads(answers[0].body)["outputs"][index]["data"]
            assert (
                torch.from_numpy(
                    np.array([data], "float32" if dtype == "bf16" else values[dtype].numpy().dtype)
                )
                .to(EVERY[dtype])
                .equal(values[dtype])
            )


def test_a_model_that_raises_names_the_request(servers: Servers) -> None:
    (answer, _) = agreed(servers, infer("fussy", numbers(-1, 2, 3, 4) | {"id": "request-7"}))
    assert answer.status == 500
    assert b'\\"fussy\\" version 1 request \\"request-7\\"' in answer.body


def test_a_post_without_a_length_has_no_body(servers: Servers) -> None:
    answers = agreed(servers, head(f"POST {PATH} HTTP/1.1", "Host: here"), BODY)
    assert statuses(answers) == [400, 400]
    assert b"not a valid HTTP request" in answers[1].body


def test_a_full_queue_is_429_in_both(servers: Servers) -> None:
    with three_waiting(servers.express), three_waiting(servers.plain):
        for request in (infer("patient", GOOD), infer_raw("patient", ROW)):
            answers = agreed(servers, request)
            assert statuses(answers) == [429]
            assert b"\r\nRetry-After: " in answers[0].head


def test_a_length_over_the_limit_is_413_before_the_body_comes(servers: Servers) -> None:
    request = odd("Host: here", f"Content-Length: {LIMIT + 1}")
    for server in servers:
        with server.connect() as peer:
            peer.sendall(request)
            # Both wait for the rest of the body now, in order to read over it.
            (answer,) = heard(peer.recv(1 << 16))
        assert answer.status == 413
        assert str(LIMIT).encode() in answer.body


def test_a_client_that_expects_a_continue_gets_one(servers: Servers) -> None:
    request = odd("Host: here", LENGTH, "Expect: 100-continue")
    assert statuses(agreed(servers, request)) == [200]
    answers = agreed(servers, request[: -len(BODY)], BODY)
    assert statuses(answers) == [100, 200]
    other = odd("Host: here", LENGTH, "Expect: something")
    assert statuses(agreed(servers, other[: -len(BODY)], BODY)) == [400]


def test_many_requests_in_one_write_are_answered_in_order(servers: Servers) -> None:
    """Enough of each kind in a row to outgrow aiohttp's queue of 32."""
    random_ = random.Random(11)
    requests, expected = [], []
    kinds: list[tuple[Callable[[int], bytes], int]] = [
        (lambda i: infer("affine", numbers(i, 0, 0, 0) | {"id": str(i)}), 200),
        (lambda i: infer_raw("affine", floats(i, 0, 0, 0)), 200),
        (lambda i: infer("affine", numbers(i, 0, 0, 0) | {"id": str(i), "more": 1}), 200),
        (lambda i: head(f"GET /v2/models/nope-{i} HTTP/1.1", "Host: here"), 404),
        (lambda i: infer("affine", b"%d" % i), 400),
        (lambda i: infer("fussy", numbers(-i - 1, 0, 0, 0) | {"id": str(i)}), 500),
    ]
    for number in range(600):
        if number % 50 == 0:
            make, status = random_.choice(kinds)
        if number % 100 >= 50:
            make, status = random_.choice(kinds)
        requests.append(make(number))
        expected.append(status)
    answers = agreed(servers, b"".join(requests))
    assert statuses(answers) == expected


def test_plain_requests_in_one_write_are_answered_without_more_to_come(servers: Servers) -> None:
    """aiohttp takes 32 at a time, and asks for the rest of what it has been given."""
    ready = head("GET /v2/models/affine/ready HTTP/1.1", "Host: here")
    for server in servers:
        with server.connect() as peer, peer.makefile("rb") as stream:
            peer.sendall(SMALL + ready * 200)
            received = b""
            while received.count(b"HTTP/1.1 200 OK") < 201 or not received.endswith(b"}"):
                received += stream.read1()
        assert statuses(heard(received)) == [200] * 201


@pytest.mark.parametrize("request_", [SMALL, BINARY], ids=["json", "binary"])
def test_a_request_may_be_split_anywhere(servers: Servers, request_: bytes) -> None:
    whole = agreed(servers, request_ + SMALL)
    assert statuses(whole) == [200, 200]
    for at in range(1, len(request_)):
        for server in servers:
            answers = talk(server, request_[:at], request_[at:] + SMALL + END)
            assert normal(answers).count(b"HTTP/1.1 200 OK") == 2, at
            assert [one.body for one in heard(answers)] == [one.body for one in whole], at


def test_head_and_body_may_come_one_after_the_other(servers: Servers) -> None:
    for request in GOOD_REQUESTS.values():
        before, blank, after = request.partition(b"\r\n\r\n")
        if after:
            answers = agreed(servers, before + blank, after)
            assert set(statuses(answers)) == {200}


LARGE = {"inputs": [tensor("ids", "INT64", [1, 900_000], [12345] * 900_000)]}
LARGE_BODIES = {
    "express": (200, infer("lengths", LARGE)),
    "raw": (200, infer_raw("lengths", bytes(6 << 20))),
    "timeout": (200, infer("lengths", LARGE | {"parameters": {"timeout": 60_000_000}})),
    "coded": (200, infer("lengths", LARGE, "Content-Encoding: identity")),
    "wrong name": (400, infer("lengths", {"inputs": [LARGE["inputs"][0] | {"name": "idx"}]})),
    "unknown model": (404, infer("nope", LARGE)),
    "strings": (
        200,
        infer("shout", {"inputs": [tensor("text", "BYTES", [9], ["a" * 400_000] * 9)]}),
    ),
}


@pytest.mark.parametrize(("status", "request_"), LARGE_BODIES.values(), ids=LARGE_BODIES)
def test_a_body_of_megabytes_comes_in_pieces(
    servers: Servers, status: int, request_: bytes
) -> None:
    """Nothing follows it: what the server has must be enough for it to answer."""
    bodies = []
    for server in servers:
        with server.connect() as peer, peer.makefile("rb") as stream:
            for at in range(0, len(request_), 300_000):
                peer.sendall(request_[at : at + 300_000])
            first = stream.readline()
            length = 0
            while (line := stream.readline().strip()) != b"":
                if line.startswith(b"Content-Length: "):
                    length = int(line.split()[1])
            bodies.append((int(first.split()[1]), stream.read(length)))
    assert bodies[0] == bodies[1]
    assert bodies[0][0] == status


def test_an_unknown_path_is_answered_before_its_body_comes(servers: Servers) -> None:
    request = raw_post("/v2/models/affine/inference", BODY)
    for server in servers:
        with server.connect() as peer:
            peer.sendall(request[: -len(BODY)])
            assert statuses(heard(peer.recv(1 << 16))) == [404]


def test_both_count_the_same(servers: Servers) -> None:
    sent = [
        (SMALL, 200),
        (BINARY, 200),
        (infer_raw("affine", ROW), 200),
        (infer("affine", rows(3)), 200),
        (infer("affine/versions/1", GOOD), 200),
        (infer("affine", GOOD | {"more": 1}), 200),
        (infer_binary("affine", {"inputs": [X]}, NAN), 400),
        (infer("affine", {"inputs": [tensor("x", "FP32", [1, 3], [1, 2, 3])]}), 400),
        (infer("affine", b"{"), 400),
        (infer("nope", GOOD), 404),
        (infer("fussy", numbers(-1, 0, 0, 0)), 500),
        (infer("fussy", GOOD), 200),
        (odd("Host: here", LENGTH, first=f"PUT {PATH} HTTP/1.1"), 405),
    ]
    before = [counted(server) for server in servers]
    for request, status in sent:
        assert statuses(agreed(servers, request)) == [status]
    express, plain = (
        {name: now[name] - old.get(name, 0) for name in now}
        for now, old in zip([counted(server) for server in servers], before, strict=True)
    )
    assert express == plain
    route = "/v2/models/{model}/infer"
    assert plain[f"{route} 200"] == 6
    assert plain[f"{route} 400"] == 3
    assert plain["fussy fail"] == 1


def counted(server: Server) -> dict[str, float]:
    """What a server has counted: answers by route, and the statistics of two models."""
    counts: dict[str, float] = {}
    for status in (200, 400, 404, 405, 429, 499, 500, 503, 504):
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            route = f"{base}/infer"
            counts[f"{route} {status}"] = server.metric(
                "pyserve_http_responses_total", route=route, status=str(status)
            )
    for model in ("affine", "fussy"):
        one = server.get(f"/v2/models/{model}/stats").json["model_stats"][0]
        counts[f"{model} rows"] = one["inference_count"]
        counts[f"{model} calls"] = one["execution_count"]
        for name, ended in one["inference_stats"].items():
            counts[f"{model} {name}"] = ended["count"]
    return counts
