"""Live models in the words of the protocol: metadata, configuration, statistics as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyserve.messages import Histogram
from pyserve.metrics import LiveStats
from pyserve.signature import TensorSpec

if TYPE_CHECKING:
    from pyserve.model import Model


def model_metadata(model: Model, versions: Sequence[str]) -> dict[str, object]:
    """Return the protocol's model metadata; -1 stands for the batch and for any size.

    Inputs and outputs are what clients send and get; where that is processed, `properties` says
    how, and has the model's own tensors.
    """
    properties: dict[str, object] = {"device": model.device, "max_batch_size": model.max_batch_size}
    if model.allowed_batch_sizes:
        properties["allowed_batch_sizes"] = list(model.allowed_batch_sizes)
    if model.batch_invariant:
        properties["batch_invariant"] = True
    if model.length_buckets:
        properties["length_buckets"] = list(model.length_buckets)
    if model.batching_note:
        properties["batching_note"] = model.batching_note
    if model.notes:
        properties["notes"] = list(model.notes)
    inputs, outputs = public_signature(model)
    if model.processor is not None:
        properties["preprocess"] = list(model.processor.preprocess)
        properties["postprocess"] = list(model.processor.postprocess)
        properties["tensors"] = {
            "inputs": [_tensor(spec, batched=model.batched) for spec in model.inputs],
            "outputs": [_tensor(spec, batched=model.batched) for spec in model.outputs],
        }
    return {
        "name": model.name,
        "versions": list(versions),
        "platform": model.platform,
        "inputs": [_tensor(spec, batched=model.batched) for spec in inputs],
        "outputs": [_tensor(spec, batched=model.batched) for spec in outputs],
        "properties": properties,
    }


def public_signature(model: Model) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs that clients send and the outputs that they get."""
    public = model if model.processor is None else model.processor
    return public.inputs, public.outputs


def _tensor(spec: TensorSpec, *, batched: bool) -> dict[str, object]:
    shape = [-1, *spec.shape] if batched else list(spec.shape)
    return {"name": spec.name, "datatype": spec.dtype, "shape": shape}


def model_config(model: Model) -> dict[str, object]:
    """Return what load generators read of Triton's ModelConfig; dims leave the batch out."""
    inputs, outputs = public_signature(model)
    return {
        "name": model.name,
        "platform": model.platform,
        "backend": "pyserve",
        "version_policy": {"specific": {"versions": [int(model.version)]}},
        "max_batch_size": model.max_batch_size,
        "input": [_config_tensor(spec) for spec in inputs],
        "output": [_config_tensor(spec) for spec in outputs],
        "instance_group": [
            {
                "name": model.name,
                "kind": "KIND_CPU" if model.device == "cpu" else "KIND_GPU",
                "count": model.instances,
            }
        ],
    }


def _config_tensor(spec: TensorSpec) -> dict[str, object]:
    # Triton says STRING where its protocol says BYTES.
    dtype = "STRING" if spec.dtype == "BYTES" else spec.dtype or "INVALID"
    return {"name": spec.name, "data_type": f"TYPE_{dtype}", "dims": list(spec.shape)}


def model_statistics(live: LiveStats) -> dict[str, object]:
    """Return the statistics of one version; durations in nanoseconds, as the protocol has them."""
    stats = live.stats
    failures = {"count": sum(stats.failure_counts.values()), "ns": stats.failure_ns}
    nothing = {"count": 0, "ns": 0}
    return {
        "name": live.name,
        "version": live.version,
        "last_inference": stats.last_inference_ms,
        "inference_count": stats.inference_count,
        "execution_count": stats.execution_count,
        "inference_stats": {
            "success": {"count": stats.success_count, "ns": stats.success_ns},
            "fail": failures,
            "queue": _duration(stats.queue_seconds),
            "compute_input": _duration(stats.copy_in_seconds),
            "compute_infer": _duration(stats.compute_seconds),
            "compute_output": _duration(stats.copy_out_seconds),
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [],
        # Of answers in several parts, and of memory that a backend counts: there are none.
        "response_stats": {},
        "memory_usage": [],
    }


def _duration(histogram: Histogram) -> dict[str, int]:
    return {"count": sum(histogram.counts), "ns": round(histogram.sum * 1e9)}
