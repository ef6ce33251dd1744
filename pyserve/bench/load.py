"""Puts HTTP load on a server with the best tool there is; every tool is a process of its own."""

import subprocess
import sys
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from pyserve.bench import generator, wrk
from pyserve.bench.bodies import HttpRequest
from pyserve.bench.generator import Job
from pyserve.bench.processes import ChildFailed
from pyserve.bench.values import Run
from pyserve.errors import ConfigError

Generator: TypeAlias = Literal["auto", "wrk", "builtin"]


def choose(asked: Generator) -> Literal["wrk", "builtin"]:
    """Return the tool for closed loops: wrk where it is installed, unless asked otherwise."""
    if asked == "auto":
        return "wrk" if wrk.is_installed() else "builtin"
    if asked == "wrk" and not wrk.is_installed():
        raise ConfigError("wrk is not installed (Debian: apt-get install wrk); use builtin")
    return asked


def closed_loop(
    url: str,
    request: HttpRequest,
    *,
    connections: int,
    seconds: float,
    tool: Literal["wrk", "builtin"],
    max_requests: int = 1_000_000,
) -> Run:
    """Keep connections busy; wrk is bounded by time alone."""
    if tool == "wrk":
        return wrk.run(url, request, connections=connections, seconds=seconds)
    return _generate(url, request, connections, seconds, max_requests=max_requests)


def open_loop(
    url: str,
    request: HttpRequest,
    *,
    rate: float,
    connections: int,
    seconds: float,
    seed: int,
    max_requests: int = 1_000_000,
    patience_s: float = 10.0,
    deadline_us: int = 0,
) -> Run:
    """Send `rate` requests per second at random, whether or not answers come.

    deadline_us: the timeout that the request itself asks for, to tell answers apart by.
    """
    return _generate(
        url,
        request,
        connections,
        seconds,
        max_requests=max_requests,
        rate=rate,
        seed=seed,
        patience_s=patience_s,
        deadline_us=deadline_us,
    )


def _generate(
    url: str, request: HttpRequest, connections: int, seconds: float, **options: float
) -> Run:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise ConfigError(f"{url!r}: the built-in generator speaks http:// alone")
    job = msgspec.convert(
        {
            "host": parts.hostname,
            "port": parts.port or 80,
            "request": request.to_bytes(parts.netloc),
            "connections": connections,
            "seconds": seconds,
            **options,
        },
        Job,
    )
    finished = subprocess.run(
        [sys.executable, "-m", generator.__name__],
        input=msgspec.json.encode(job),
        capture_output=True,
        timeout=seconds + job.patience_s + 120,
        check=False,
    )
    if finished.returncode != 0:
        reason = finished.stderr.decode(errors="replace").strip()[-400:]
        raise ChildFailed(f"the load generator failed: {reason}")
    return msgspec.json.decode(finished.stdout, type=Run)
