"""What the gate compares with: recorded figures, for whom they hold, and the verdicts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

FORMAT = 1

# Callgrind's counts differ by less than 1 % from run to run.
INSTRUCTIONS_TOLERANCE = 0.05
# A busy machine moves a ratio of neighbours in time by this much and more; what the ratios are
# here for, a path that has become twice as slow, moves it further.
RATIO_TOLERANCE = 0.35


class Measured(NamedTuple):
    """One figure of a run.  at_most: less is better.  unit: instructions, or "" for a ratio."""

    key: str
    value: float
    at_most: bool = True
    unit: str = "instructions"

    @property
    def portable(self) -> bool:
        """Whether it may be compared with another machine's."""
        return not self.unit


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded figure, and by which part of it a new one may be worse."""

    value: float
    tolerance: float


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """All recorded figures.  made_by: what decides how many instructions an operation takes."""

    format: int = FORMAT
    made_by: dict[str, str] = {}
    figures: dict[str, Bound] = {}

    def other_makers(self, here: Mapping[str, str]) -> list[str]:
        """Return how what the bounds were recorded with differs from what is here."""
        names = sorted({*self.made_by, *here})
        return [
            f"{name} {self.made_by.get(name, 'none')!r} there, {here.get(name, 'none')!r} here"
            for name in names
            if self.made_by.get(name) != here.get(name)
        ]


Word = Literal["ok", "WORSE", "better", "new", "not compared"]


class Verdict(NamedTuple):
    """A figure, its bound if it has one, and by which part it is worse (negative: better)."""

    measured: Measured
    bound: Bound | None
    worse_by: float
    word: Word


def judge(measured: Measured, bounds: Bounds, *, same_makers: bool) -> Verdict:
    """Compare a figure with its bound."""
    bound = bounds.figures.get(measured.key)
    if bound is None:
        return Verdict(measured, None, 0.0, "new")
    change = measured.value / bound.value - 1
    worse_by = change if measured.at_most else bound.value / measured.value - 1
    if not (same_makers or measured.portable):
        return Verdict(measured, bound, worse_by, "not compared")
    if worse_by > bound.tolerance:
        return Verdict(measured, bound, worse_by, "WORSE")
    return Verdict(measured, bound, worse_by, "better" if worse_by < -bound.tolerance else "ok")


def recorded(bounds: Bounds, found: Sequence[Measured], here: Mapping[str, str]) -> Bounds:
    """Return the bounds with new figures in place of the old.

    Counts of other makers are dropped where new ones come: one file holds for one machine.
    """
    counted = any(not one.portable for one in found)
    kept = dict(bounds.figures)
    if counted and bounds.other_makers(here):
        kept = {}
    for one in found:
        old = kept.get(one.key)
        usual = RATIO_TOLERANCE if one.portable else INSTRUCTIONS_TOLERANCE
        kept[one.key] = Bound(
            value=float(f"{one.value:.5g}"), tolerance=old.tolerance if old is not None else usual
        )
    makers = dict(here) if counted else bounds.made_by
    return Bounds(made_by=makers, figures=dict(sorted(kept.items())))


def read(path: Path) -> Bounds:
    """Return the bounds in a file; none where there is no file."""
    if not path.exists():
        return Bounds()
    return msgspec.json.decode(path.read_bytes(), type=Bounds)


def write(path: Path, bounds: Bounds) -> None:
    """Write the bounds into a file."""
    path.write_text(json.dumps(msgspec.to_builtins(bounds), indent=2) + "\n")


def table(verdicts: Sequence[Verdict]) -> str:
    """Return a line for every figure: what, measured, recorded, by how much it is off, verdict."""
    width = max((len(one.measured.key) for one in verdicts), default=0)
    return "\n".join(f"{one.measured.key:<{width}}  {_line(one)}" for one in verdicts)


def _line(one: Verdict) -> str:
    value = _number(one.measured)
    unit = one.measured.unit or "ratio"
    if one.bound is None:
        return f"{value:>12} {unit:<12}  no bound yet: --record writes one"
    bound = _number(one.measured._replace(value=one.bound.value))
    allowed = f"within {one.bound.tolerance:.0%}"
    return (
        f"{value:>12} {unit:<12}  recorded {bound:>10}  worse by {one.worse_by:+7.1%} "
        f"({allowed})  {one.word}"
    )


def _number(one: Measured) -> str:
    return f"{one.value:,.0f}" if one.unit else f"{one.value:.2f}"
