"""Latencies into percentiles, by HdrHistogram: three digits of precision at any size."""

import importlib
from collections.abc import Iterable
from typing import Any

from pyserve.bench.values import Latency
from pyserve.errors import ConfigError

_MAX_NS = 3600 * 1_000_000_000
_DIGITS = 3


def require_hdrhistogram() -> None:
    """Raise ConfigError, with what to install, where HdrHistogram is missing."""
    try:
        importlib.import_module("hdrh.histogram")
    except ImportError:
        raise ConfigError(
            "pyserve bench needs the hdrhistogram package: pip install 'pyserve[bench]'"
        ) from None


def summarise(latencies_ns: Iterable[int]) -> Latency:
    """Return the percentiles of latencies in nanoseconds."""
    return summarise_counted((value, 1) for value in latencies_ns)


def summarise_counted(values_and_counts: Iterable[tuple[int, int]]) -> Latency:
    """Return the percentiles of latencies in nanoseconds, each with how often it occurred."""
    require_hdrhistogram()
    from hdrh.histogram import HdrHistogram

    histogram: Any = HdrHistogram(1, _MAX_NS, _DIGITS)
    total = count = largest = 0
    for value, times in values_and_counts:
        value = min(max(value, 1), _MAX_NS)
        histogram.record_value(value, times)
        total += value * times
        count += times
        largest = max(largest, value)
    if count == 0:
        return Latency()

    def percentile_us(percentile: float) -> float:
        # A bucket is told by its upper end, which may lie beyond the largest value in it.
        return min(float(histogram.get_value_at_percentile(percentile)), largest) / 1000

    return Latency(
        count=count,
        mean=total / count / 1000,
        p50=percentile_us(50),
        p90=percentile_us(90),
        p99=percentile_us(99),
        p99_9=percentile_us(99.9),
        max=largest / 1000,
    )
