"""Drives unary gRPC calls with `h2load`, which costs a tenth of what a client in Python would.

A call is a POST whose body is the message behind five bytes (uncompressed, and its length), so an
HTTP/2 load generator can make it.  h2load looks at the HTTP status alone: whoever measures makes
one call with a real client before.
"""

import math
import re
import resource
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from pyserve.bench.percentiles import summarise
from pyserve.bench.processes import ChildFailed
from pyserve.bench.values import Run
from pyserve.errors import ConfigError

TOOL = "h2load"

_PATIENCE_S = 60
_COUNTS = re.compile(r"^requests: (\d+) total, .* (\d+) succeeded, (\d+) failed", re.MULTILINE)
_HEADERS = ("content-type: application/grpc", "te: trailers")


def require() -> None:
    """Raise ConfigError where there is no h2load to run."""
    if shutil.which(TOOL) is None:
        raise ConfigError("h2load is not installed (Debian: apt-get install nghttp2-client)")


def frame(message: bytes) -> bytes:
    """Return a message as gRPC sends it."""
    return b"\0" + struct.pack(">I", len(message)) + message


def run(
    address: str, path: str, message: bytes, *, connections: int, streams: int, seconds: float
) -> Run:
    """Keep `streams` calls in flight on each of `connections`, from one thread.

    seconds: rounded up to whole ones.
    """
    whole_seconds = math.ceil(seconds)
    with tempfile.TemporaryDirectory(prefix="pyserve-bench-") as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(frame(message))
        command = [TOOL, "--threads=1", f"--clients={connections}"]
        command += [f"--max-concurrent-streams={streams}", f"--duration={whole_seconds}"]
        command += [f"--data={body}", f"--log-file={log}"]
        command += [word for header in _HEADERS for word in ("--header", header)]
        before = _children_cpu_s()
        finished = subprocess.run(
            [*command, f"http://{address}{path}"],
            capture_output=True,
            text=True,
            timeout=whole_seconds + _PATIENCE_S,
            check=False,
        )
        cpu_s = _children_cpu_s() - before
        counts = _COUNTS.search(finished.stdout)
        if finished.returncode != 0 or counts is None:
            reason = (finished.stderr or finished.stdout).strip()[-300:]
            raise ChildFailed(f"h2load failed: {reason}")
        # When a request was sent, its status, and how long it took; times in microseconds.
        lines = [line.split() for line in log.read_text().splitlines()]
        latencies_ns = [int(took) * 1000 for _, status, took in lines if status == "200"]
    failed = int(counts[1]) - int(counts[2])
    return Run(
        tool=TOOL,
        requests=int(counts[2]),
        seconds=whole_seconds,
        latency_us=summarise(latencies_ns),
        failures={"not answered with 200": failed} if failed else {},
        details={"generator_cpu_s": cpu_s},
    )


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
