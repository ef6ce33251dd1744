"""The rows about deadlines: what counts as an overload, and what refusals are reported."""

import pytest

from benchmarks import deadlines
from pyserve.bench.processes import ChildFailed
from pyserve.bench.values import Latency, Measurement, Run


def measurement(failures: dict[str, int]) -> Measurement:
    statuses = {reason.removeprefix("status "): count for reason, count in failures.items()}
    run = Run(
        tool="tool",
        requests=10,
        seconds=1.0,
        failures=failures,
        by_status={status: Latency(count=count) for status, count in statuses.items()},
        details={f"service_p99_us {status}": 1500.0 for status in statuses},
    )
    return Measurement(name="overload", mode="open", runs=(run, run, run))


def test_refusals_by_queue_and_by_deadline_are_an_overload() -> None:
    overload = measurement({"status 429": 3, "status 504": 7})
    deadlines.check(overload)
    assert deadlines.refusals(overload) == {
        "refused_429": 3,
        "p99_ms_of_429": 1.5,
        "refused_504": 7,
        "p99_ms_of_504": 1.5,
    }


@pytest.mark.parametrize(
    ("failures", "message"),
    [({"status 429": 1, "status 500": 1}, "status 500"), ({}, "nothing was refused")],
)
def test_other_failures_and_no_refusals_at_all_are_no_figure(
    failures: dict[str, int], message: str
) -> None:
    with pytest.raises(ChildFailed, match=message):
        deadlines.check(measurement(failures))
