"""Where the time of a server's threads goes: `perf` looks at them some thousand times a second."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks.profile import Function
from pyserve.bench.processes import ChildFailed

_FREQUENCY = 9999
_FRAME = re.compile(r"\s*[0-9a-f]+ (.*) \(([^()]*)\)\s*")
_STOP_TIMEOUT_S = 60.0


def why_not() -> str:
    """Return why this machine cannot be sampled; empty if it can."""
    if not shutil.which("perf"):
        return "perf is not installed"
    done = subprocess.run(
        ["perf", "record", "-e", "cpu-clock", "-o", "/dev/null", "--", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"perf record is refused: {done.stderr.strip()[:200]}" if done.returncode else ""


def sample(
    pid: int, seconds: float, folder: Path, group_of: Callable[[list[Function]], str]
) -> dict[str, Counter[str]]:
    """Return how often each thread of a process, by name, was met in each group."""
    path = folder / "perf.data"
    command = ["perf", "record", "-e", "cpu-clock", "-F", str(_FREQUENCY), "-g"]
    command += ["-p", str(pid), "-o", str(path), "--", "sleep", str(seconds)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + _STOP_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise ChildFailed(f"perf record failed: {done.stderr.strip()[-300:]}")
    script = subprocess.run(
        ["perf", "script", "-i", str(path), "-F", "comm,ip,sym,dso"],
        capture_output=True,
        text=True,
        check=True,
    )
    path.unlink()
    found: dict[str, Counter[str]] = {}
    for thread, stack in stacks(script.stdout.splitlines()):
        found.setdefault(thread, Counter())[group_of(stack)] += 1
    return found


def stacks(lines: Iterable[str]) -> Iterator[tuple[str, list[Function]]]:
    """Return what `perf script` printed: the thread's name, and its stack, innermost first."""
    thread, stack = "", list[Function]()
    for line in [*lines, ""]:
        if not line.strip():
            if stack:
                yield thread, stack
            thread, stack = "", []
        elif not line[0].isspace():
            thread = line.strip()
        else:
            match = _FRAME.fullmatch(line)
            if match is not None:
                symbol, library = match.groups()
                stack.append(Function(library.rpartition("/")[2], symbol))
