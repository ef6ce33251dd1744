"""A benchmark's results as JSON for programs and as a table for people."""

import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from pyserve.bench.suite import Options, Target
from pyserve.bench.values import Measurement

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1
"""Version of the JSON document."""

_FILE_WIDTH = 120


def command_line() -> str:
    """Return the command that this process was started with, as one may paste it."""
    return shlex.join(["pyserve", *sys.argv[1:]])


def document(
    targets: Iterable[Target], options: Options, where: dict[str, object]
) -> dict[str, object]:
    """Return everything as JSON values; `where` is `machine.describe()` from before."""
    return {
        "format": FORMAT,
        "command": command_line(),
        "machine": where,
        "options": msgspec.to_builtins(options),
        "targets": [
            {
                "target": one.target,
                "rows": one.rows,
                "body": one.body,
                "body_bytes": one.body_bytes,
                "measurements": [
                    {**measurement.as_json(), "of_floor": of_floor(measurement, one.measurements)}
                    for measurement in one.measurements
                ],
            }
            for one in targets
        ],
    }


def of_floor(measurement: Measurement, others: Sequence[Measurement]) -> float | None:
    """Return a measurement's rate as a fraction of its floor's, None where it has none.

    The median of the ratios of each repeat: what slowed one repeat slowed both its runs.
    """
    for floor in others:
        if floor.name == measurement.floor and any(run.rate for run in floor.runs):
            pairs = zip(measurement.runs, floor.runs, strict=True)
            return statistics.median(run.rate / base.rate for run, base in pairs if base.rate)
    return None


def table(target: Target) -> "Table":
    """Return a table of one target; latencies in microseconds."""
    from rich.table import Table

    title = (
        f"{target.target}: {target.rows} row(s), {target.body} body of {target.body_bytes} bytes"
    )
    result = Table(title=title, caption=_caption(target))
    result.title_justify = result.caption_justify = "left"
    result.add_column("what", no_wrap=True)
    for column in ("requests/s", "of floor", "p50 µs", "p90", "p99", "p99.9", "max", "failed"):
        result.add_column(column, justify="right", no_wrap=True)
    for one in target.measurements:
        ratio = of_floor(one, target.measurements)
        latency = one.latency_us
        known = latency.count > 0
        result.add_row(
            one.name,
            f"{one.rate:,.0f}",
            "" if ratio is None else f"{ratio:.2f}",
            *(
                f"{value:,.0f}" if known else ""
                for value in (latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max)
            ),
            f"{sum(one.failures.values()):,}" if one.failures else "",
            style="dim" if one.mode == "floor" else "",
        )
    return result


def show(targets: Iterable[Target]) -> None:
    """Print a table for every target."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(width=_FILE_WIDTH)
    for target in targets:
        console.print(table(target))


def _caption(target: Target) -> str:
    tools = sorted({one.tool for one in target.measurements})
    repeats = len(target.measurements[0].runs)
    return f"medians of {repeats} interleaved repeats; load by {', '.join(tools)}"
