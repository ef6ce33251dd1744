"""A process that measures inside itself: the bare module, and the in-process engine.

`python -m pyserve.bench.worker FILE ROWS [SETTING...]` says that it is ready, then answers orders,
one JSON object a line each way.  So whoever drives a benchmark needs no torch, and what is measured
shares its process with nothing.
"""

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import msgspec

from pyserve._native import core
from pyserve.bench.bare import Bare, to_torch
from pyserve.bench.bodies import inputs_for
from pyserve.bench.in_process import await_from_tasks, call_from_threads, call_one_by_one
from pyserve.bench.values import Run
from pyserve.engine import Engine
from pyserve.errors import ConfigError, PyserveError
from pyserve.model import Model
from pyserve.signature import read_signature

MAX_REQUESTS = 2_000_000


class Worker:
    """One model file; the bare module and the engine's model are loaded when first asked for."""

    def __init__(self, path: Path, rows: int, settings: list[str]) -> None:
        signature = read_signature(path)
        if signature is None:
            raise ConfigError(
                f"{path.name} has no signature, so no request can be made up for it: write it "
                "with `pyserve export`, or serve it and name its URL"
            )
        self._path = path
        self._signature = signature
        self._settings = settings
        self._request = inputs_for(signature, rows=rows)
        self._inputs = [to_torch(one) for one in self._request]

    @functools.cached_property
    def bare(self) -> Bare:
        """The bare module."""
        return Bare(self._path, self._request, batched=self._signature.batched)

    @functools.cached_property
    def model(self) -> Model:
        """The engine's model, with its engine's lifetime that of this process."""
        self._engine = Engine(files=[self._path], settings=self._settings)
        return self._engine.model(self._engine.names()[0])

    def bare_call(self, seconds: float, threads: int) -> Run:
        """Measure the bare module, request by request."""
        return self.bare.call(seconds, threads=threads, max_requests=MAX_REQUESTS)

    def bare_samples(self, seconds: float, cpus: int, max_batch: int) -> Run:
        """Measure the bare module's best samples per second.

        0 `cpus` stands for as many threads as the engine's instances have.
        """
        threads = self.model.instances * self.model.threads
        return self.bare.samples(seconds, cpus=cpus or threads, max_batch=max_batch)

    def one_by_one(self, seconds: float) -> Run:
        """Measure the engine, called from one thread."""
        return call_one_by_one(self.model, self._inputs, seconds, max_requests=MAX_REQUESTS)

    def threads(self, seconds: float, count: int) -> Run:
        """Measure the engine, called from many threads."""
        return call_from_threads(
            self.model, self._inputs, seconds, threads=count, max_requests=MAX_REQUESTS
        )

    def tasks(self, seconds: float, count: int) -> Run:
        """Measure the engine, awaited by many tasks."""
        return await_from_tasks(
            self.model, self._inputs, seconds, tasks=count, max_requests=MAX_REQUESTS
        )


ORDERS = ("bare_call", "bare_samples", "one_by_one", "threads", "tasks")


def obey(worker: Worker, order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order; what goes wrong is an answer too."""
    name = order.pop("order")
    assert name in ORDERS
    try:
        run: Run = getattr(worker, name)(**order)
    except PyserveError as error:
        return {"error": error.message}
    answer: dict[str, Any] = msgspec.to_builtins(run)
    return answer


def main() -> None:
    """Answer orders until standard input ends."""
    # What libraries print must not come between the answers.
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        worker = Worker(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    except PyserveError as error:
        print(error.message, file=sys.stderr)
        sys.exit(2)
    print(json.dumps({"ready": True, "cpus": core().available_cpus()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(worker, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
