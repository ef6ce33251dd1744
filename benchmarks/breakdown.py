"""`python -m benchmarks.breakdown`: where one request of `tiny` goes, from the socket and back.

Two looks at the same server.  callgrind counts instructions, which a busy machine does not change:
each function's go to the part of the request that it belongs to, and what libraries did (malloc,
memcpy, torch) to the part that called them.  perf samples time, the kernel's too.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from benchmarks import counted, sampled
from benchmarks.context import QUICK, Context
from benchmarks.counted import Conversation, CountedServer, Counts
from benchmarks.groups import group_of, is_allocator, sampled_group
from benchmarks.profile import by_group
from pyserve.bench import load, machine, proc
from pyserve.bench.bodies import BodyKind
from pyserve.bench.processes import Child, HttpChild
from pyserve.bench.values import Run
from pyserve.errors import PyserveError

_KINDS: tuple[BodyKind, ...] = ("binary", "raw", "json")
_WARM_UP = 200
_REQUESTS = 2000
_CONNECTIONS = 64
_BURSTS = 30
_SAMPLED_S = 4
_FILE_TIMEOUT_S = 60.0
# Threads that do less of the work than this are left out.
_LEAST_PART = 0.03


class Column(NamedTuple):
    """A column of the table of instructions: what by group, and the same summed up."""

    title: str
    groups: Mapping[str, tuple[float, float]]  # instructions, of these the allocator's

    @property
    def total(self) -> float:
        """All instructions per request."""
        return sum(instructions for instructions, _ in self.groups.values())


def count(context: Context, folder: Path) -> list[Column]:
    """Return the instructions per request of each kind of body, one by one and in bursts."""
    columns = []
    repository = str(context.model_file("tiny").parents[2])
    with CountedServer(folder, "--model-repository", repository) as server:
        for kind in _KINDS:
            request = context.request("tiny", kind).to_bytes(f"127.0.0.1:{server.port}")
            talk = Conversation(server.port)
            talk.one_by_one(request, _WARM_UP)
            counts = server.count(partial(talk.one_by_one, request, _REQUESTS))
            columns += _columns(f"{kind}, one connection", counts, _REQUESTS)
            talk.close()
        request = context.request("tiny").to_bytes(f"127.0.0.1:{server.port}")
        talk = Conversation(server.port, _CONNECTIONS)
        talk.bursts(request, 5, server.pid)
        counts = server.count(partial(talk.bursts, request, _BURSTS, server.pid))
        columns += _columns(f"binary, bursts of {_CONNECTIONS}", counts, _BURSTS * _CONNECTIONS)
        talk.close()
    return columns


def _columns(title: str, counts: Counts, requests: int) -> list[Column]:
    """Return a column for the event loop's thread, and one for the others if they did anything."""
    columns = []
    for profile, suffix in ((counts.loop, ""), (counts.others, ", instances")):
        if profile.total >= _LEAST_PART * counts.total:
            costs = by_group(profile, group_of, is_allocator)
            groups = {
                name: (cost.instructions / requests, cost.allocator / requests)
                for name, cost in costs.items()
            }
            columns.append(Column(title + suffix, groups))
    return columns


def count_bytecodes(context: Context, folder: Path) -> dict[str, tuple[float, float]]:
    """Return bytecodes and calls per request of every Python function, one connection."""
    output = folder / "bytecodes.json"
    command = [sys.executable, "-m", "benchmarks.bytecodes", str(output), "serve"]
    command += ["--model-repository", str(context.model_file("tiny").parents[2])]
    command += ["--http-port", "0", "--grpc-port", "0", "--log-format", "json"]
    command += ["--log-level", "warning"]
    with HttpChild("the tracing server", command) as server:
        pid = int(server.ready["pid"])
        talk = Conversation(server.port)
        request = context.request("tiny").to_bytes(f"127.0.0.1:{server.port}")
        talk.one_by_one(request, _WARM_UP)
        os.kill(pid, signal.SIGUSR1)
        # A signal's handler runs between two callbacks: after this request at the latest.
        talk.one_by_one(request, 1)
        talk.one_by_one(request, _REQUESTS)
        os.kill(pid, signal.SIGUSR2)
        talk.one_by_one(request, 1)
        _await_file(output, server)
        talk.close()
    counts = json.loads(output.read_text())
    return {
        name: (bytecodes / _REQUESTS, calls / _REQUESTS)
        for name, (bytecodes, calls) in counts.items()
        if bytecodes > _REQUESTS / 10
    }


def _await_file(path: Path, server: Child) -> None:
    until = time.monotonic() + _FILE_TIMEOUT_S
    while not path.exists():
        if time.monotonic() > until:
            raise PyserveError(f"process {server.pid} wrote no counts")
        time.sleep(0.05)


class Times(NamedTuple):
    """A closed loop's costs: microseconds of CPU per request, by group, of the server's threads."""

    connections: int
    requests_per_s: float
    rows_per_batch: float
    generator_us: float
    groups: Mapping[tuple[str, str], float]  # (thread, group)


def sample_times(context: Context, folder: Path, connections: int) -> Times:
    """Return where the time goes under a closed loop; binary bodies."""
    request = context.request("tiny")
    with context.serve("tiny") as server:

        def drive(seconds: float) -> Run:
            return load.closed_loop(
                server.url, request, connections=connections, seconds=seconds, tool=context.tool
            )

        drive(1)
        before, cpu_before = _executions(server), proc.thread_cpu_seconds(server.pid)
        looked: dict[str, Counter[str]] = {}

        def look() -> None:
            looked.update(sampled.sample(server.pid, _SAMPLED_S, folder, sampled_group))

        looker = threading.Thread(target=look)
        looker.start()
        run = drive(_SAMPLED_S + 1)
        looker.join()
        cpu, after = proc.thread_cpu_seconds(server.pid), _executions(server)
    groups = {}
    everywhere = sum(counts.total() for counts in looked.values())
    for thread, counts in looked.items():
        if counts.total() < _LEAST_PART * everywhere:
            continue
        spent_us = (cpu[thread] - cpu_before.get(thread, 0.0)) * 1e6 / run.requests
        for name, samples in counts.items():
            groups[thread, name] = spent_us * samples / counts.total()
    rows, batches = (b - a for a, b in zip(before, after, strict=True))
    return Times(
        connections,
        run.rate,
        rows / max(batches, 1),
        run.details["generator_cpu_s"] * 1e6 / run.requests,
        groups,
    )


def _executions(server: HttpChild) -> tuple[int, int]:
    """Return how many rows the model has run, and how many batches."""
    with urlopen(f"{server.url}/v2/models/tiny/stats") as answer:
        stats = json.load(answer)["model_stats"][0]
    return stats["inference_count"], stats["execution_count"]


def instructions_table(columns: Sequence[Column]) -> str:
    """Return the groups' instructions per request as Markdown, the largest first."""
    names = {name for column in columns for name in column.groups}
    largest = sorted(
        names,
        key=lambda name: -max(column.groups.get(name, (0.0, 0.0))[0] for column in columns),
    )
    lines = [
        "| instructions per request | " + " | ".join(column.title for column in columns) + " |",
        "| --- |" + " --- |" * len(columns),
        "| **all** | " + " | ".join(f"**{column.total:,.0f}**" for column in columns) + " |",
    ]
    for name in largest:
        costs = [column.groups.get(name, (0.0, 0.0)) for column in columns]
        lines.append(f"| {name} | " + " | ".join(f"{cost:,.0f}" for cost, _ in costs) + " |")
    spent = [sum(part for _, part in column.groups.values()) for column in columns]
    lines.append(
        "| *of all that, malloc and free* | " + " | ".join(f"{n:,.0f}" for n in spent) + " |"
    )
    return "\n".join(lines)


def bytecodes_table(counts: Mapping[str, tuple[float, float]]) -> str:
    """Return the Python functions of a request as Markdown."""
    lines = [
        "| Python function | calls | bytecodes |",
        "| --- | --- | --- |",
        f"| **all** | **{sum(calls for _, calls in counts.values()):.1f}** "
        f"| **{sum(codes for codes, _ in counts.values()):.0f}** |",
    ]
    for name, (codes, calls) in sorted(counts.items(), key=lambda item: -item[1][0]):
        lines.append(f"| `{name}` | {calls:.1f} | {codes:.1f} |")
    return "\n".join(lines)


def times_table(times: Times) -> str:
    """Return the microseconds of CPU per request as Markdown, the largest first."""
    threads = sorted({thread for thread, _ in times.groups})
    server_us = sum(times.groups.values())
    lines = [
        f"{times.connections} connections: {times.requests_per_s:,.0f} requests/s, "
        f"{times.rows_per_batch:.1f} rows per batch; CPU per request: server {server_us:.1f} µs, "
        f"load generator {times.generator_us:.1f} µs.",
        "",
        "| µs of CPU per request | " + " | ".join(threads) + " |",
        "| --- |" + " --- |" * len(threads),
    ]
    names = {name for _, name in times.groups}
    for name in sorted(names, key=lambda n: -sum(times.groups.get((t, n), 0) for t in threads)):
        spent = [times.groups.get((thread, name), 0.0) for thread in threads]
        if sum(spent) >= 0.005 * server_us:
            lines.append(f"| {name} | " + " | ".join(f"{us:.2f}" for us in spent) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; exit code 1 where a tool is missing or something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.breakdown", description=__doc__)
    parser.add_argument("--output", type=Path, help="write the tables there too, as Markdown")
    given = parser.parse_args(arguments)
    if missing := counted.why_not():
        print(f"instructions cannot be counted: {missing}", file=sys.stderr)
        return 1
    where = machine.describe()
    parts = []
    with tempfile.TemporaryDirectory(prefix="pyserve-bench-") as name:
        folder = Path(name)
        context = Context(QUICK, folder, lambda text, fraction: None)
        try:
            parts.append(instructions_table(count(context, folder)))
            parts.append(bytecodes_table(count_bytecodes(context, folder)))
            if missing := sampled.why_not():
                print(f"times are left out: {missing}", file=sys.stderr)
            else:
                parts += [
                    times_table(sample_times(context, folder, connections))
                    for connections in (1, _CONNECTIONS)
                ]
        except PyserveError as error:
            print(error.message, file=sys.stderr)
            return 1
    parts.append(f"{where['cpu']}, {where['cores']} cores; commit {where['commit']}.")
    text = "\n\n".join(parts) + "\n"
    print(text)
    if given.output is not None:
        given.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
