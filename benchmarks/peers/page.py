"""What was measured as JSON, as tables, and in docs/performance.md between its two markers.

A row is a server; the best of a column is bold, and a server with failed requests is never best.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.peers.case import ModelCase
from benchmarks.peers.columns import (
    OWN,
    RAW,
    Column,
    best,
    columns_of,
    rows_of,
    title_of,
    verdict,
)
from benchmarks.peers.measure import BARE, EMPTY, FLOORS
from benchmarks.peers.peer import Environment, Peer, Place
from benchmarks.peers.results import Log, Plan, Visit, median_visit
from benchmarks.report import number, put_between_markers

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
START = "<!-- comparison: written by python -m benchmarks.peers --update-docs -->"
END = "<!-- end of comparison -->"
CHART_LINK = "images/peers.svg"


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
    lines = [f"![requests per second by model and server]({CHART_LINK})", ""]
    lines += [f"### {OWN} over the best of the others", "", *_verdicts(results), ""]
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


def _table(results: Mapping[str, Any], model: str, visits: Mapping[str, Visit]) -> list[str]:
    """Return one model's table: servers by rows, floors last."""
    columns = columns_of(msgspec.convert(results["plan"], Plan))
    titles = results["titles"]
    rows = {one.peer: one for one in rows_of(visits.values())}
    servers = {name: row for name, row in rows.items() if name not in FLOORS}
    winners = [
        best({name: column.value(one) for name, one in servers.items()}, lowest=column.lowest)
        for column in columns
    ]
    lines = [
        "| server | " + " | ".join(column.title for column in columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for name in (name for peer in titles for name in (peer, peer + RAW)):
        title = title_of(name, titles)
        if name in rows:
            texts = [
                _text(column, rows[name], winner == name)
                for column, winner in zip(columns, winners, strict=True)
            ]
            failed = _failed_passes(results, model, name)
            lines.append(f"| {title}{failed} | " + " | ".join(texts) + " |")
        elif name in titles:
            reason = _reason(results, model, name)
            lines.append(f"| {title} | none: {reason} |" + " |" * (len(columns) - 1))
    if EMPTY in rows:
        texts = [_text(column, rows[EMPTY], False) for column in columns]
        lines.append("| *empty aiohttp handler* | " + " | ".join(texts) + " |")
    if BARE in visits:
        lines += ["", _bare(visits[BARE].floor)]
    return lines


def _text(column: Column, visit: Visit, wins: bool) -> str:
    value = column.value(visit)
    if value is None:
        return column.instead(visit)
    text = number(value)
    return f"{f'**{text}**' if wins else text}{column.after(visit)}"


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


def _failed_passes(results: Mapping[str, Any], model: str, name: str) -> str:
    """Say so where the medians leave a pass out."""
    reasons = [
        one["error"]
        for one in results["visits"]
        if (one["peer"], one["model"]) == (name, model) and one.get("error")
    ]
    passes = results["plan"]["passes"]
    return f" ({len(reasons)} of {passes} passes: {_one_line(reasons[0])})" if reasons else ""


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:160]


def _verdicts(results: Mapping[str, Any]) -> list[str]:
    """Return pyserve over the best other for every figure; who wins is bold."""
    visits = [msgspec.convert(one, Visit) for one in results["visits"]]
    rows = rows_of(one for one in visits if one.peer not in FLOORS)
    plan = msgspec.convert(results["plan"], Plan)
    columns = columns_of(plan)
    compared = [(one, OWN) for one in columns]
    compared += [(one, OWN + RAW) for one in columns if not one.lowest]
    lines = [f"| | {' | '.join(plan.models)} |", "| --- |" + " --- |" * len(plan.models)]
    for column, own in compared:
        texts = []
        for model in plan.models:
            some = [one for one in rows if one.model == model]
            found = verdict(some, column, own, plan.passes)
            texts.append(found.text(results["titles"]) if found else "")
        if any(texts):
            form = ", raw body" if own != OWN else ""
            lines.append(f"| {column.title}{form} | {' | '.join(texts)} |")
    return lines


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
