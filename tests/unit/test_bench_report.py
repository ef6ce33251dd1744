"""The table that goes into benchmarks/README.md."""

import pytest

from benchmarks import report
from benchmarks.finding import Finding
from benchmarks.run import README

MACHINE = {
    "cpu": "A processor",
    "cores": 2,
    "system": "Linux 6",
    "python": "3.11",
    "versions": {"torch": "2.13"},
    "commit": "abc",
    "date": "2026-01-02T03:04:05+00:00",
    "load_average": 0.1,
}
LINE = Finding(key="key", what="what", limit=0.9, at_most=False, unit="ms")


def table(*findings: Finding) -> str:
    results = report.document(findings, machine=MACHINE, command="the command", options={})
    return report.markdown(results)


def test_table_says_what_was_reached_and_what_was_not() -> None:
    reached = LINE.with_values([0.8, 1.234, 2.0], tool="wrk", details={"peak_per_s": 12345.6})
    text = table(reached, LINE.with_values([0.5], tool="wrk"))
    assert "| what | ≥ 0.9 ms | **1.23 ms** | 0.8 to 2 | wrk |" in text
    assert "| what | ≥ 0.9 ms | 0.5 ms (not reached) | 0.5 to 0.5 | wrk |" in text
    assert "`key`: peak_per_s 12,346" in text


def test_table_names_machine_commit_and_command() -> None:
    text = table(LINE.with_values([1], tool="wrk"))
    for fact in ("A processor", "2 cores", "Commit abc", "2026-01-02", "`the command`"):
        assert fact in text


def test_line_that_could_not_be_measured_says_why() -> None:
    failed = Finding(key="key", what="what", limit=1, at_most=True, error="no wrk")
    assert "| what | ≤ 1 | none: no wrk | | |" in table(failed)


def test_readme_is_changed_between_its_markers_alone() -> None:
    readme = f"before\n{report.START}\nold\n{report.END}\nafter\n"
    once = report.put_between_markers(readme, "new\n")
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "new" in once
    assert "old" not in once
    assert report.put_between_markers(once, "new\n") == once


def test_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks"):
        report.put_between_markers("nothing here", "new")


def test_the_readme_has_its_markers() -> None:
    report.put_between_markers(README.read_text(), "")
