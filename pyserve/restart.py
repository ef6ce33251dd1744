"""Puts a fresh process in this one's place, with the HTTP sockets kept open.

A sticky error of CUDA (a device-side assert, an illegal address) ends the device's context, which
belongs to the whole process: nothing short of a new process runs a kernel again.  The server
answers what is in flight and then executes itself anew (execve), rather than ask a supervisor:

- whoever started it (systemd, a container's runtime) sees the same process id and no exit;
- the listening sockets go over, so connections wait in their backlogs and none is refused;
- the kernel takes back all that the old image held of the device, whatever state it is in;
- a process that stands by for this would cost memory all day for what happens seldom.

What cannot go over is gRPC's socket, which its library keeps to itself: those clients connect
again.  Restarts that follow each other too fast cure nothing: then the process ends with code 1.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

_VARIABLE = "PYSERVE_RESTARTED"
_MOST = 3
_WITHIN_S = 600.0


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """What the next process gets from this one.

    sockets: descriptors that listen for HTTP.  grpc_port: where gRPC was, so that a port that was
    chosen freely stays; 0 for none.  device: the one that was lost, which must come back: `auto`
    must not quietly fall back to the CPU.  restarts: when they were, on the system's steady clock.
    """

    sockets: tuple[int, ...]
    grpc_port: int = 0
    device: str = "auto"
    restarts: tuple[float, ...] = ()


def taken_over(environment: MutableMapping[str, str] = os.environ) -> Handover | None:
    """Return what the process before this one left, once; None for a first start."""
    text = environment.pop(_VARIABLE, "")
    return msgspec.json.decode(text, type=Handover) if text else None


def listeners(handover: Handover) -> list[socket.socket]:
    """Return the sockets that the process before this one listened on."""
    sockets = [socket.socket(fileno=fd) for fd in handover.sockets]
    for one in sockets:
        one.set_inheritable(False)
    return sockets


def too_often(handover: Handover | None, now: float | None = None) -> bool:
    """Whether another restart would follow too many that were not long ago."""
    recent = [] if handover is None else _recent(handover.restarts, now)
    return len(recent) >= _MOST


def next_handover(
    before: Handover | None, *, sockets: Sequence[int], grpc_port: int, device: str
) -> Handover:
    """Return what to hand over to the next process, where `before` is what this one was given."""
    now = time.monotonic()
    restarts = () if before is None else _recent(before.restarts, now)
    return Handover(
        sockets=tuple(sockets), grpc_port=grpc_port, device=device, restarts=(*restarts, now)
    )


def replace_process(handover: Handover) -> NoReturn:
    """Run the same command in this process's place; nothing of this one goes on."""
    for fd in _open_descriptors():
        if fd > 2:  # CUDA's driver and others may have opened theirs for children too
            os.set_inheritable(fd, fd in handover.sockets)
    environment = {**os.environ, _VARIABLE: msgspec.json.encode(handover).decode()}
    sys.stdout.flush()
    logging.shutdown()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _recent(restarts: Sequence[float], now: float | None) -> tuple[float, ...]:
    since = (time.monotonic() if now is None else now) - _WITHIN_S
    return tuple(one for one in restarts if one > since)


def _open_descriptors() -> list[int]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        fd = int(entry.name)
        try:
            os.fstat(fd)
        except OSError:
            continue  # the one that the listing itself used
        found.append(fd)
    return found
