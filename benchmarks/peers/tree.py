"""A server's whole process tree: its CPU time, its memory, its end."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STOP_TIMEOUT_S = 15.0
_LOOK_AGAIN_S = 0.02
_REST_SPAN_S = 0.2
_REST_CORES = 0.15


class Process(NamedTuple):
    """One line of /proc/PID/stat; `started` tells a process from a later one of the same id."""

    pid: int
    parent: int
    session: int
    started: int
    cpu_s: float
    zombie: bool


def read_stat(text: str) -> Process:
    """Parse /proc/PID/stat."""
    # The name, in brackets, may itself hold spaces and brackets.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Process(
        pid=int(head.partition(" ")[0]),
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        zombie=fields[0] == "Z",
    )


class ProcessTree:
    """All that descends from a session leader, also what has left its parent or the session since.

    Whatever was seen once stays in: look (by any method) while a daemon still has its parent.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._seen: dict[tuple[int, int], Process] = {}

    def look(self) -> list[Process]:
        """Return the members that are alive."""
        everyone = _everyone()
        members = {
            pid
            for pid, one in everyone.items()
            if pid == self._root or one.session == self._root or (pid, one.started) in self._seen
        }
        grown = True
        while grown:
            more = {pid for pid, one in everyone.items() if one.parent in members} - members
            members |= more
            grown = bool(more)
        alive = [everyone[pid] for pid in sorted(members)]
        self._seen.update({(one.pid, one.started): one for one in alive})
        return [one for one in alive if not one.zombie]

    def cpu_seconds(self) -> float:
        """Return the CPU time of all members so far, of those that have ended too."""
        self.look()
        return sum(one.cpu_s for one in self._seen.values())

    def memory_bytes(self) -> int:
        """Return the resident memory of all members, pages that they share counted once."""
        total = 0
        for one in self.look():
            with contextlib.suppress(OSError):  # it ended meanwhile
                total += _pss_bytes(one.pid)
        return total

    def await_rest(self, timeout_s: float) -> None:
        """Wait until next to nothing runs: no worker loads, no request of a load before is left."""
        until = time.monotonic() + timeout_s
        before = self.cpu_seconds()
        while time.monotonic() < until:
            time.sleep(_REST_SPAN_S)
            now = self.cpu_seconds()
            if now - before <= _REST_CORES * _REST_SPAN_S:
                return
            before = now

    def end(self) -> None:
        """Ask the root to stop, and kill what is left of group and tree after a while."""
        self.look()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._root, signal.SIGTERM)
        until = time.monotonic() + _STOP_TIMEOUT_S
        while time.monotonic() < until and any(one.pid == self._root for one in self.look()):
            time.sleep(_LOOK_AGAIN_S)
        # The group stands as long as one member does, so its id cannot have gone to a stranger.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._root, signal.SIGKILL)
        while left := self.look():
            for one in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
            time.sleep(_LOOK_AGAIN_S)


def _everyone() -> dict[int, Process]:
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - a third of the time of Path.iterdir
        if name.isdigit():
            with contextlib.suppress(OSError):
                one = read_stat(Path(f"/proc/{name}/stat").read_text())
                found[one.pid] = one
    return found


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
