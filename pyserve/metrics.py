"""Prometheus metrics: read from the core's counters when a scraper asks, never pushed.

Histograms keep their buckets, so that several servers' figures can be added up.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pyserve.messages import Histogram, VersionStats

Responses = Callable[[], Iterable[tuple[str, int, int]]]
"""Route, status and how many answers were given, for every pair that occurred."""

GrpcResponses = Mapping[tuple[str, str], int]
"""How many answers over gRPC there were, by method and status."""

_MODEL = ("model", "version")
_HISTOGRAMS = (
    ("pyserve_request_seconds", "Admission to completion of a request", "request_seconds"),
    ("pyserve_queue_seconds", "Admission until the batch was formed", "queue_seconds"),
    ("pyserve_copy_in_seconds", "Gathering a batch's rows", "copy_in_seconds"),
    ("pyserve_compute_seconds", "One call of the model", "compute_seconds"),
    ("pyserve_copy_out_seconds", "Splitting a batch's outputs", "copy_out_seconds"),
    ("pyserve_batch_size", "Rows of one call of the model", "batch_size"),
)


class LiveStats(NamedTuple):
    """One live version of a model, and what it has done."""

    name: str
    version: str
    stats: VersionStats


class Metrics:
    """Everything under `/metrics`."""

    def __init__(
        self,
        live: Callable[[], Iterable[LiveStats]],
        responses: Responses,
        *,
        version: str,
        grpc_responses: GrpcResponses | None = None,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(_Collector(live, responses, version, grpc_responses))

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, in the form the Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Collector(Collector):
    def __init__(
        self,
        live: Callable[[], Iterable[LiveStats]],
        responses: Responses,
        version: str,
        grpc_responses: GrpcResponses | None,
    ) -> None:
        self._grpc_responses = grpc_responses
        self._live = live
        self._responses = responses
        self._version = version

    def collect(self) -> Iterator[Metric]:
        versions = list(self._live())
        info = GaugeMetricFamily("pyserve_build_info", "This build of pyserve", labels=["version"])
        info.add_metric([self._version], 1)
        yield info
        yield from _counters(versions)
        yield from _gauges(versions)
        for name, text, field in _HISTOGRAMS:
            family = HistogramMetricFamily(name, text, labels=_MODEL)
            for one in versions:
                buckets, total = _cumulative(getattr(one.stats, field))
                family.add_metric([one.name, one.version], buckets, total)
            yield family
        answers = CounterMetricFamily(
            "pyserve_http_responses", "Answers over HTTP", labels=["route", "status"]
        )
        for route, status, count in self._responses():
            answers.add_metric([route, str(status)], count)
        yield answers
        if self._grpc_responses is not None:
            yield _grpc_answers(self._grpc_responses)


def _grpc_answers(responses: GrpcResponses) -> Metric:
    answers = CounterMetricFamily(
        "pyserve_grpc_responses", "Answers over gRPC", labels=["method", "code"]
    )
    for (method, code), count in list(responses.items()):
        answers.add_metric([method, code], count)
    return answers


def _counters(versions: list[LiveStats]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "pyserve_requests", "Requests by how they ended", labels=[*_MODEL, "outcome"]
    )
    rows = CounterMetricFamily("pyserve_rows", "Rows that were run", labels=_MODEL)
    batches = CounterMetricFamily("pyserve_batches", "Calls of the model", labels=_MODEL)
    for one in versions:
        labels = [one.name, one.version]
        requests.add_metric([*labels, "success"], one.stats.success_count)
        for outcome, count in one.stats.failure_counts.items():
            requests.add_metric([*labels, outcome], count)
        rows.add_metric(labels, one.stats.inference_count)
        batches.add_metric(labels, one.stats.execution_count)
    return iter((requests, rows, batches))


def _gauges(versions: list[LiveStats]) -> Iterator[Metric]:
    queued = GaugeMetricFamily("pyserve_queued", "Requests waiting for a batch", labels=_MODEL)
    in_flight = GaugeMetricFamily(
        "pyserve_in_flight", "Requests admitted and not completed", labels=_MODEL
    )
    row_limit = GaugeMetricFamily(
        "pyserve_row_limit",
        "Rows of a batch that memory has room for; 0: all",
        labels=_MODEL,
    )
    for one in versions:
        queued.add_metric([one.name, one.version], one.stats.queued)
        in_flight.add_metric([one.name, one.version], one.stats.in_flight)
        row_limit.add_metric([one.name, one.version], one.stats.row_limit)
    return iter((queued, in_flight, row_limit))


def _cumulative(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Return Prometheus' buckets, where each one counts all that are not above its bound."""
    # Nine digits: a bound such as 25 us must not read 2.5000000000000001e-05.
    names = [f"{bound:.9g}" for bound in histogram.bounds] + ["+Inf"]
    return list(zip(names, map(float, accumulate(histogram.counts)), strict=True)), histogram.sum
