"""What is measured, and the order: repeats interleave, so that a slow minute slows everything."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from pyserve.bench.processes import Child, ChildFailed
from pyserve.bench.values import Measurement, Run

Progress = Callable[[str, float], None]

# Beyond what an order was asked to take: the bare module tries all its settings at first.
_ORDER_PATIENCE_S = 600.0


class Probe(NamedTuple):
    """One thing to measure: `run(seconds)` does it once."""

    name: str
    mode: str
    run: Callable[[float], Run]
    settings: Mapping[str, str | int | float] = MappingProxyType({})
    floor: str = ""


def interleave(
    probes: Sequence[Probe],
    *,
    repeats: int,
    seconds: float,
    warm_up_s: float,
    progress: Progress = lambda text, fraction: None,
) -> list[Measurement]:
    """Warm every probe up once, then measure each `repeats` times, turn and turn about."""
    steps = len(probes) * (repeats + 1)
    runs: list[list[Run]] = [[] for _ in probes]
    for step in range(steps):
        turn, index = divmod(step, len(probes))
        probe = probes[index]
        what = f"repeat {turn} of {repeats}" if turn else "warm-up"
        progress(f"{probe.name} ({what})", step / steps)
        if turn:
            runs[index].append(probe.run(seconds))
        else:
            probe.run(warm_up_s)
    progress("done", 1.0)
    return [
        Measurement(
            name=probe.name,
            mode=probe.mode,
            settings=dict(probe.settings),
            floor=probe.floor,
            runs=tuple(some),
        )
        for probe, some in zip(probes, runs, strict=True)
    ]


class Worker(Child):
    """The process of `worker.py`, seen from the one that drives it."""

    def __init__(self, path: Path, *, rows: int = 1, settings: Sequence[str] = ()) -> None:
        module = "pyserve.bench.worker"
        command = [sys.executable, "-m", module, str(path), str(rows), *settings]
        super().__init__("the benchmark's worker", command, stdin=True)

    @property
    def cpus(self) -> int:
        """How many CPUs the engine, and so the bare module, may use."""
        return int(self.ready["cpus"])

    def order(self, name: str, seconds: float, **options: int) -> Run:
        """Have one thing measured."""
        self.write_line({"order": name, "seconds": seconds, **options})
        answer = self.read_line(seconds + _ORDER_PATIENCE_S)
        if "error" in answer:
            raise ChildFailed(str(answer["error"]))
        return msgspec.convert(answer, Run)

    def probe(self, name: str, mode: str, order: str, *, floor: str = "", **options: int) -> Probe:
        """Return a probe that gives one order."""
        return Probe(
            name, mode, lambda seconds: self.order(order, seconds, **options), {**options}, floor
        )
