"""One version in the words of TorchServe's describe call."""

from __future__ import annotations

import os
import resource
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from pyserve.live import LiveVersion

if TYPE_CHECKING:
    from pyserve.model import Model

# Ids of workers begin here, as they do there, where they are ports.
_FIRST_WORKER = 9000


class Described(NamedTuple):
    """What the registration says, for who has no live version to look at."""

    name: str
    version: str
    url: str
    runtime: str = "python"
    at_startup: bool = True


def describe(
    told: Described, live: LiveVersion | None, *, default: bool, customized: bool
) -> dict[str, object]:
    """Return the description; without a live version there are no workers."""
    model = None if live is None else live.model
    count = 0 if model is None else model.instances
    batching = None if live is None else live.config.batching
    delay_us = (batching and batching.max_queue_delay_us) or 0
    value: dict[str, object] = {
        "modelName": told.name,
        "modelVersion": told.version,
        "modelUrl": told.url,
        "engine": "Torch",
        "runtime": told.runtime,
        "minWorkers": count,
        "maxWorkers": count,
        "batchSize": 1 if model is None else max(1, model.max_batch_size),
        "maxBatchDelay": delay_us // 1000,
        "responseTimeout": 0 if live is None else live.config.queue.timeout_ms // 1000,
        "loadedAtStartup": told.at_startup,
        "defaultVersion": default,
        "workers": [] if live is None else _workers(live),
        "jobQueueStatus": _queue(live),
    }
    if customized and model is not None:
        # Text, as it is there: what a handler says about itself.
        value["customizedMetadata"] = msgspec.json.encode(_metadata(model)).decode()
    return value


def _workers(live: LiveVersion) -> list[dict[str, object]]:
    """Instances as workers; they are threads of one process and share its memory."""
    model = live.model
    started = datetime.fromtimestamp(live.loaded_at, UTC)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    worker: dict[str, object] = {
        "startTime": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "status": "READY" if model.state == "READY" else "UNLOADING",
        "memoryUsage": memory,
        "pid": os.getpid(),
        "gpu": model.device != "cpu",
        "gpuUsage": "N/A",
    }
    return [{"id": str(_FIRST_WORKER + index), **worker} for index in range(model.instances)]


def _queue(live: LiveVersion | None) -> dict[str, int]:
    if live is None:
        return {"remainingCapacity": 0, "pendingRequests": 0}
    queued = live.model.stats().queued
    return {
        "remainingCapacity": max(0, live.config.queue.capacity - queued),
        "pendingRequests": queued,
    }


def _metadata(model: Model) -> dict[str, object]:
    """Return what pyserve knows of a model and TorchServe has no field for."""
    processor = model.processor
    inputs = model.inputs if processor is None else processor.inputs
    outputs = model.outputs if processor is None else processor.outputs
    return {
        "platform": model.platform,
        "device": model.device,
        "max_batch_size": model.max_batch_size,
        "batching_note": model.batching_note,
        "inputs": [_spec(one) for one in inputs],
        "outputs": [_spec(one) for one in outputs],
    }


def _spec(spec: object) -> dict[str, object]:
    return {
        "name": getattr(spec, "name", ""),
        "datatype": getattr(spec, "dtype", ""),
        "shape": list(getattr(spec, "shape", ())),
    }
