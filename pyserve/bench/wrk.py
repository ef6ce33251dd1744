"""Drives a closed loop with `wrk`, which needs less of the machine than anything in Python.

wrk is told the request, and to print its whole histogram, by a Lua script.  Two of its habits:
it counts in microseconds and whole seconds, and where a connection stalled for more than twice
its mean interval it adds the latencies that the requests held back would have had.
"""

import math
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from pyserve.bench.bodies import HttpRequest
from pyserve.bench.percentiles import summarise_counted
from pyserve.bench.processes import ChildFailed
from pyserve.bench.values import Run

TOOL = "wrk"

_MARK = "pyserve-bench"
# What a run may take beyond its duration: connections are opened and answers waited for.
_PATIENCE_S = 60

_SCRIPT = """\
local file = assert(io.open({body_path}, "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  local out = {{}}
  for i = 1, #latency do
    local value, count = latency(i)
    out[i] = string.format("%d:%d", value, count)
  end
  print(string.format("{mark} %d %d %d %d %d %d %d", summary.requests, summary.duration,
    e.status, e.connect, e.read, e.write, e.timeout))
  print("{mark} histogram " .. table.concat(out, " "))
end
"""
_FAILURES = ("status not 2xx or 3xx", "connect", "read", "write", "timeout")


def is_installed() -> bool:
    """Whether there is a wrk to run."""
    return shutil.which(TOOL) is not None


def script(request: HttpRequest, body_path: Path) -> str:
    """Return the Lua script that sends `request`, whose body is in a file, and reports."""
    headers = "\n".join(
        f"wrk.headers[{quoted(name)}] = {quoted(value)}" for name, value in request.headers.items()
    )
    return _SCRIPT.format(body_path=quoted(str(body_path)), headers=headers, mark=_MARK)


def quoted(text: str) -> str:
    """Return a Lua string literal: every byte that could end it or mean something as a number."""
    pieces = [
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03d}"
        for byte in text.encode()
    ]
    return '"' + "".join(pieces) + '"'


def parse(output: str) -> Run:
    """Return what a run of the script printed; ChildFailed where it did not get to its end."""
    lines = [line for line in output.splitlines() if line.startswith(f"{_MARK} ")]
    if len(lines) != 2:
        raise ChildFailed(f"wrk printed no result: {output.strip()[-300:]}")
    answered, duration_us, *failed = map(int, lines[0].split()[1:])
    counted = []
    for pair in lines[1].split()[2:]:
        value_us, _, count = pair.partition(":")
        counted.append((int(value_us) * 1000, int(count)))
    failures = {name: count for name, count in zip(_FAILURES, failed, strict=True) if count}
    return Run(
        tool=TOOL,
        requests=answered - failures.get(_FAILURES[0], 0),
        seconds=duration_us / 1e6,
        latency_us=summarise_counted(counted),
        failures=failures,
    )


def run(url: str, request: HttpRequest, *, connections: int, seconds: float) -> Run:
    """Keep `connections` busy for `seconds` (rounded up to whole ones) with one thread."""
    with tempfile.TemporaryDirectory(prefix="pyserve-bench-") as folder:
        body_path = Path(folder) / "body"
        body_path.write_bytes(request.body)
        script_path = Path(folder) / "request.lua"
        script_path.write_text(script(request, body_path))
        whole_seconds = math.ceil(seconds)
        command = [TOOL, "--threads", "1", "--connections", str(connections)]
        command += ["--duration", f"{whole_seconds}s", "--script", str(script_path)]
        before = _children_cpu_s()
        finished = subprocess.run(
            [*command, url + request.path],
            capture_output=True,
            text=True,
            timeout=whole_seconds + _PATIENCE_S,
            check=False,
        )
        cpu_s = _children_cpu_s() - before
    if finished.returncode != 0:
        raise ChildFailed(f"wrk failed: {(finished.stderr or finished.stdout).strip()[-300:]}")
    result = parse(finished.stdout)
    return Run(
        tool=result.tool,
        requests=result.requests,
        seconds=result.seconds,
        latency_us=result.latency_us,
        failures=result.failures,
        details={"generator_cpu_s": cpu_s},
    )


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
