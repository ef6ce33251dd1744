"""What the benchmark computes: schedules, percentiles, medians, ratios."""

import itertools
import statistics

import pytest

from benchmarks.finding import Finding, ratios
from pyserve.bench.percentiles import summarise, summarise_counted
from pyserve.bench.report import of_floor
from pyserve.bench.schedule import poisson_schedule
from pyserve.bench.values import Latency, Measurement, Run


def test_poisson_schedule_has_the_rate_asked_for_and_is_in_order() -> None:
    instants = poisson_schedule(1000, 20, seed=1, limit=10**6)
    # A count of 20,000 has a standard deviation of 141.
    assert abs(len(instants) - 20_000) < 5 * 141
    assert instants == sorted(instants)
    assert instants[0] >= 0 and instants[-1] < 20e9


def test_poisson_gaps_are_exponential_and_not_even() -> None:
    instants = poisson_schedule(1000, 20, seed=2, limit=10**6)
    gaps = [after - before for before, after in itertools.pairwise(instants)]
    mean = statistics.mean(gaps)
    # An exponential distribution's deviation is its mean, its median 0.69 of it.
    assert statistics.stdev(gaps) == pytest.approx(mean, rel=0.05)
    assert statistics.median(gaps) == pytest.approx(0.693 * mean, rel=0.05)


def test_poisson_schedule_is_told_by_its_seed() -> None:
    first = poisson_schedule(100, 1, seed=7, limit=1000)
    assert first == poisson_schedule(100, 1, seed=7, limit=1000)
    assert first != poisson_schedule(100, 1, seed=8, limit=1000)


def test_poisson_schedule_keeps_to_its_limit() -> None:
    assert len(poisson_schedule(1000, 100, seed=0, limit=10)) == 10


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1, 0)])
def test_poisson_schedule_refuses_what_never_arrives(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        poisson_schedule(rate, seconds, seed=0, limit=1)


def test_percentiles_are_those_of_the_values_to_three_digits() -> None:
    latency = summarise(microseconds * 1000 for microseconds in range(1, 10_001))
    assert latency.count == 10_000
    assert latency.mean == pytest.approx(5000.5)
    assert latency.p50 == pytest.approx(5000, rel=2e-3)
    assert latency.p90 == pytest.approx(9000, rel=2e-3)
    assert latency.p99 == pytest.approx(9900, rel=2e-3)
    assert latency.p99_9 == pytest.approx(9990, rel=2e-3)
    assert latency.max == 10_000


def test_one_stall_among_thousands_shows_in_the_maximum_and_not_in_the_median() -> None:
    latency = summarise([20_000] * 9999 + [5_000_000_000])
    assert latency.p50 == pytest.approx(20, rel=2e-3)
    assert latency.p99_9 == pytest.approx(20, rel=2e-3)
    assert latency.max == 5_000_000


def test_counted_values_weigh_as_often_as_they_occurred() -> None:
    assert summarise_counted([(1000, 99), (9000, 1)]) == summarise([1000] * 99 + [9000])


def test_no_values_make_no_percentiles() -> None:
    assert summarise([]) == Latency()


def test_percentiles_are_never_above_the_largest_value() -> None:
    latency = summarise([1_234_567])
    assert latency.p50 == latency.p99_9 == latency.max == pytest.approx(1234.567)


def run(rate: float, **latencies: float) -> Run:
    return Run(
        tool="test", requests=int(rate), seconds=1.0, latency_us=Latency(count=1, **latencies)
    )


def measured(name: str, *runs: Run, floor: str = "") -> Measurement:
    return Measurement(name=name, mode="closed", runs=runs, floor=floor)


def test_measurement_is_the_median_of_its_runs() -> None:
    one = measured("x", run(10, p50=3), run(30, p50=1), run(1000, p50=900))
    assert one.rate == 30
    assert one.latency_us.p50 == 3
    assert one.latency_us.count == 3


def test_ratio_to_the_floor_compares_neighbours_in_time() -> None:
    # The machine was ten times slower in the second repeat: each repeat still says one half.
    floor = measured("floor", run(100), run(10), run(100))
    one = measured("x", run(50), run(5), run(50), floor="floor")
    assert of_floor(one, [floor, one]) == 0.5
    assert of_floor(floor, [floor, one]) is None


def test_failures_of_all_runs_are_added_up() -> None:
    bad = Run(tool="test", requests=0, seconds=1.0, failures={"status 429": 2})
    assert measured("x", bad, run(1), bad).failures == {"status 429": 4}


def test_json_of_a_measurement_has_the_medians_and_every_run() -> None:
    value = measured("x", run(10, p50=3), run(30, p50=1)).as_json()
    assert value["requests_per_s"] == 20
    assert isinstance(value["latency_us"], dict)
    assert value["latency_us"]["p50"] == 2
    assert "p99.9" in value["latency_us"]
    assert isinstance(value["runs"], list)
    assert [one["requests_per_s"] for one in value["runs"]] == [10, 30]


@pytest.mark.parametrize(
    ("values", "at_most", "met"),
    [
        ((0.8, 0.9, 2.0), False, True),
        ((0.8,), False, False),
        ((0.9,), True, True),
        ((), True, False),
    ],
)
def test_finding_is_met_by_the_median(values: tuple[float, ...], at_most: bool, met: bool) -> None:
    line = Finding(key="k", what="w", limit=0.9, at_most=at_most)
    assert line.with_values(values, tool="t").met is met


def test_ratios_need_a_partner_for_every_repeat() -> None:
    assert ratios([2, 9], [1, 3]) == [2, 3]
    with pytest.raises(ValueError, match="zip"):
        ratios([1], [1, 2])
