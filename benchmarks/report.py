"""The findings as JSON, as a Markdown table, and in the README between its two markers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.finding import Finding

FORMAT = 1
START = "<!-- results: written by python -m benchmarks.run --update-readme -->"
END = "<!-- end of results -->"


def document(
    findings: Sequence[Finding], *, machine: Mapping[str, object], command: str, options: object
) -> dict[str, Any]:
    """Return everything as JSON values."""
    return {
        "format": FORMAT,
        "command": command,
        "machine": dict(machine),
        "options": options,
        "findings": [one.as_json() for one in findings],
    }


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table, and beneath it what makes the figures mean something."""
    lines = [
        "| what | to reach | measured | runs | load by |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [_row(one) for one in results["findings"]]
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines += [
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}, {versions}. "
        f"Commit {machine['commit'] or 'unknown'}, {machine['date'][:10]}, load average before: "
        f"{machine['load_average']:.2f}. `{results['command']}`. "
        "Measured is the median; runs are the lowest and the highest repeat.",
        "",
        "What the figures were made from:",
        "",
    ]
    lines += [
        f"- `{one['key']}`: "
        + ", ".join(f"{name} {number(value)}" for name, value in one["details"].items())
        for one in results["findings"]
        if one["details"]
    ]
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Return a number with three or four digits that mean something."""
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def put_between_markers(page: str, table: str, *, start: str = START, end: str = END) -> str:
    """Return the page with the table in its place; ValueError where the markers are not."""
    head, found_start, rest = page.partition(start)
    _, found_end, tail = rest.partition(end)
    if not (found_start and found_end):
        raise ValueError(f"the page lacks {start} or {end}")
    return f"{head}{start}\n\n{table}\n{end}{tail}"


def update_readme(path: Path, results: Mapping[str, Any]) -> None:
    """Write the table into a README."""
    path.write_text(put_between_markers(path.read_text(), markdown(results)))


def _row(one: Mapping[str, Any]) -> str:
    unit = f" {one['unit']}" if one["unit"] else ""
    limit = f"{'≤' if one['at_most'] else '≥'} {one['limit']:g}{unit}"
    if one["value"] is None:
        return f"| {one['what']} | {limit} | none: {one['error']} | | |"
    measured = f"{number(one['value'])}{unit}"
    # Bold is what has been reached.
    measured = f"**{measured}**" if one["met"] else f"{measured} (not reached)"
    runs = f"{number(min(one['values']))} to {number(max(one['values']))}"
    return f"| {one['what']} | {limit} | {measured} | {runs} | {one['tool']} |"
