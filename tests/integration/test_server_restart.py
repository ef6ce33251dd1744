"""A lost device: the server answers what it has, and a fresh process takes its place."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from server_process import Server, eventually, numbers, raw_post, read_reply, start, waiting

GOOD = numbers(1, 2, 3, 4)
PROGRAM = [sys.executable, str(Path(__file__).with_name("losing_server.py"))]


class Losing(NamedTuple):
    """A server, and the FIFO through which its device is lost (see losing_server.py)."""

    server: Server
    fifo: Path

    def lose(self) -> None:
        self._write(b"L")

    def run_out_of_memory(self) -> None:
        self._write(b"M")

    def _write(self, kind: bytes) -> None:
        fd = os.open(self.fifo, os.O_WRONLY)
        os.write(fd, kind)
        os.close(fd)

    def says(self, text: str) -> bool:
        return text in self.server.log.read_text()


@contextmanager
def losing(repository: Path, tmp_path: Path, *names: str) -> Iterator[Losing]:
    fifo = tmp_path / "device"
    os.mkfifo(fifo)
    arguments = ["--model-repository", str(repository), "--drain-timeout", "20"]
    for name in names:
        arguments += ["--load-model", name]
    with start(tmp_path / "log", *arguments, program=PROGRAM, LOSING_FIFO=str(fifo)) as server:
        yield Losing(server, fifo)


@pytest.fixture
def ours(model_repository: Path, tmp_path: Path) -> Iterator[Losing]:
    with losing(model_repository, tmp_path, "affine", "slow") as one:
        yield one


def test_a_lost_device_restarts_the_process_in_its_place(ours: Losing) -> None:
    server = ours.server
    before = dict(server.ready)
    assert server.infer("affine", GOOD).status == 200
    ours.lose()
    server.await_ready()
    for key in ("pid", "http", "grpc", "models"):
        assert server.ready[key] == before[key], key
    assert server.process.poll() is None
    assert server.infer("affine", GOOD).json["outputs"][0]["data"] == [3, 5, 7, 9]
    assert ours.says("the device is lost")
    assert server.stop() == 0
    assert not ours.says("Traceback")


def test_no_connection_is_refused_while_the_process_is_replaced(ours: Losing) -> None:
    server = ours.server
    ours.lose()
    eventually(lambda: ours.says("restarting"), "it has noticed")
    # Accepted by the old process, waiting in the backlog, or accepted by the new one.
    answers = 0
    while (
        not ours.says(
            "listening at",
        )
        or ours.server.log.read_text().count("listening at") < 2
    ):
        server.connect().close()
        answers += 1
    server.await_ready()
    assert answers
    assert server.get("/v2/health/ready").status == 200
    assert server.stop() == 0


def test_what_is_in_flight_is_answered_before_and_the_server_is_not_ready(ours: Losing) -> None:
    server = ours.server
    with server.connect() as busy, busy.makefile("rb") as answer, server.connect() as idle:
        busy.sendall(raw_post("/v2/models/slow/infer", json.dumps(GOOD).encode()))
        eventually(lambda: waiting(server, "slow") == 1, "one request waits")
        ours.lose()
        eventually(lambda: ours.says("restarting"), "it has noticed")
        with idle.makefile("rb") as health:
            idle.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: here\r\n\r\n")
            reply = read_reply(health)
            assert reply.status == 503
            assert reply.error == "the server is restarting"
        assert read_reply(answer).json["outputs"][0]["data"] == [2, 4, 6, 8]
    server.await_ready()
    assert server.get("/v2/health/ready").status == 200
    assert server.stop() == 0


def test_a_signal_ends_a_server_that_was_about_to_restart(ours: Losing) -> None:
    server = ours.server
    with server.connect() as busy, busy.makefile("rb") as answer:
        busy.sendall(raw_post("/v2/models/slow/infer", json.dumps(GOOD).encode()))
        eventually(lambda: waiting(server, "slow") == 1, "one request waits")
        ours.lose()
        eventually(lambda: ours.says("restarting"), "it has noticed")
        server.signal(signal.SIGTERM)
        assert read_reply(answer).status == 200
    assert server.wait() == 0


def test_restarts_that_do_not_help_end_the_server(model_repository: Path, tmp_path: Path) -> None:
    with losing(model_repository, tmp_path, "affine") as one:
        for _ in range(3):
            one.lose()
            one.server.await_ready()
        one.lose()
        assert one.server.wait() == 1
        assert one.says("ending instead")


def test_memory_that_ran_out_is_one_line_of_the_log(ours: Losing) -> None:
    ours.run_out_of_memory()
    eventually(lambda: ours.says("too much"), "it was logged")
    assert ours.server.infer("affine", GOOD).status == 200
    assert ours.server.stop() == 0
