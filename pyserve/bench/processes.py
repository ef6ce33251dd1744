"""Child processes that a benchmark starts: they say when they are ready, and are stopped by pid."""

import contextlib
import io
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from pyserve.errors import ConfigError, PyserveError

# Loading a large model takes long; only a hang takes longer than this.
_READY_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 30.0
_LOG_TAIL_CHARS = 600


class ChildFailed(PyserveError):
    """A process of the benchmark's own did not do its work."""


class Child:
    """A process whose first line on standard output is a JSON object that says it is ready.

    A context manager: the process ends with it.  Its standard error is kept for error messages.
    """

    def __init__(self, what: str, command: Sequence[str], *, stdin: bool = False) -> None:
        self._what = what
        self._log = io.FileIO(os.memfd_create("log"), "r+")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        try:
            self.ready = self.read_line(_READY_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def write_line(self, value: object) -> None:
        """Send one JSON object to the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildFailed(f"{self._what} ended unasked: {self._log_tail()}") from None

    def read_line(self, timeout_s: float) -> dict[str, Any]:
        """Return the next JSON object from the process."""
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                raise ChildFailed(f"{self._what} said nothing for {timeout_s:g} s")
        line = stdout.readline()
        if not line:
            code = self._process.wait(_STOP_TIMEOUT_S)
            message = f"{self._what} ended with exit code {code}: {self._log_tail()}"
            raise ConfigError(message) if code == 2 else ChildFailed(message)
        value: dict[str, Any] = json.loads(line)
        return value

    def stop(self) -> None:
        """End the process, gently first; idempotent."""
        process = self._process
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._log.close()

    def _log_tail(self) -> str:
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").strip()
        return text[-_LOG_TAIL_CHARS:] or "it said nothing"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class HttpChild(Child):
    """A child that listens: its ready line names the address."""

    @property
    def url(self) -> str:
        """Where it listens, `http://127.0.0.1:PORT`."""
        return str(self.ready["http"])

    @property
    def port(self) -> int:
        """The port it listens on."""
        port = urlsplit(self.url).port
        assert port is not None
        return port


def start_server(*arguments: str) -> HttpChild:
    """Start `pyserve serve` on a free loopback port; returns when all its models are ready."""
    ports = ("--http-port", "0", "--grpc-port", "0")
    fixed = (*ports, "--log-format", "json", "--log-level", "warning")
    server = HttpChild("pyserve serve", _python("pyserve", "serve", *arguments, *fixed))
    failed = server.ready["failed"]
    if failed or not server.ready["models"]:
        server.stop()
        reasons = "; ".join(map(str, failed.values())) or "no model was found"
        raise ChildFailed(f"pyserve serve does not serve what it should: {reasons}")
    return server


def start_empty(kind: str = "server") -> HttpChild:
    """Start the empty aiohttp handler of `empty.py`."""
    return HttpChild("the empty handler", _python("pyserve.bench.empty", kind))


def start_empty_grpc(answer: Path) -> Child:
    """Start the empty grpc.aio handler of `empty_grpc.py`, which answers with a file's message."""
    return Child("the empty gRPC handler", _python("pyserve.bench.empty_grpc", str(answer)))


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
