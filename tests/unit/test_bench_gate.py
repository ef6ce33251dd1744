"""The gate against slower code: what it compares, and that it fails when it must."""

import shutil
from pathlib import Path

import pytest

from benchmarks import bounds, gate
from benchmarks.bounds import Bound, Bounds, Measured

HERE = {"compiler": "c++ 12", "torch": "2.13"}
ELSEWHERE = {"compiler": "c++ 13", "torch": "2.13"}

COUNT = Measured("core ring", 1000.0)
RATIO = Measured("ratio http-tiny", 2.0, at_most=False, unit="")


def limits(**values: float) -> Bounds:
    """Bounds with a tolerance of 5 % for the two figures above."""
    names = {"count": COUNT.key, "ratio": RATIO.key}
    figures = {names[name]: Bound(value=value, tolerance=0.05) for name, value in values.items()}
    return Bounds(made_by=HERE, figures=figures)


@pytest.mark.parametrize(
    ("recorded", "word"),
    [(1000, "ok"), (953, "ok"), (952, "WORSE"), (1047, "ok"), (1100, "better")],
)
def test_count_is_compared_within_its_tolerance(recorded: float, word: str) -> None:
    assert bounds.judge(COUNT, limits(count=recorded), same_makers=True).word == word


@pytest.mark.parametrize(("recorded", "word"), [(2.0, "ok"), (2.2, "WORSE"), (1.8, "better")])
def test_ratio_that_should_be_large_is_worse_when_it_is_small(recorded: float, word: str) -> None:
    assert bounds.judge(RATIO, limits(ratio=recorded), same_makers=True).word == word


def test_figure_without_a_bound_is_new() -> None:
    assert bounds.judge(COUNT, Bounds(), same_makers=True).word == "new"


def test_counts_of_another_compiler_are_not_compared_and_ratios_are() -> None:
    other = limits(count=1, ratio=4)
    assert other.other_makers(ELSEWHERE) == ["compiler 'c++ 12' there, 'c++ 13' here"]
    assert bounds.judge(COUNT, other, same_makers=False).word == "not compared"
    assert bounds.judge(RATIO, other, same_makers=False).word == "WORSE"


def test_recording_keeps_other_figures_and_a_tolerance_set_by_hand() -> None:
    before = Bounds(
        made_by=HERE,
        figures={
            COUNT.key: Bound(value=5, tolerance=0.2),
            "core other": Bound(value=7, tolerance=0.05),
        },
    )
    after = bounds.recorded(before, [COUNT, RATIO], HERE)
    assert after.figures[COUNT.key] == Bound(value=1000, tolerance=0.2)
    assert after.figures["core other"] == before.figures["core other"]
    assert after.figures[RATIO.key] == Bound(value=2, tolerance=bounds.RATIO_TOLERANCE)


def test_recording_elsewhere_drops_the_counts_of_the_first_machine() -> None:
    before = Bounds(made_by=HERE, figures={"core other": Bound(value=7, tolerance=0.05)})
    after = bounds.recorded(before, [COUNT], ELSEWHERE)
    assert set(after.figures) == {COUNT.key}
    assert after.made_by == ELSEWHERE


def test_bounds_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "bounds.json"
    assert bounds.read(path) == Bounds()
    bounds.write(path, limits(count=3, ratio=4))
    assert bounds.read(path) == limits(count=3, ratio=4)


def test_table_names_what_was_measured_the_bound_and_the_difference() -> None:
    text = bounds.table([bounds.judge(COUNT, limits(count=800), same_makers=True)])
    for word in ("core ring", "1,000", "800", "+25.0%", "within 5%", "WORSE"):
        assert word in text


def test_gate_fails_when_an_operation_takes_more_than_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bounds.json"
    monkeypatch.setattr(gate, "measure", lambda parts, operations: [COUNT])
    assert gate.main(["--bounds", str(path), "--record"]) == 0
    assert gate.main(["--bounds", str(path)]) == 0
    slower = COUNT._replace(value=COUNT.value * 1.2)
    monkeypatch.setattr(gate, "measure", lambda parts, operations: [slower])
    capsys.readouterr()
    assert gate.main(["--bounds", str(path)]) == 1
    assert "slower than recorded: core ring" in capsys.readouterr().err


def test_gate_says_what_keeps_it_from_counting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    assert gate.main(["--bounds", str(tmp_path / "none"), "--only", "operations"]) == 0
    assert "skipped" in capsys.readouterr().err


def test_recorded_bounds_are_readable_and_name_their_makers() -> None:
    recorded = bounds.read(gate.BOUNDS)
    assert recorded.format == bounds.FORMAT
    assert {"compiler", "torch", "python"} <= set(recorded.made_by)
    assert all(bound.value > 0 and bound.tolerance > 0 for bound in recorded.figures.values())
