"""Cancelled calls, full queues, limits, who may change models, and the end of a gRPC server."""

from __future__ import annotations

import gzip
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_calls import SERVICE, call, channel, infer, infer_request, refused, stub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from server_process import (
    PATIENCE_S,
    Server,
    eventually,
    floats,
    one_line,
    run,
    start,
    three_waiting,
    waiting,
)
from test_grpc_stream import Talk

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DENIED = grpc.StatusCode.PERMISSION_DENIED
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture
def own(model_repository: Path, tmp_path: Path) -> Iterator[Server]:
    """A server for one test, with the models that keep requests waiting."""
    arguments = ["--model-repository", str(model_repository), "--drain-timeout", "20"]
    for name in ("affine", "patient", "slow"):
        arguments += ["--load-model", name]
    with start(tmp_path / "log", *arguments) as running:
        yield running
    assert "Traceback" not in running.log.read_text()


# --- one call's end -----------------------------------------------------------------------------


def test_a_deadline_that_is_far_changes_nothing(server: Server) -> None:
    request = infer_request("affine", 1, 2, 3, 4)
    request.parameters["timeout"].int64_param = 2**62
    assert infer(server, request).raw_output_contents[0] == floats(3, 5, 7, 9)


def test_a_call_that_is_cancelled_frees_the_queue_and_is_never_run(server: Server) -> None:
    def cancelled() -> float:
        return server.metric(
            "pyserve_grpc_responses_total", method=f"{SERVICE}/ModelInfer", code="CANCELLED"
        )

    before, rows = cancelled(), server.metric("pyserve_rows_total", model="patient")
    with channel(server) as opened:
        waits = stub(opened, "ModelInfer").future(infer_request("patient", 1, 2, 3, 4))
        eventually(lambda: waiting(server) == 1, "one request waits")
        waits.cancel()
        eventually(lambda: waiting(server) == 0, "nobody waits")
    eventually(lambda: cancelled() == before + 1, "it was counted")
    assert server.metric("pyserve_rows_total", model="patient") == rows


def test_a_full_queue_is_resource_exhausted_and_says_when_to_come_again(server: Server) -> None:
    with three_waiting(server), channel(server) as opened, pytest.raises(grpc.RpcError) as caught:
        stub(opened, "ModelInfer")(infer_request("patient", 1, 2, 3, 4), timeout=PATIENCE_S)
    assert caught.value.code() == EXHAUSTED
    assert int(dict(caught.value.trailing_metadata())["retry-after"]) >= 1
    eventually(lambda: waiting(server) == 0, "nobody waits")


# --- limits -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(affine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes messages of at most 64 KiB."""
    log = tmp_path_factory.mktemp("narrow") / "log"
    with start(log, str(affine), "--max-body-bytes", "65536") as running:
        yield running
        assert running.stop() == 0


def test_a_message_over_the_limit_is_resource_exhausted(narrow: Server) -> None:
    with refused(EXHAUSTED, "larger than max"):
        infer(narrow, infer_request("model", *([1.0] * 20_000)))
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        infer(narrow, infer_request("model", *([1.0] * 10_000)))


def test_the_limit_counts_after_decompression(narrow: Server) -> None:
    request = infer_request("model", *([1.0] * 2_000_000))
    assert len(gzip.compress(request.SerializeToString())) < 65536
    with channel(narrow) as opened, refused(EXHAUSTED, "larger than max"):
        stub(opened, "ModelInfer")(request, compression=grpc.Compression.Gzip, timeout=PATIENCE_S)
    assert infer(narrow, infer_request("model", 1, 2, 3, 4)).outputs[0].name == "y"


def test_metadata_over_the_limit_is_refused_before_the_call(narrow: Server) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(narrow, "ServerLive", metadata=[("x-large", "a" * 20_000)])
    assert caught.value.code() == EXHAUSTED
    assert call(narrow, "ServerLive").live


# --- who may change models ----------------------------------------------------------------------

CHANGES = ("RepositoryModelLoad", "RepositoryModelUnload")


@pytest.fixture(scope="module")
def guarded(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants a token, with shared memory."""
    log = tmp_path_factory.mktemp("guarded") / "log"
    arguments = ["--model-repository", str(model_repository), "--load-model", "affine"]
    with start(log, *arguments, "--shared-memory", PYSERVE_MANAGEMENT_TOKEN="sesame") as running:
        yield running
        assert running.stop() == 0


@pytest.mark.parametrize("method", [*CHANGES, "SystemSharedMemoryRegister"])
def test_changes_need_the_token(guarded: Server, method: str) -> None:
    fields = {"model_name": "affine"} if method in CHANGES else {"name": "region"}
    for metadata in ([], [("authorization", "Basic sesame")], [("authorization", "Bearer no")]):
        with refused(UNAUTHENTICATED):
            call(guarded, method, metadata=metadata, **fields)


def test_the_token_opens(guarded: Server) -> None:
    token = [("authorization", "Bearer sesame")]
    call(guarded, "RepositoryModelLoad", model_name="affine", metadata=token)
    call(guarded, "SystemSharedMemoryUnregister", metadata=token)


def test_a_web_page_may_not_change_models(server: Server) -> None:
    for method in CHANGES:
        with refused(DENIED, "web pages"):
            call(server, method, model_name="affine", metadata=[("origin", "https://evil.example")])


def test_a_listener_for_all_changes_nothing_without_a_token(affine: Path, tmp_path: Path) -> None:
    arguments = [str(affine), "--host", "0.0.0.0", "--model-control", "explicit"]
    with start(tmp_path / "log", *arguments) as running:
        running.grpc = running.grpc.replace("0.0.0.0", "127.0.0.1")
        for method in CHANGES:
            with refused(DENIED, "--management-token"):
                call(running, method, model_name="affine")
        assert call(running, "ModelReady", name="model").ready


def test_tensors_pass_through_shared_memory(guarded: Server) -> None:
    token = [("authorization", "Bearer sesame")]
    key = f"/pyserve-test-{guarded.process.pid}"
    path = Path("/dev/shm") / key[1:]
    path.write_bytes(floats(1, 2, 3, 4) + bytes(16))
    try:
        register = {"name": "region", "key": key, "byte_size": 32}
        call(guarded, "SystemSharedMemoryRegister", metadata=token, **register)
        status = call(guarded, "SystemSharedMemoryStatus").regions["region"]
        assert (status.key, status.byte_size) == (key, 32)
        request = infer_request("affine", 1, 2, 3, 4)
        del request.raw_input_contents[:]
        for tensor, offset in (request.inputs[0], 0), (request.outputs.add(name="y"), 16):
            tensor.parameters["shared_memory_region"].string_param = "region"
            tensor.parameters["shared_memory_byte_size"].int64_param = 16
            tensor.parameters["shared_memory_offset"].int64_param = offset
        answer = infer(guarded, request)
        assert list(answer.raw_output_contents) == [b""]
        assert answer.outputs[0].parameters["shared_memory_offset"].int64_param == 16
        assert path.read_bytes()[16:] == floats(3, 5, 7, 9)
        call(guarded, "SystemSharedMemoryUnregister", metadata=token, name="region")
        assert not call(guarded, "SystemSharedMemoryStatus").regions
    finally:
        path.unlink()


# --- the beginning and the end ------------------------------------------------------------------


def test_without_grpc_there_is_no_address(affine: Path, tmp_path: Path) -> None:
    with start(tmp_path / "log", str(affine), "--no-grpc") as running:
        assert "grpc" not in running.ready
        maps = Path(f"/proc/{running.process.pid}/maps").read_text()
        assert "cygrpc" not in maps
        assert running.metric("pyserve_grpc_responses_total") == 0


def test_a_port_that_is_taken_is_told_in_one_line(affine: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("serve", str(affine), "--http-port", "0", "--grpc-port", str(port))
    assert ended.returncode == 1
    said = one_line(ended.stderr)
    assert f"127.0.0.1, port {port}, for gRPC: Address already in use" in said
    assert "--grpc-port" in said
    assert "--no-grpc" in said


def test_draining_answers_what_is_in_flight_and_admits_nothing_new(own: Server) -> None:
    with channel(own) as opened:
        health = health_pb2_grpc.HealthStub(opened).Watch(
            health_pb2.HealthCheckRequest(), timeout=PATIENCE_S
        )
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        idle = Talk(opened)
        idle.say(infer_request("affine", 1, 2, 3, 4))
        assert next(idle.answers).infer_response.model_name == "affine"
        waits = stub(opened, "ModelInfer").future(infer_request("slow", 1, 2, 3, 4))
        eventually(lambda: waiting(own, "slow") == 1, "one request waits")
        own.signal(signal.SIGTERM)
        assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with refused(UNAVAILABLE):
            infer(own, infer_request("affine", 1, 2, 3, 4))
        with refused(UNAVAILABLE, "shutting down"):
            next(idle.answers)
        idle.hang_up()
        answer = waits.result(PATIENCE_S)
        assert answer.raw_output_contents[0] == floats(2, 4, 6, 8)
    assert own.wait() == 0


def test_what_waits_beyond_the_drain_timeout_is_unavailable(
    model_repository: Path, tmp_path: Path
) -> None:
    arguments = ["--model-repository", str(model_repository), "--load-model", "patient"]
    with (
        start(tmp_path / "log", *arguments, "--drain-timeout", "0.2") as running,
        channel(running) as opened,
    ):
        waits = stub(opened, "ModelInfer").future(infer_request("patient", 1, 2, 3, 4))
        eventually(lambda: waiting(running) == 1, "one request waits")
        running.signal(signal.SIGTERM)
        with refused(UNAVAILABLE):
            waits.result(PATIENCE_S)
        assert running.wait() == 1
