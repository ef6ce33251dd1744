"""What a benchmark yields: one `Run` per repeat, and a `Measurement` that sums up its runs.

The figures of a measurement are medians over its runs, so that one disturbed run does not show.
"""

import statistics

import msgspec


class Latency(msgspec.Struct, frozen=True, kw_only=True, rename={"p99_9": "p99.9"}):
    """Percentiles in microseconds, and how many values they sum up."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    p99_9: float = 0.0
    max: float = 0.0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One repeat.

    tool: what made the load.
    requests: those answered well; seconds: how long that took.
    failures: the others, by what became of them ("status 429", "disconnected", "unanswered").
    by_status: latencies of the answers by their HTTP status, where the tool tells them apart.
    details: figures that only some kinds of run have; the names carry the unit.
    """

    tool: str
    requests: int
    seconds: float
    latency_us: Latency = Latency()
    failures: dict[str, int] = {}
    by_status: dict[str, Latency] = {}
    details: dict[str, float] = {}

    @property
    def rate(self) -> float:
        """Good answers (or samples, for the bare module) per second."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one thing measured.

    mode: floor, in-process, closed or open.
    settings: what distinguishes it from its neighbours, such as the number of connections.
    floor: the name of the measurement that says what was possible, "" if none does.
    """

    name: str
    mode: str
    runs: tuple[Run, ...]
    settings: dict[str, str | int | float] = {}
    floor: str = ""

    @property
    def rate(self) -> float:
        """The median of the runs' rates."""
        return statistics.median(run.rate for run in self.runs)

    @property
    def latency_us(self) -> Latency:
        """The median of every percentile over the runs; `count` is that of all runs together."""
        fields = [name for name in Latency.__struct_fields__ if name != "count"]
        medians = {
            name: statistics.median(getattr(run.latency_us, name) for run in self.runs)
            for name in fields
        }
        return Latency(count=sum(run.latency_us.count for run in self.runs), **medians)

    @property
    def failures(self) -> dict[str, int]:
        """What went wrong, over all runs."""
        total: dict[str, int] = {}
        for run in self.runs:
            for reason, count in run.failures.items():
                total[reason] = total.get(reason, 0) + count
        return total

    @property
    def tool(self) -> str:
        """What made the load."""
        return self.runs[0].tool

    def detail(self, name: str) -> float:
        """Return the median of one of the runs' details."""
        return statistics.median(run.details[name] for run in self.runs)

    def as_json(self) -> dict[str, object]:
        """Return the medians, then the runs that they come from."""
        return {
            "name": self.name,
            "mode": self.mode,
            "settings": self.settings,
            "floor": self.floor,
            "tool": self.tool,
            "requests_per_s": self.rate,
            "latency_us": msgspec.to_builtins(self.latency_us),
            "failures": self.failures,
            "runs": [{**msgspec.to_builtins(run), "requests_per_s": run.rate} for run in self.runs],
        }
