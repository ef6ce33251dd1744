"""A server under callgrind: its instructions per request, whatever else the machine does.

Counts are the same to within a percent from run to run, also on a busy machine.  They leave out
the kernel, and caches: fewer instructions are nearly always faster, by how much is for a stopwatch.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from benchmarks.profile import Profile, read
from pyserve.bench.processes import ChildFailed, HttpChild

_CLOCK_SOURCE = Path(__file__).resolve().parent / "slow_clock.c"
_CONTROL_TIMEOUT_S = 60.0
_RECEIVE_BYTES = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def why_not() -> str:
    """Return what this machine lacks for counting; empty if nothing."""
    missing = [tool for tool in ("valgrind", "callgrind_control", "cc") if not shutil.which(tool)]
    return f"{', '.join(missing)} not installed" if missing else ""


class Counts(NamedTuple):
    """What was counted: on the event loop's thread, and on all others together."""

    loop: Profile
    others: Profile

    @property
    def total(self) -> int:
        """All instructions of the process."""
        return self.loop.total + self.others.total


class CountedServer:
    """`pyserve serve` under callgrind; counts only within `count`.  A context manager."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        self._parts = 0
        command = [
            *("env", f"LD_PRELOAD={_slow_clock(folder)}", "valgrind", "--quiet"),
            *("--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"),
            *("--fair-sched=yes", f"--callgrind-out-file={folder / 'callgrind.out'}"),
            *(sys.executable, "-m", "pyserve", "serve", *arguments),
            *("--http-port", "0", "--grpc-port", "0"),
            *("--log-format", "json", "--log-level", "warning"),
        ]
        self._child = HttpChild("pyserve serve under callgrind", command)
        try:
            self._control("--instr=on")
        except BaseException:
            self._child.stop()
            raise

    @property
    def pid(self) -> int:
        """The server's process."""
        return int(self._child.ready["pid"])

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._child.url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._child.port

    def count(self, drive: Callable[[], object]) -> Counts:
        """Return the instructions that the server takes while `drive` runs."""
        self._control("--zero")
        drive()
        self._control("--dump")
        self._parts += 1
        files = self._folder.glob(f"callgrind.out.{self._parts}-*")
        counts = Counts(Profile(), Profile())
        for path in files:
            is_loop = path.name.endswith("-01")
            (counts.loop if is_loop else counts.others).add(read(path))
            path.unlink()
        if not counts.loop.total:
            raise ChildFailed("callgrind has written no counts")
        return counts

    def _control(self, order: str) -> None:
        done = subprocess.run(
            ["callgrind_control", order, str(self.pid)],
            capture_output=True,
            text=True,
            timeout=_CONTROL_TIMEOUT_S,
            check=False,
        )
        if done.returncode or "OK." not in done.stdout:
            raise ChildFailed(f"callgrind_control {order} failed: {(done.stdout + done.stderr)!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.stop()


def _slow_clock(folder: Path) -> Path:
    library = folder / "slow_clock.so"
    command = ["cc", "-O2", "-shared", "-fPIC", str(_CLOCK_SOURCE), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildFailed(f"slow_clock.c does not compile: {done.stderr.strip()[-400:]}")
    return library


class Conversation:
    """Connections that stand, and requests on them in an order that never changes."""

    def __init__(self, port: int, connections: int = 1) -> None:
        self._connections = [
            socket.create_connection(("127.0.0.1", port)) for _ in range(connections)
        ]
        for one in self._connections:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def one_by_one(self, request: bytes, count: int) -> None:
        """Send a request, read its answer, and so on."""
        connection = self._connections[0]
        for _ in range(count):
            connection.sendall(request)
            _read_answer(connection)

    def bursts(self, request: bytes, count: int, pid: int) -> None:
        """Have one request on each connection arrive at the same instant, `count` times.

        The server is stopped while they are sent: it finds all of them when it goes on.
        """
        for _ in range(count):
            os.kill(pid, signal.SIGSTOP)
            try:
                for one in self._connections:
                    one.sendall(request)
            finally:
                os.kill(pid, signal.SIGCONT)
            for one in self._connections:
                _read_answer(one)

    def close(self) -> None:
        """Hang up."""
        for one in self._connections:
            one.close()


def _read_answer(connection: socket.socket) -> None:
    received = b""
    while True:
        data = connection.recv(_RECEIVE_BYTES)
        if not data:
            raise ChildFailed("the server hung up")
        received += data
        head, end, body = received.partition(b"\r\n\r\n")
        if not end:
            continue
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ChildFailed(f"the server answered {head[:40]!r}")
        length = _LENGTH.search(head)
        if length is None:
            raise ChildFailed("an answer has no Content-Length")
        if len(body) >= int(length[1]):
            return
