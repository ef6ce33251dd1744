"""The figures that are compared: how each is read from a visit, and who is best at it."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from benchmarks.peers.peer import Form
from benchmarks.peers.results import Cell, Plan, Visit
from benchmarks.report import number

OWN = "pyserve"
RAW = " raw"

# The connection counts whose latencies are worth a column, beside the fewest and the most.
_LATENCIES_AT = 32
_MIB = 1 << 20


class Column(NamedTuple):
    """A figure of a server, what stands after it, and what instead where there is none."""

    title: str
    value: Callable[[Visit], float | None]
    lowest: bool
    after: Callable[[Visit], str] = lambda visit: ""
    instead: Callable[[Visit], str] = lambda visit: ""


def columns_of(plan: Plan) -> list[Column]:
    """Return every figure of a run."""
    connections = plan.connections
    fewest, most = min(connections), max(connections)
    columns = [_rate(f"requests/s, {n}", "binary", n) for n in connections]
    columns += [_rate(f"JSON, {n}", "json", n) for n in plan.json_connections]
    for n in connections:
        if n in (fewest, _LATENCIES_AT, most):
            for name in ("p50", "p99"):
                latency = _figure("binary", "closed", n, f"{name}_us", 1e-3)
                columns.append(Column(f"{name} ms, {n}", latency, True))
    p50, p99 = (_figure("binary", "open", most, f"{name}_us", 1e-3) for name in ("p50", "p99"))
    cpu = _figure("binary", "closed", most, "cpu_s_per_1000")
    return [
        *columns,
        Column("open loop p50 ms", p50, True, _offered(most)),
        Column("open loop p99 ms", p99, True),
        Column("CPU s per 1,000", cpu, True),
        Column("MiB", lambda visit: visit.memory_bytes / _MIB or None, True),
        Column("cold start s", lambda visit: visit.cold_start_s or None, True),
    ]


def rows_of(visits: Iterable[Visit]) -> list[Visit]:
    """Return a row for each visit, and behind it one for raw bodies where the server takes them.

    A row for raw bodies has their cells where the others have those of binary bodies; what is the
    whole server's, it leaves to the other row.
    """
    rows = []
    for visit in visits:
        rows.append(visit)
        raw = [replace(one, form="binary") for one in visit.cells if one.form == "raw"]
        if raw:
            name = visit.peer + RAW
            rows.append(replace(visit, peer=name, cells=raw, memory_bytes=0, cold_start_s=0.0))
    return rows


def title_of(name: str, titles: Mapping[str, str]) -> str:
    """Return what a row is called."""
    peer = name.removesuffix(RAW)
    return titles.get(peer, peer) + (", raw body" if name != peer else "")


def best(values: Mapping[str, float | None], *, lowest: bool) -> str | None:
    """Return whose figure is best; None where nobody has one."""
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return None
    choose = min if lowest else max
    return choose(known, key=lambda name: known[name])


def cell_of(visit: Visit, form: Form, mode: str, connections: int) -> Cell | None:
    """Return one cell of a visit."""
    return next((one for one in visit.cells if one.key == (form, mode, connections)), None)


def _figure(
    form: Form, mode: str, connections: int, field: str, scale: float = 1
) -> Callable[[Visit], float | None]:
    """Return how a column is read from a visit; a cell with failures has no figure."""

    def read(visit: Visit) -> float | None:
        cell = cell_of(visit, form, mode, connections)
        if cell is None or cell.failures or not cell.requests_per_s:
            return None
        return float(getattr(cell, field)) * scale

    return read


def _rate(title: str, form: Form, connections: int) -> Column:
    def failed(visit: Visit) -> str:
        cell = cell_of(visit, form, "closed", connections)
        if cell is None:
            return ""
        reasons = ", ".join(f"{count:,} times {reason}" for reason, count in cell.failures.items())
        return f"failed: {reasons}" if reasons else "none answered"

    rate = _figure(form, "closed", connections, "requests_per_s")
    return Column(title, rate, False, instead=failed)


def _offered(connections: int) -> Callable[[Visit], str]:
    def text(visit: Visit) -> str:
        cell = cell_of(visit, "binary", "open", connections)
        return f" at {number(cell.offered_per_s)}/s" if cell is not None else ""

    return text


class Verdict(NamedTuple):
    """pyserve's figure over the best other's, as the median of the passes' ratios."""

    ratio: float
    ahead: bool
    other: str
    value: float

    def text(self, titles: Mapping[str, str]) -> str:
        """Return a cell of the table."""
        theirs = f"{title_of(self.other, titles)} {number(self.value)}"
        if self.ahead:
            return f"**{self.ratio:.2f}** of {theirs}"
        return f"{self.ratio:.2f} of **{theirs}**"


def verdict(rows: Sequence[Visit], column: Column, own: str, passes: int) -> Verdict | None:
    """Compare a figure of pyserve's row `own` with all others' for one model.

    None where a side has none.  The best other is chosen in each pass, among binary and raw bodies
    alike, so the ratio is never to somebody's worse minute or worse door.
    """
    ratios: list[float] = []
    others: dict[str, list[float]] = {}
    for turn in range(passes):
        values = {one.peer: column.value(one) for one in rows if one.turn == turn}
        mine = values.get(own)
        theirs = {
            name: value
            for name, value in values.items()
            if value is not None and name not in (OWN, OWN + RAW)
        }
        for name, value in theirs.items():
            others.setdefault(name, []).append(value)
        winner = best(theirs, lowest=column.lowest)
        if mine is not None and winner is not None:
            ratios.append(mine / theirs[winner])
    medians = {name: statistics.median(some) for name, some in others.items()}
    winner = best(medians, lowest=column.lowest)
    if not ratios or winner is None:
        return None
    ratio = statistics.median(ratios)
    ahead = ratio <= 1 if column.lowest else ratio >= 1
    return Verdict(ratio, ahead, winner, medians[winner])
