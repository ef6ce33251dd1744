"""What was measured as JSON, as tables, and in docs/performance.md between its two markers.

A row is a server; the best of a column is bold, and a server with failed requests is never best.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.peers.case import ModelCase
from benchmarks.peers.measure import BARE, EMPTY, FLOORS
from benchmarks.peers.peer import Environment, Form, Peer, Place
from benchmarks.peers.results import Cell, Log, Visit, median_visit
from benchmarks.report import number, put_between_markers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
START = "<!-- comparison: written by python -m benchmarks.peers --update-docs -->"
END = "<!-- end of comparison -->"

OWN = "pyserve"

_MIB = 1 << 20


class Column(NamedTuple):
    """A figure of a server: None where it has none."""

    title: str
    value: Callable[[Visit], float | None]
    lowest: bool
    after: Callable[[Visit], str] = lambda visit: ""


def document(
    log: Log,
    installed: Mapping[str, tuple[Peer, Environment]],
    cases: Mapping[str, ModelCase],
    missing: Mapping[str, str],
) -> dict[str, Any]:
    """Return everything as JSON values: the medians first, then the visits they come from."""
    good: dict[tuple[str, str], list[Visit]] = {}
    for visit in log.visits:
        if not visit.error:
            good.setdefault((visit.model, visit.peer), []).append(visit)
    settings = {
        name: {
            model: [list(one) for one in peer.settings(case, _nowhere(peer, place))]
            for model, case in cases.items()
        }
        for name, (peer, place) in installed.items()
    }
    return {
        "format": 1,
        "plan": msgspec.to_builtins(log.plan),
        "titles": {name: peer.title for name, (peer, _) in installed.items()},
        "packages": {name: list(peer.packages) for name, (peer, _) in installed.items()},
        "settings": settings,
        "missing": dict(missing),
        "medians": [msgspec.to_builtins(median_visit(visits)) for visits in good.values()],
        "visits": msgspec.to_builtins(log.visits),
    }


def _nowhere(peer: Peer, environment: Environment) -> Place:
    """Return a place for settings to be asked about: nothing is started in it."""
    return Place(environment=environment, folder=Path(), ports=(0,) * peer.port_count)


def in_short(visit: Visit) -> str:
    """Return a visit in a few words, for whoever waits."""
    if visit.floor:
        return f"{number(visit.floor['samples_per_s'])} samples/s"
    closed = [one for one in visit.cells if one.mode == "closed"]
    parts = [f"{one.form} {one.connections}: {number(one.requests_per_s)}/s" for one in closed]
    return f"started in {visit.cold_start_s:.2f} s; " + ", ".join(parts)


def markdown(results: Mapping[str, Any]) -> str:
    """Return all tables, and beneath them what makes the figures mean something."""
    plan = results["plan"]
    medians = [msgspec.convert(one, Visit) for one in results["medians"]]
    lines = ["### Against the best of the others", "", *_verdicts(results), ""]
    for model in plan["models"]:
        visits = {one.peer: one for one in medians if one.model == model}
        lines += [f"### {model}", "", *_table(results, model, visits), ""]
    lines += ["### Where and how", "", _where(results), "", "### Settings", ""]
    for name in results["titles"]:
        lines += _settings(results, name, medians)
    return "\n".join(lines).rstrip() + "\n"


def update(results: Mapping[str, Any], path: Path = PAGE) -> None:
    """Write the tables into the page."""
    text = put_between_markers(path.read_text(), markdown(results), start=START, end=END)
    path.write_text(text)


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


def _columns(plan: Mapping[str, Any]) -> list[Column]:
    connections: Sequence[int] = plan["connections"]
    most = max(connections)
    columns = [
        Column(f"requests/s, {n}", _figure("binary", "closed", n, "requests_per_s"), False)
        for n in connections
    ]
    columns += [
        Column(f"JSON, {n}", _figure("json", "closed", n, "requests_per_s"), False)
        for n in plan["json_connections"]
    ]
    for n in connections:
        if n in (min(connections), 32, most):
            columns += [
                Column(
                    f"{title} ms, {n}", _figure("binary", "closed", n, f"{title}_us", 1e-3), True
                )
                for title in ("p50", "p99")
            ]
    columns += [
        Column(
            f"{title} ms, open loop",
            _figure("binary", "open", most, f"{title}_us", 1e-3),
            True,
            _offered(most) if title == "p50" else lambda visit: "",
        )
        for title in ("p50", "p99")
    ]
    cpu = _figure("binary", "closed", most, "cpu_s_per_1000")
    return [
        *columns,
        Column("CPU s per 1,000", cpu, True),
        Column("MiB", lambda visit: visit.memory_bytes / _MIB or None, True),
        Column("cold start s", lambda visit: visit.cold_start_s or None, True),
    ]


def _offered(connections: int) -> Callable[[Visit], str]:
    def text(visit: Visit) -> str:
        cell = cell_of(visit, "binary", "open", connections)
        return f" at {number(cell.offered_per_s)}/s" if cell is not None else ""

    return text


def _table(results: Mapping[str, Any], model: str, visits: Mapping[str, Visit]) -> list[str]:
    """Return one model's table: servers by rows, floors last."""
    columns = _columns(results["plan"])
    servers = {name: visit for name, visit in visits.items() if name not in FLOORS}
    winners = [
        best({name: column.value(one) for name, one in servers.items()}, lowest=column.lowest)
        for column in columns
    ]
    lines = [
        "| server | " + " | ".join(column.title for column in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for name in [*results["titles"], EMPTY]:
        title = results["titles"].get(name, "*empty aiohttp handler*")
        if name in visits:
            texts = [
                _text(column, visits[name], winner == name)
                for column, winner in zip(columns, winners, strict=True)
            ]
            lines.append(f"| {title} | " + " | ".join(texts) + " |")
            lines += _raw_row(columns, title, visits[name], servers)
        elif name in results["titles"]:
            reason = _reason(results, model, name)
            lines.append(f"| {title} | none: {reason} |" + " |" * (len(columns) - 1))
    if BARE in visits:
        lines += ["", _bare(visits[BARE].floor)]
    return lines


def _text(column: Column, visit: Visit, wins: bool) -> str:
    value = column.value(visit)
    if value is None:
        return _failed(visit) if column.title.startswith("requests") else ""
    text = number(value)
    return f"{f'**{text}**' if wins else text}{column.after(visit)}"


def _failed(visit: Visit) -> str:
    failures: dict[str, int] = {}
    for cell in visit.cells:
        failures.update(cell.failures)
    return "failed: " + ", ".join(failures) if failures else ""


def _raw_row(
    columns: Sequence[Column], title: str, visit: Visit, servers: Mapping[str, Visit]
) -> list[str]:
    """Return a row for raw bodies where the server takes them: the same columns of that form."""
    raw = [msgspec.structs.replace(one, form="binary") for one in visit.cells if one.form == "raw"]
    if not raw or visit.peer not in servers:
        return []
    as_binary = msgspec.structs.replace(visit, cells=tuple(raw), memory_bytes=0, cold_start_s=0.0)
    texts = []
    for column in columns:
        value = column.value(as_binary)
        texts.append("" if value is None else number(value))
    return [f"| {title}, raw body | " + " | ".join(texts) + " |"]


def _bare(floor: Mapping[str, float]) -> str:
    form = "optimised for inference" if floor["optimized"] else "frozen"
    return (
        f"The bare module ({form}): at best {number(floor['samples_per_s'])} samples/s, in batches "
        f"of {floor['batch']:.0f} on {floor['instances']:.0f} by {floor['threads']:.0f} threads. "
        f"One row at a time: {number(floor['one_thread_per_s'])}/s on one thread "
        f"(p50 {number(floor['one_thread_p50_us'] / 1000)} ms), "
        f"{number(floor['all_threads_per_s'])}/s on all "
        f"(p50 {number(floor['all_threads_p50_us'] / 1000)} ms)."
    )


def _reason(results: Mapping[str, Any], model: str, name: str) -> str:
    for visit in results["visits"]:
        if visit["peer"] == name and visit["model"] == model and visit.get("error"):
            return _one_line(visit["error"])
    return "not measured"


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:160]


def _verdicts(results: Mapping[str, Any]) -> list[str]:
    """Return pyserve over the best other, as the median of the passes' ratios."""
    visits = [msgspec.convert(one, Visit) for one in results["visits"]]
    plan = results["plan"]
    lines = [
        "| what | model | pyserve | best other | pyserve ÷ best other |",
        "| --- | --- | ---: | --- | ---: |",
    ]
    for column in _columns(plan):
        for model in plan["models"]:
            some = [one for one in visits if one.model == model and one.peer not in FLOORS]
            line = _verdict(results, column, model, some)
            if line:
                lines.append(line)
    return lines


def _verdict(
    results: Mapping[str, Any], column: Column, model: str, visits: Sequence[Visit]
) -> str | None:
    ratios: list[float] = []
    own: list[float] = []
    others: dict[str, list[float]] = {}
    for turn in range(results["plan"]["passes"]):
        values = {one.peer: column.value(one) for one in visits if one.turn == turn}
        mine = values.pop(OWN, None)
        winner = best(values, lowest=column.lowest)
        for name, value in values.items():
            if value is not None:
                others.setdefault(name, []).append(value)
        if mine is not None and winner is not None:
            own.append(mine)
            ratios.append(mine / (values[winner] or mine))
    if not ratios:
        return None
    medians: dict[str, float | None] = {
        name: statistics.median(some) for name, some in others.items()
    }
    winner = best(medians, lowest=column.lowest)
    assert winner is not None
    ratio = statistics.median(ratios)
    ahead = ratio <= 1 if column.lowest else ratio >= 1
    title = results["titles"][winner]
    verdict = f"**{ratio:.2f}**" if ahead else f"{ratio:.2f}: {title} wins"
    return (
        f"| {column.title} | {model} | {number(statistics.median(own))} | "
        f"{number(medians[winner] or 0)} ({title}) | {verdict} |"
    )


def _where(results: Mapping[str, Any]) -> str:
    plan = results["plan"]
    machine = plan["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}, {versions}. Commit {machine['commit'] or 'unknown'}, "
        f"{machine['date'][:10]}, load average before: {machine['load_average']:.2f}. "
        f"`{plan['command']}`: medians of {plan['passes']} passes, {plan['seconds']:g} s a cell."
    )


def _settings(results: Mapping[str, Any], name: str, medians: Sequence[Visit]) -> list[str]:
    version = next((one.version for one in medians if one.peer == name), "")
    packages = " ".join(results["packages"][name])
    how = f": `pip install {packages}`" if packages else ""
    lines = [
        f"**{results['titles'][name]}** {version}{how}".replace("  ", " "),
        "",
        "| setting | value | why |",
        "| --- | --- | --- |",
    ]
    values: dict[tuple[str, str], dict[str, str]] = {}
    for model, settings in results["settings"][name].items():
        for setting, value, why in settings:
            values.setdefault((setting, why), {})[model] = value
    every = len(results["settings"][name])
    for (setting, why), by_model in values.items():
        lines.append(f"| {setting} | {_by_model(by_model, every)} | {why} |")
    return [*lines, ""]


def _by_model(values: Mapping[str, str], every: int) -> str:
    """Return one value where all models have the same, else each value with its models."""
    models: dict[str, list[str]] = {}
    for model, value in values.items():
        models.setdefault(value, []).append(model)
    if len(models) == 1 and len(values) == every:
        return next(iter(models))
    return "; ".join(f"{value} ({', '.join(some)})" for value, some in models.items())
