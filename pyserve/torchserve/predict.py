"""A prediction from end to end: fields in, the bytes of an answer out, whatever the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from pyserve.messages import InferRequest, Timing
from pyserve.service import Service
from pyserve.torchserve.catalog import Catalog
from pyserve.torchserve.inputs import Field, read_inputs
from pyserve.torchserve.outputs import Prediction, write_prediction

# Above this many bytes, reading and writing JSON leaves the event loop.
_INLINE_BYTES = 16 << 10


class Predicted(NamedTuple):
    """An answer, and where its time went."""

    prediction: Prediction
    timing: Timing


class Predictor:
    """`/predictions`, without the protocol round it."""

    def __init__(self, service: Service, catalog: Catalog) -> None:
        self._service = service
        self._catalog = catalog

    async def predict(
        self,
        name: str,
        version: str | None,
        fields: Mapping[str, Field],
        *,
        request_id: str = "",
        deadline_ns: int = 0,
    ) -> Predicted:
        """Run one prediction; all that it may raise is in `pyserve.errors`."""
        number = self._catalog.target(name, version)
        model = self._service.look(name, number)
        size = sum(len(field.data) for field in fields.values())
        if size > _INLINE_BYTES:
            inputs = await asyncio.to_thread(read_inputs, model, fields)
        else:
            inputs = read_inputs(model, fields)
        request = InferRequest(
            model=name,
            version=model.version,
            id=request_id,
            inputs=inputs.tensors,
            deadline_ns=deadline_ns,
        )
        response = await self._service.infer(request)
        kind = self._catalog.kind(name, response.version)
        size = sum(len(one.data) for one in response.outputs)
        if size > _INLINE_BYTES:
            prediction = await asyncio.to_thread(write_prediction, model, response, inputs, kind)
        else:
            prediction = write_prediction(model, response, inputs, kind)
        return Predicted(prediction, response.timing)
