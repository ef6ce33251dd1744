"""A model's run and the stages round it, for requests and models that need more than the run.

Shared memory in, preprocessing, the run, postprocessing, classification, shared memory out: each
stage is a file of its own, and this is their order.  Most requests need none of them and never
come here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyserve.classification import classified
from pyserve.errors import InvalidInput
from pyserve.messages import InferRequest, InferResponse

if TYPE_CHECKING:
    from pyserve.model import Model
    from pyserve.shared_memory import SharedMemory


def is_staged(request: InferRequest) -> bool:
    """Whether the request itself asks for more than a run."""
    if request.regions:
        return True
    return request.outputs is not None and any(
        one.classes or one.region is not None for one in request.outputs
    )


async def infer_staged(
    model: Model, request: InferRequest, shared_memory: SharedMemory | None
) -> InferResponse:
    """Run `request` on `model`, which its caller has leased; raises as `Service.infer` does."""
    wanted = request.outputs or []
    names = [one.name for one in wanted] or None
    written = {one.name: one.region for one in wanted if one.region is not None}
    if shared_memory is None and (request.regions or written):
        raise InvalidInput("system shared memory is off: start the server with --shared-memory")
    inputs = request.inputs
    if request.regions and shared_memory is not None:
        inputs = await shared_memory.fill(inputs, request.regions)
    processor = model.processor
    asked = names
    # Also what comes before the model's run and after it is to be done by then.
    deadline_ns = request.deadline_ns or model.default_deadline_ns()
    preprocess_ns = 0
    if processor is not None:
        asked = processor.model_outputs(names)
        started = time.perf_counter_ns()
        inputs = await processor.prepare(inputs, deadline_ns)
        preprocess_ns = time.perf_counter_ns() - started
    outputs, timing = await model.infer_tensors(
        inputs, deadline_ns=deadline_ns, priority=request.priority, outputs=asked
    )
    if processor is not None:
        started = time.perf_counter_ns()
        outputs = await processor.finish(outputs, names, deadline_ns)
        postprocess_ns = time.perf_counter_ns() - started
        timing = timing._replace(preprocess_ns=preprocess_ns, postprocess_ns=postprocess_ns)
    classes = {one.name: one.classes for one in wanted if one.classes}
    if classes:
        outputs = await classified(outputs, classes, model.class_labels, batched=model.batched)
    if written and shared_memory is not None:
        outputs = await shared_memory.write(outputs, written)
    return InferResponse(model.name, model.version, request.id, outputs, timing, written)
