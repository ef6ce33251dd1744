"""What was measured: one visit per pass, model and server, a line of JSON each as it is made.

A run that was cut off goes on with `--resume`: visits that are in the file are not made again.
"""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from benchmarks.peers.peer import Form
from pyserve.bench.values import Run
from pyserve.errors import ConfigError

_CELL_FIGURES = (
    "requests_per_s",
    "p50_us",
    "p99_us",
    "cpu_s_per_1000",
    "generator_cpu_s_per_1000",
    "offered_per_s",
)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one server.

    mode: "closed" keeps connections busy, "open" sends at a rate whether or not answers come, and
    its latencies count from the instant at which a request should have left.
    """

    form: Form
    mode: str
    connections: int
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_s_per_1000: float
    generator_cpu_s_per_1000: float
    offered_per_s: float = 0.0
    failures: dict[str, int] = {}

    @property
    def key(self) -> tuple[Form, str, int]:
        """What tells a cell from the others of its visit."""
        return self.form, self.mode, self.connections


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """One server, started for one model in one pass, measured and stopped.

    error: why there is nothing else, "" if there is.  floor: figures of the bare module.
    """

    turn: int
    model: str
    peer: str
    version: str = ""
    cold_start_s: float = 0.0
    memory_bytes: int = 0
    cells: tuple[Cell, ...] = ()
    floor: dict[str, float] = {}
    error: str = ""

    @property
    def key(self) -> tuple[int, str, str]:
        """What tells a visit from all others of a run."""
        return self.turn, self.model, self.peer


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measures: the first line of its file.  Resuming wants the same."""

    models: tuple[str, ...]
    peers: tuple[str, ...]
    passes: int
    seconds: float
    warm_up_s: float
    connections: tuple[int, ...]
    json_connections: tuple[int, ...]
    command: str = ""
    machine: dict[str, object] = {}

    def goes_on(self, other: "Plan") -> bool:
        """Whether the visits of another plan's run are as good as this one's."""
        same = msgspec.structs.replace(other, command=self.command, machine=self.machine)
        commits = self.machine.get("commit"), other.machine.get("commit")
        return same == self and commits[0] == commits[1]


class Log:
    """The file of a run: its plan, then its visits, each whole or not there."""

    def __init__(self, path: Path, plan: Plan, *, resume: bool) -> None:
        self._path = path
        self.plan = plan
        self.visits: list[Visit] = []
        if resume and path.is_file():
            self.plan, self.visits = read(path)
            if not plan.goes_on(self.plan):
                raise ConfigError(f"{path} holds a run with other options or of another commit")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written anew without the line that the cut may have left half done.
        lines = [msgspec.json.encode(one) for one in (self.plan, *self.visits)]
        path.write_bytes(b"".join(line + b"\n" for line in lines))

    def has(self, key: tuple[int, str, str]) -> bool:
        """Whether a visit has been made, and not in vain."""
        return any(one.key == key for one in self.visits)

    def add(self, visit: Visit) -> None:
        """Keep a visit."""
        self.visits.append(visit)
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(visit) + b"\n")


def read(path: Path) -> tuple[Plan, list[Visit]]:
    """Return a file's plan and its good visits; ConfigError where there is no plan."""
    lines = path.read_bytes().splitlines()
    try:
        plan = msgspec.json.decode(lines[0], type=Plan)
    except (IndexError, msgspec.DecodeError):
        raise ConfigError(f"{path} does not begin with a plan") from None
    visits = []
    for line in lines[1:]:
        try:
            visit = msgspec.json.decode(line, type=Visit)
        except msgspec.DecodeError:  # cut in the middle
            continue
        if not visit.error:
            visits.append(visit)
    return plan, visits


def cell_of(
    run: Run, form: Form, mode: str, connections: int, server_cpu_s: float, offered: float = 0.0
) -> Cell:
    """Return a run as a cell."""
    thousands = max(run.requests, 1) / 1000
    return Cell(
        form=form,
        mode=mode,
        connections=connections,
        requests_per_s=run.rate,
        p50_us=run.latency_us.p50,
        p99_us=run.latency_us.p99,
        cpu_s_per_1000=server_cpu_s / thousands,
        generator_cpu_s_per_1000=run.details.get("generator_cpu_s", 0.0) / thousands,
        offered_per_s=offered,
        failures=run.failures,
    )


def median_cell(cells: Sequence[Cell]) -> Cell:
    """Return the median of every figure, and all failures together."""
    medians = {
        name: statistics.median(getattr(one, name) for one in cells) for name in _CELL_FIGURES
    }
    failures: dict[str, int] = {}
    for one in cells:
        for reason, count in one.failures.items():
            failures[reason] = failures.get(reason, 0) + count
    return msgspec.structs.replace(cells[0], failures=failures, **medians)


def median_visit(visits: Iterable[Visit]) -> Visit:
    """Return the medians over the passes of one server with one model."""
    good = [one for one in visits if not one.error]
    cells: dict[tuple[Form, str, int], list[Cell]] = {}
    for visit in good:
        for cell in visit.cells:
            cells.setdefault(cell.key, []).append(cell)
    floor = {
        name: statistics.median(one.floor[name] for one in good if name in one.floor)
        for name in good[0].floor
    }
    return msgspec.structs.replace(
        good[0],
        cold_start_s=statistics.median(one.cold_start_s for one in good),
        memory_bytes=round(statistics.median(one.memory_bytes for one in good)),
        cells=tuple(median_cell(some) for some in cells.values()),
        floor=floor,
    )
