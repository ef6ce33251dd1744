"""`python -m benchmarks.gate` (`make bench-gate`): fails where the hot path has become slower.

Instructions per operation, counted by callgrind, against recorded bounds: small parts of the core
(micro/operations.cc) and the whole server.  They are the same on a busy machine, and mean something
only with the compiler and the libraries that they were recorded with.  Beside them ratios of two
things measured in turn, which hold anywhere and are coarse.
"""

import argparse
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

from benchmarks import bounds, counted, http, in_process, profile
from benchmarks.bounds import Measured
from benchmarks.context import Context, Options
from benchmarks.counted import Conversation, CountedServer
from pyserve.bench.bodies import BodyKind
from pyserve.bench.processes import ChildFailed
from pyserve.errors import PyserveError

_HERE = Path(__file__).resolve().parent
BOUNDS = _HERE / "bounds.json"
OPERATIONS = _HERE.parent / "build" / "micro" / "operations"

_OPERATION = re.compile(r"pyserve::operation_(\w+)\(\)")
_TIMES = 1000  # kTimes in operations.cc
_OPERATIONS_TIMEOUT_S = 120.0

_MODEL = "tiny"
_KINDS: tuple[BodyKind, ...] = ("binary", "raw", "json")
_WARM_UP = 200
_REQUESTS = 1000
_CONNECTIONS = 64
_BURSTS = 30

_RATIO_OPTIONS = Options(repeats=3, seconds=1.0, warm_up_s=1.0)
# What decides, under valgrind, which variant of a function the libraries take.
_FEATURES = ("avx", "avx2", "bmi2", "fma")


def count_operations(binary: Path, folder: Path) -> list[Measured]:
    """Return the instructions of the core's small parts."""
    if not binary.is_file():
        raise ChildFailed(f"{binary} is not built: make bench-gate builds it")
    output = folder / "operations.out"
    command = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={output}"]
    done = subprocess.run(
        [*command, str(binary)],
        capture_output=True,
        text=True,
        timeout=_OPERATIONS_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise ChildFailed(f"operations failed: {done.stderr.strip()[-400:]}")
    counts = profile.read(output)
    found = {match[1] for one in counts.own if (match := _OPERATION.fullmatch(one.symbol))}
    if not found:
        raise ChildFailed("callgrind saw no operation: is the binary stripped?")
    return [
        Measured(
            f"core {name.replace('_', ' ')}",
            counts.inclusive(f"pyserve::operation_{name}()") / _TIMES,
        )
        for name in sorted(found)
    ]


def count_server(context: Context, folder: Path) -> list[Measured]:
    """Return the instructions of the whole server for a request of `tiny` over HTTP."""
    found = []
    repository = str(context.model_file(_MODEL).parents[2])
    with CountedServer(folder, "--model-repository", repository) as server:
        host = f"127.0.0.1:{server.port}"
        for kind in _KINDS:
            talk = Conversation(server.port)
            ask = partial(talk.one_by_one, context.request(_MODEL, kind).to_bytes(host))
            ask(_WARM_UP)
            counts = server.count(partial(ask, _REQUESTS))
            found.append(Measured(f"http {kind}, one connection", counts.total / _REQUESTS))
            talk.close()
        talk = Conversation(server.port, _CONNECTIONS)
        burst = partial(talk.bursts, context.request(_MODEL).to_bytes(host), pid=server.pid)
        burst(_BURSTS)
        counts = server.count(partial(burst, _BURSTS))
        each = counts.total / (_BURSTS * _CONNECTIONS)
        found.append(Measured(f"http binary, bursts of {_CONNECTIONS}", each))
        talk.close()
    return found


def measure_ratios(context: Context) -> list[Measured]:
    """Return ratios to floors of the same run."""
    found = [
        http.measure_tiny_with(context, "binary", _CONNECTIONS),
        *in_process.measure_call(context),
    ]
    return [
        Measured(f"ratio {one.key}", one.value, at_most=one.at_most, unit="")
        for one in found
        if one.value is not None
    ]


def makers() -> dict[str, str]:
    """Return what decides how many instructions an operation takes."""
    flags: list[str] = []
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            flags = line.split()
            break
    packages = {
        name: metadata.version(name)
        for name in ("torch", "uvloop", "aiohttp", "pybind11")
        if _installed(name)
    }
    return {
        "architecture": platform.machine(),
        "features": " ".join(one for one in _FEATURES if one in flags),
        "compiler": _first_line("c++", "--version"),
        "valgrind": _first_line("valgrind", "--version"),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        **packages,
    }


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "none"
    return done.stdout.partition("\n")[0].strip()


def measure(parts: Sequence[str], operations: Path) -> list[Measured]:
    """Measure the parts asked for; says on standard error what it has to leave out."""
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="pyserve-bench-") as name:
        folder = Path(name)
        context = Context(_RATIO_OPTIONS, folder, lambda text, fraction: None)
        missing = counted.why_not()
        if missing and {"operations", "server"} & set(parts):
            print(f"skipped: instructions are not counted: {missing}", file=sys.stderr)
        if "operations" in parts and not missing:
            found += count_operations(operations, folder)
        if "server" in parts and not missing:
            found += count_server(context, folder)
        if "ratios" in parts:
            found += measure_ratios(context)
    return found


def main(arguments: Sequence[str]) -> int:
    """Measure, compare, print; exit code 1 where a figure is worse than its bound allows."""
    given = _parser().parse_args(arguments)
    recorded, here = bounds.read(given.bounds), makers()
    try:
        found = measure(given.only or PARTS, given.operations)
    except PyserveError as error:
        print(error.message, file=sys.stderr)
        return 1
    if given.record:
        bounds.write(given.bounds, bounds.recorded(recorded, found, here))
        recorded = bounds.read(given.bounds)
    others = recorded.other_makers(here)
    verdicts = [bounds.judge(one, recorded, same_makers=not others) for one in found]
    if any(one.word == "not compared" for one in verdicts):
        print(f"the bounds are for another machine, ratios alone are compared: {'; '.join(others)}")
    print(bounds.table(verdicts))
    worse = [one.measured.key for one in verdicts if one.word == "WORSE"]
    if worse:
        print(f"slower than recorded: {', '.join(worse)}", file=sys.stderr)
    return 1 if worse else 0


PARTS = ("operations", "server", "ratios")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="a part; all without it")
    parser.add_argument("--record", action="store_true", help="write what is measured as bounds")
    parser.add_argument("--bounds", type=Path, default=BOUNDS, help="the file of bounds")
    parser.add_argument(
        "--operations", type=Path, default=OPERATIONS, help="the program of micro/operations.cc"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
