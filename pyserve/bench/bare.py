"""The floor under every model server: the bare TorchScript module, called from Python.

The file is loaded as anyone would, then frozen, and once more optimised for inference; whichever
is faster counts.  Only a worker process of the benchmark imports this, for it imports torch.
"""

import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyserve.bench.percentiles import summarise
from pyserve.bench.values import Run
from pyserve.messages import InputTensor
from pyserve.scripting import quiet_torchscript
from pyserve.signature import DTYPES, decode_bytes_elements

TOOL = "python"

_WARM_UP_CALLS = 5
_SCAN_S = 0.1
_SCAN_CALLS = 3
# So many of the fastest settings of the scan are measured again in every repeat.
_FINALISTS = 3


class Setting(NamedTuple):
    """One way to run the bare module: which form, on how many threads of whose, which batch."""

    form: str
    instances: int
    threads: int
    batch: int


def to_torch(tensor: InputTensor) -> Any:
    """Return an input as the module takes it."""
    if tensor.datatype == "BYTES":
        return [one.decode() for one in decode_bytes_elements(bytes(tensor.data))]
    dtype = getattr(torch, str(DTYPES[tensor.datatype].torch))
    return torch.frombuffer(bytearray(tensor.data), dtype=dtype).reshape(tensor.shape)


class Bare:
    """The module of one file.  `inputs` is a request; `batched`: its rows can be multiplied."""

    def __init__(self, path: Path, inputs: Sequence[InputTensor], *, batched: bool) -> None:
        self._inputs = [to_torch(one) for one in inputs]
        self._batched = batched
        self._forms: dict[str, Callable[..., Any]] = {}
        load: Callable[[str], Any] = torch.jit.load  # torch gives it no types
        with quiet_torchscript():
            self._forms["frozen"] = torch.jit.freeze(load(str(path)).eval())
            with contextlib.suppress(RuntimeError):  # some modules cannot be
                optimized = torch.jit.optimize_for_inference(load(str(path)).eval())
                self._forms["optimize_for_inference"] = optimized
        self._fastest_call: str | None = None
        self._finalists: dict[tuple[int, int], list[Setting]] = {}

    def call(self, seconds: float, *, threads: int, max_requests: int) -> Run:
        """Call `m(x)` one request after the other, with so many threads inside its operators."""
        torch.set_num_threads(threads)
        inputs = self._inputs
        if self._fastest_call is None:
            self._fastest_call = min(self._forms, key=self._median_call_ns)
        module = self._forms[self._fastest_call]
        clock = time.perf_counter_ns
        latencies: list[int] = []
        with torch.inference_mode():
            for _ in range(_WARM_UP_CALLS):
                module(*inputs)
            started = before = clock()
            end = started + int(seconds * 1e9)
            while before < end and len(latencies) < max_requests:
                module(*inputs)
                now = clock()
                latencies.append(now - before)
                before = now
        return Run(
            tool=TOOL,
            requests=len(latencies),
            seconds=(before - started) / 1e9,
            latency_us=summarise(latencies),
        )

    def samples(self, seconds: float, *, cpus: int, max_batch: int) -> Run:
        """Run whole batches as fast as they go; the result counts the requests' worth in them.

        The first time, every form, batch (powers of two) and split of `cpus` into instances and
        threads is tried briefly; later the best few of these are measured, and the best counts.
        """
        key = (cpus, max_batch)
        if key not in self._finalists:
            scanned = sorted(
                self._settings(cpus, max_batch),
                key=lambda setting: self._rate(setting, _SCAN_S)[0],
                reverse=True,
            )
            self._finalists[key] = scanned[:_FINALISTS]
        finalists = self._finalists[key]
        results = [(*self._rate(one, seconds / len(finalists)), one) for one in finalists]
        rate, took_s, best = max(results)
        return Run(
            tool=TOOL,
            requests=round(rate * took_s),
            seconds=took_s,
            details={
                "optimized": float(best.form != "frozen"),
                "instances": best.instances,
                "threads": best.threads,
                "batch": best.batch,
            },
        )

    def _median_call_ns(self, form: str) -> float:
        module = self._forms[form]
        taken: list[int] = []
        with torch.inference_mode():
            for _ in range(_WARM_UP_CALLS):
                module(*self._inputs)
            until = time.perf_counter() + _SCAN_S
            while len(taken) < _SCAN_CALLS or time.perf_counter() < until:
                before = time.perf_counter_ns()
                module(*self._inputs)
                taken.append(time.perf_counter_ns() - before)
        return statistics.median(taken)

    def _settings(self, cpus: int, max_batch: int) -> list[Setting]:
        splits = [(n, cpus // n) for n in range(1, cpus + 1) if cpus % n == 0]
        batches = [1]
        while self._batched and batches[-1] * 2 <= max_batch:
            batches.append(batches[-1] * 2)
        return [
            Setting(form, instances, threads, batch)
            for form, (instances, threads), batch in itertools.product(self._forms, splits, batches)
        ]

    def _rate(self, setting: Setting, seconds: float) -> tuple[float, float]:
        """Return requests' worth per second of a setting, and the seconds it really took."""
        module = self._forms[setting.form]
        inputs = [_repeated(one, setting.batch) for one in self._inputs]
        barrier = threading.Barrier(setting.instances)
        spans: list[tuple[int, int, int]] = []

        def instance() -> None:
            calls = 0
            # Per thread: what a new one inherits is not in force before it runs an operator of
            # torch's own, and a frozen graph may hold none.
            torch.set_num_threads(setting.threads)
            with torch.inference_mode():  # the module releases the GIL while it runs
                for _ in range(_SCAN_CALLS):
                    module(*inputs)
                barrier.wait()
                started = now = time.perf_counter_ns()
                end = started + int(seconds * 1e9)
                while calls < _SCAN_CALLS or now < end:
                    module(*inputs)
                    calls += 1
                    now = time.perf_counter_ns()
            spans.append((started, now, calls))

        threads = [threading.Thread(target=instance) for _ in range(setting.instances)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = sum(calls / (end - start) for start, end, calls in spans) * 1e9 * setting.batch
        took_s = max(end - start for start, end, _ in spans) / 1e9
        return rate, took_s


def _repeated(value: Any, times: int) -> Any:
    if times == 1:
        return value
    if isinstance(value, list):
        return value * times
    return value.repeat(times, *(1 for _ in value.shape[1:]))
