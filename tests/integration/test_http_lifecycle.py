"""Deadlines, full queues, clients that leave, draining, readiness, and who may change models.

The models `patient` and `slow` keep a lone request in the queue (see served_models.py), so that
what happens to waiting requests can be seen without racing against them.
"""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_process import (
    FLAGS,
    Reply,
    Server,
    both_lanes,
    eventually,
    numbers,
    raw_post,
    read_reply,
    start,
    three_waiting,
    waiting,
)

import models

GOOD = numbers(1, 2, 3, 4)
INFER_PATIENT = raw_post("/v2/models/patient/infer", json.dumps(GOOD).encode())
INFER_SLOW = raw_post("/v2/models/slow/infer", json.dumps(GOOD).encode())


def outcomes(server: Server, outcome: str, model: str) -> int:
    return int(server.metric("pyserve_requests_total", model=model, outcome=outcome))


def gone(server: Server) -> int:
    """How many clients of inference did not wait for their answer."""
    route = "/v2/models/{model}/infer"
    return int(server.metric("pyserve_http_responses_total", route=route, status="499"))


# --- one request's end --------------------------------------------------------------------------


@both_lanes
def test_a_deadline_that_passes_in_the_queue_is_504(server: Server) -> None:
    before = outcomes(server, "deadline_exceeded", "slow")
    for model in ("patient", "slow"):
        reply = server.infer(model, GOOD | {"parameters": {"timeout": 20_000}})
        assert reply.status == 504
        assert "deadline" in reply.error
        assert waiting(server, model) == 0
    eventually(
        lambda: outcomes(server, "deadline_exceeded", "slow") == before + 1, "it was counted"
    )


@both_lanes
def test_a_deadline_that_is_far_changes_nothing(server: Server) -> None:
    for timeout in (0, 60_000_000, 2**62):
        reply = server.infer("affine", GOOD | {"parameters": {"timeout": timeout}})
        assert reply.status == 200


@both_lanes
def test_a_client_that_leaves_frees_the_queue_and_is_never_run(server: Server) -> None:
    before, rows = gone(server), server.metric("pyserve_rows_total", model="patient")
    with three_waiting(server):
        pass
    eventually(lambda: waiting(server) == 0, "nobody waits")
    assert gone(server) == before + 3
    assert server.metric("pyserve_rows_total", model="patient") == rows


@both_lanes
def test_a_full_queue_is_429_and_says_when_to_come_again(server: Server) -> None:
    with three_waiting(server):
        reply = server.infer("patient", GOOD)
        assert reply.status == 429
        assert int(reply.headers["retry-after"]) >= 1
        assert "3" in reply.error
    eventually(lambda: waiting(server) == 0, "nobody waits")


@both_lanes
def test_liveness_and_metrics_answer_while_requests_wait(server: Server) -> None:
    with server.connect() as peer:
        peer.sendall(INFER_PATIENT)
        eventually(lambda: waiting(server) == 1, "one request waits")
        assert server.get("/healthz").status == 200
        assert server.get("/readyz").status == 200
        assert server.infer("affine", GOOD).status == 200
    eventually(lambda: waiting(server) == 0, "nobody waits")


# --- metrics ------------------------------------------------------------------------------------


def test_metrics_are_prometheus_text_with_whole_histograms(server: Server) -> None:
    # Two rows: a lone one of so light a model runs at once and has no time in the queue.
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [1, 2, 3, 4] * 2}
    assert server.infer("affine", {"inputs": [tensor]}).status == 200
    reply = server.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    families = {one.name: one for one in text_string_to_metric_families(reply.body.decode())}
    for name in ("request_seconds", "queue_seconds", "compute_seconds", "batch_size"):
        family = families[f"pyserve_{name}"]
        assert family.type == "histogram"
        samples = [one for one in family.samples if one.labels["model"] == "affine"]
        buckets = [one for one in samples if one.name.endswith("_bucket")]
        counts = [one.value for one in buckets]
        assert counts == sorted(counts)
        assert buckets[-1].labels["le"] == "+Inf"
        total = next(one.value for one in samples if one.name.endswith("_count"))
        assert counts[-1] == total >= 1
        assert next(one.value for one in samples if one.name.endswith("_sum")) > 0
    assert server.metric("pyserve_requests_total", model="affine", outcome="success") >= 1
    assert (
        server.metric(
            "pyserve_http_responses_total", route="/v2/models/{model}/infer", status="200"
        )
        >= 1
    )
    assert server.metric("process_resident_memory_bytes") > 0


# --- draining -----------------------------------------------------------------------------------


@pytest.fixture
def own(lane: str, model_repository: Path, tmp_path: Path) -> Iterator[Server]:
    """A server for one test, with the models that keep requests waiting."""
    arguments = ["--model-repository", str(model_repository), f"--{FLAGS[lane]}"]
    for name in ("affine", "patient", "slow"):
        arguments += ["--load-model", name]
    with start(tmp_path / "log", *arguments, "--drain-timeout", "20") as running:
        yield running


def refused(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


@both_lanes
def test_sigterm_finishes_what_is_in_flight_and_exits_with_0(own: Server) -> None:
    with own.connect() as busy, busy.makefile("rb") as answer, own.connect() as idle:
        busy.sendall(INFER_SLOW)
        eventually(lambda: waiting(own, "slow") == 1, "one request waits")
        own.signal(signal.SIGTERM)
        eventually(lambda: refused(own), "no connection is accepted")
        with idle.makefile("rb") as health:
            idle.sendall(b"GET /readyz HTTP/1.1\r\nHost: here\r\n\r\n")
            reply = read_reply(health)
            assert reply.status == 503
            assert "shutting down" in reply.error
            assert reply.headers["connection"] == "close"
        reply = read_reply(answer)
        assert reply.status == 200
        assert reply.json["outputs"][0]["data"] == [2, 4, 6, 8]
        assert reply.headers["connection"] == "close"
        assert answer.read() == b""
    assert own.wait() == 0
    assert "Traceback" not in own.log.read_text()


@both_lanes
def test_a_new_request_during_the_drain_is_503(own: Server) -> None:
    with own.connect() as busy, busy.makefile("rb") as answer, own.connect() as late:
        busy.sendall(INFER_SLOW)
        eventually(lambda: waiting(own, "slow") == 1, "one request waits")
        own.signal(signal.SIGINT)
        eventually(lambda: refused(own), "no connection is accepted")
        with late.makefile("rb") as stream:
            late.sendall(raw_post("/v2/models/affine/infer", json.dumps(GOOD).encode()))
            reply = read_reply(stream)
            assert reply.status == 503
            assert "shutting down" in reply.error
        assert read_reply(answer).status == 200
    assert own.wait() == 0


@both_lanes
def test_a_body_on_its_way_at_sigterm_is_still_answered(own: Server) -> None:
    request = raw_post("/v2/models/affine/infer", json.dumps(GOOD).encode())
    with own.connect() as busy, busy.makefile("rb") as answer, own.connect() as other:
        busy.sendall(request[:-10])
        # The second connection's answer shows that the server has read what was sent before.
        with other.makefile("rb") as stream:
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
            assert read_reply(stream).status == 200
        own.signal(signal.SIGTERM)
        eventually(lambda: refused(own), "no connection is accepted")
        busy.sendall(request[-10:])
        assert read_reply(answer).json["outputs"][0]["data"] == [3, 5, 7, 9]
    assert own.wait() == 0


def test_a_body_that_never_ends_holds_up_a_drain_no_longer_than_its_timeout(
    model_repository: Path, tmp_path: Path
) -> None:
    arguments = ["--model-repository", str(model_repository), "--load-model", "affine"]
    with start(tmp_path / "log", *arguments, "--drain-timeout", "0.2") as server:
        with server.connect() as peer, peer.makefile("rb") as answer:
            peer.sendall(raw_post("/v2/models/affine/infer", json.dumps(GOOD).encode())[:-10])
            # This answer shows that the server has read what was sent before.
            assert server.get("/healthz").status == 200
            server.signal(signal.SIGTERM)
            assert answer.read() == b""
        assert server.wait() == 1
    assert "not everything had finished in time" in (tmp_path / "log").read_text()


def test_a_second_signal_ends_at_once(own: Server) -> None:
    with own.connect() as peer:
        peer.sendall(INFER_PATIENT)
        eventually(lambda: waiting(own) == 1, "one request waits")
        own.signal(signal.SIGTERM)
        eventually(lambda: refused(own), "no connection is accepted")
        assert own.process.poll() is None
        own.signal(signal.SIGTERM)
        assert own.wait() == 1


# --- changing models ----------------------------------------------------------------------------


def change(server: Server, name: str, action: str, **headers: str) -> Reply:
    return server.ask("POST", f"/v2/repository/models/{name}/{action}", b"", headers)


def index(server: Server) -> dict[str, dict[str, str]]:
    return {one["name"]: one for one in server.ask("POST", "/v2/repository/index").json}


@pytest.fixture
def small_repository(tmp_path: Path) -> Path:
    models.build("affine", tmp_path / "models")
    return tmp_path / "models"


def test_models_come_and_go_by_request(small_repository: Path, tmp_path: Path) -> None:
    with start(tmp_path / "log", "--model-repository", str(small_repository)) as server:
        assert index(server)["affine"]["state"] == "READY"
        assert change(server, "affine", "unload").status == 200
        assert server.infer("affine", GOOD).status == 404
        assert index(server)["affine"]["state"] == "UNAVAILABLE"
        assert server.ask("POST", "/v2/repository/index", b'{"ready": true}').json == []
        assert change(server, "affine", "load").status == 200
        assert server.infer("affine", GOOD).status == 200
        models.build("tiny", small_repository)
        assert "tiny" in index(server)
        assert change(server, "tiny", "load").status == 200
        assert server.get("/v2/models/tiny").status == 200


def test_a_failed_reload_leaves_what_served_before(small_repository: Path, tmp_path: Path) -> None:
    with start(tmp_path / "log", "--model-repository", str(small_repository)) as server:
        path = small_repository / "affine" / "1" / "model.pt"
        path.with_suffix(".new").write_bytes(b"broken")
        path.with_suffix(".new").rename(path)
        reply = change(server, "affine", "load")
        assert reply.status == 400
        assert "not a whole TorchScript file" in reply.error
        assert server.infer("affine", GOOD).json["outputs"][0]["data"] == [3, 5, 7, 9]
        assert "not a whole TorchScript file" in index(server)["affine"]["reason"]


def test_an_unload_waits_for_requests_in_flight(model_repository: Path, tmp_path: Path) -> None:
    arguments = ["--model-repository", str(model_repository), "--load-model", "slow"]
    with start(tmp_path / "log", *arguments) as server:
        with server.connect() as peer, peer.makefile("rb") as answer:
            peer.sendall(INFER_SLOW)
            eventually(lambda: waiting(server, "slow") == 1, "one request waits")
            assert change(server, "slow", "unload").status == 200
            assert read_reply(answer).status == 200
        assert server.stop() == 0


def test_loads_and_unloads_from_many_clients_leave_a_server_that_serves(
    small_repository: Path, tmp_path: Path
) -> None:
    with start(tmp_path / "log", "--model-repository", str(small_repository)) as server:
        statuses: set[int] = set()

        def work(action: str) -> None:
            for _ in range(5):
                statuses.add(change(server, "affine", action).status)
                statuses.add(server.infer("affine", GOOD).status)

        threads = [threading.Thread(target=work, args=(one,)) for one in ("load", "unload") * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses <= {200, 404, 503}
        assert change(server, "affine", "load").status == 200
        assert server.infer("affine", GOOD).status == 200


def test_model_control_none_refuses_changes(small_repository: Path, tmp_path: Path) -> None:
    arguments = ["--model-repository", str(small_repository), "--model-control", "none"]
    with start(tmp_path / "log", *arguments) as server:
        reply = change(server, "affine", "unload")
        assert reply.status == 403
        assert "--model-control explicit" in reply.error
        assert server.infer("affine", GOOD).status == 200


def test_a_web_page_may_not_change_models_on_loopback(server: Server) -> None:
    reply = change(server, "affine", "unload", Origin="http://evil.example")
    assert reply.status == 403
    assert server.infer("affine", GOOD).status == 200


@pytest.mark.parametrize("by_environment", [False, True])
def test_a_management_token_is_asked_for(
    small_repository: Path, tmp_path: Path, by_environment: bool
) -> None:
    arguments = ["--model-repository", str(small_repository), "--host", "0.0.0.0"]
    arguments += ["--model-control", "explicit"]
    env = {"PYSERVE_MANAGEMENT_TOKEN": "s3cret"} if by_environment else {}
    if not by_environment:
        arguments += ["--management-token", "s3cret"]
    with start(tmp_path / "log", *arguments, **env) as server:
        for header in ({}, {"Authorization": "Basic s3cret"}, {"Authorization": "Bearer s3cre"}):
            reply = change(server, "affine", "load", **header)
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == "Bearer"
            assert "s3cret" not in reply.error
        assert change(server, "affine", "load", Authorization="Bearer s3cret").status == 200
        assert server.infer("affine", GOOD).status == 200
        assert server.stop() == 0
    assert "s3cret" not in (tmp_path / "log").read_text()


def test_without_a_token_only_loopback_may_change_models(
    small_repository: Path, tmp_path: Path
) -> None:
    arguments = ["--model-repository", str(small_repository), "--host", "0.0.0.0"]
    with start(tmp_path / "log", *arguments, "--model-control", "explicit") as server:
        reply = change(server, "affine", "unload")
        assert reply.status == 403
        assert "--management-token" in reply.error
        assert index(server)["affine"]["state"] == "READY"
