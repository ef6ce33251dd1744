"""`python -m benchmarks.run`: measures every figure that the project promises (`make bench`).

A full run takes some minutes, writes benchmarks/results/latest.json and prints the table.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import (
    client,
    deadlines,
    first_request,
    footprint,
    grpc,
    http,
    in_process,
    json_body,
    overload,
    priority,
    report,
)
from benchmarks.context import QUICK, Context, Options
from benchmarks.finding import Finding
from pyserve.bench import machine
from pyserve.bench.percentiles import require_hdrhistogram
from pyserve.cli.terminal import progress_bar
from pyserve.errors import PyserveError

_HERE = Path(__file__).resolve().parent
LATEST = _HERE / "results" / "latest.json"
README = _HERE / "README.md"


class Row(NamedTuple):
    """What one measurement fills in, for `--only` to choose by key."""

    key: str
    lines: tuple[Finding, ...]
    measure: Callable[[Context], list[Finding]]


ROWS = (
    Row("in-process-call", (in_process.CALL,), in_process.measure_call),
    Row(
        "in-process-throughput",
        (in_process.THREADS, in_process.TASKS),
        in_process.measure_throughput,
    ),
    Row("http-tiny", http.TINY, http.measure_tiny),
    Row("http-added", (http.ADDED,), http.measure_added),
    Row("http-resnet18", (http.RESNET,), http.measure_resnet),
    Row("grpc", (grpc.TINY, grpc.ADDED), grpc.measure_grpc),
    Row("client", (client.ASYNC, client.SYNC), client.measure_client),
    Row("json-body", (json_body.JSON,), json_body.measure_json),
    Row("first-request", (first_request.TINY, first_request.RESNET), first_request.measure_first),
    Row("memory", (footprint.MEMORY,), footprint.measure_memory),
    Row("idle-cpu", (footprint.IDLE,), footprint.measure_idle),
    Row("overload", (overload.GOODPUT, overload.REFUSALS), overload.measure_overload),
    Row("overload-deadline", (deadlines.GOODPUT, deadlines.LATE), deadlines.measure_deadlines),
    Row("priority", (priority.PRIORITY,), priority.measure_priority),
    Row("connections", (http.CONNECTIONS,), http.measure_connections),
)


def measure(rows: Sequence[Row], options: Options) -> list[Finding]:
    """Measure rows one after the other; one that fails becomes lines without a figure."""
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="pyserve-bench-") as folder:
        for row in rows:
            print(f"measuring {row.key}", file=sys.stderr, flush=True)
            with progress_bar(row.key) as progress:
                context = Context(options, Path(folder), progress)
                try:
                    findings += row.measure(context)
                except PyserveError as error:
                    print(f"  failed: {error.message}", file=sys.stderr)
                    findings += [
                        msgspec.structs.replace(line, error=error.message) for line in row.lines
                    ]
    return findings


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; exit code 1 if something could not be measured."""
    given = _parser().parse_args(arguments)
    if given.update_readme:
        report.update_readme(README, json.loads(LATEST.read_text()))
        return 0
    require_hdrhistogram()
    options = QUICK if given.quick else Options()
    options = msgspec.structs.replace(options, generator=given.generator)
    if given.repeats:
        options = msgspec.structs.replace(options, repeats=given.repeats)
    if given.seconds:
        options = msgspec.structs.replace(options, seconds=given.seconds)
    rows = [row for row in ROWS if not given.only or row.key in given.only]
    where = machine.describe()
    findings = measure(rows, options)
    results = report.document(
        findings,
        machine=where,
        command=shlex.join(["python", "-m", "benchmarks.run", *arguments]),
        options=msgspec.to_builtins(options),
    )
    print(report.markdown(results))
    # What is in the README is one whole run, never pieces of several.
    output = given.output or (None if given.only or given.quick else LATEST)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=2) + "\n")
    return 1 if any(one.error for one in findings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    keys = [row.key for row in ROWS]
    parser.add_argument(
        "--only", action="append", choices=keys, metavar="ROW", help=f"one of {', '.join(keys)}"
    )
    parser.add_argument("--quick", action="store_true", help="one short repeat: a try, no figures")
    parser.add_argument("--repeats", type=int, help="repeats of each measurement")
    parser.add_argument("--seconds", type=float, help="seconds of each measurement")
    parser.add_argument("--generator", choices=["auto", "wrk", "builtin"], default="auto")
    parser.add_argument("--output", type=Path, help="where the JSON goes")
    parser.add_argument(
        "--update-readme",
        action="store_true",
        help="measure nothing: put results/latest.json into README.md",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
