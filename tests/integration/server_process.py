"""A real server in a process of its own, and what tests send to it.

The process is started as a user would start it; its ready line says where it listens, and it is
stopped by its own process id.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]

# Far longer than anything here takes: only a hang ends here.
PATIENCE_S = 90.0

# What `pyserve serve` is told for each lane.
FLAGS = {"express": "express", "plain": "no-express"}

both_lanes = pytest.mark.parametrize("lane", FLAGS, scope="module")


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an error, which must be all there is in the body."""
        value = self.json
        assert list(value) == ["error"], value
        assert "Traceback" not in value["error"]
        assert str(ROOT) not in value["error"]
        return str(value["error"])


class Server:
    """A running server. `ready` is its ready line, `log` its standard error, `grpc` HOST:PORT."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.await_ready()

    def await_ready(self) -> None:
        """Read the next ready line: the first, or that of a server that has restarted."""
        self.ready: dict[str, Any] = json.loads(self._next_line())
        self.grpc = str(self.ready.get("grpc", ""))
        self.url = str(self.ready["http"])
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        self.address = (host, int(port))

    def _next_line(self) -> bytes:
        stdout = self.process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            assert selector.select(PATIENCE_S), f"not ready in time:\n{self.log.read_text()}"
        line = stdout.readline()
        assert line, f"ended before it was ready:\n{self.log.read_text()}"
        return line

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Reply:
        """Send one request on a connection of its own."""
        connection = HTTPConnection(*self.address, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            names = [name.lower() for name, _ in response.getheaders()]
            assert len(set(names)) == len(names), f"a header is there twice: {names}"
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, headers, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.ask("GET", path)

    def infer(
        self,
        model: str,
        request: dict[str, Any] | bytes,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        return self.ask("POST", f"/v2/models/{model}/infer", body, headers)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=PATIENCE_S)

    def metric(self, name: str, **labels: str) -> float:
        """Return one sample of `/metrics`, 0 where there is none."""
        text = self.get("/metrics").body.decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return 0.0

    def rss_bytes(self) -> int:
        """Memory of the process now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait until the process has ended by itself, and return its exit code."""
        return self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()


def waiting(server: Server, model: str = "patient") -> int:
    """How many requests wait in the queue of a model."""
    return int(server.metric("pyserve_queued", model=model))


@contextmanager
def three_waiting(server: Server) -> Iterator[None]:
    """Fill the queue of `patient` for as long as the block lasts."""
    request = raw_post("/v2/models/patient/infer", json.dumps(numbers(1, 2, 3, 4)).encode())
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(server.connect()).sendall(request)
        eventually(lambda: waiting(server) == 3, "three requests wait")
        yield


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for what another process brings about; fails when it does not."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pyserve", *arguments]


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYSERVE_")}
    return kept | {"PYTHONPATH": str(ROOT)} | changes


@contextmanager
def start(
    log: Path, *arguments: str, program: Sequence[str] | None = None, **env: str
) -> Iterator[Server]:
    """Yield a server that is ready; it is stopped at the end if the test has not.

    program: what is run instead of `pyserve`, with the same arguments.
    """
    ports = ("--http-port", "0", "--grpc-port", "0")
    full = [*(program or command()), "serve", *ports, "--log-format", "json", *arguments]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            full, stdout=subprocess.PIPE, stderr=stderr, env=environment(**env)
        )
    try:
        yield Server(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=environment(**env),
        timeout=PATIENCE_S,
        check=False,
    )


def tensor(name: str, datatype: str, shape: Sequence[int], data: object) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}


def numbers(*values: float) -> dict[str, Any]:
    """A request to `affine`-like models: one row of four numbers."""
    return {"inputs": [tensor("x", "FP32", [1, 4], list(values))]}


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def binary(request: dict[str, Any], *blobs: bytes) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request with binary data behind its JSON."""
    text = json.dumps(request).encode()
    return b"".join([text, *blobs]), {"Inference-Header-Content-Length": str(len(text))}


def raw_post(path: str, body: bytes, *headers: str) -> bytes:
    """A request as bytes, for tests that write to a socket."""
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_reply(stream: Any) -> Reply:
    """Read one answer from a socket's file."""
    status = int(stream.readline().split()[1])
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value
    return Reply(status, headers, stream.read(int(headers["content-length"])))


def one_line(text: str) -> str:
    """The single line of a command's error."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("Error: ")
    return lines[0]
