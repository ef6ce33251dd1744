"""`pytorch_model_server.ModelServer`, the smallest service: a row goes in, a number comes out."""

from __future__ import annotations

from typing import Any

from pyserve.errors import InvalidInput
from pyserve.grpc import inference
from pyserve.grpc.calls import Context, Handlers
from pyserve.messages import InferRequest
from pyserve.protos import message
from pyserve.service import Service
from pyserve.signature import TensorSpec
from pyserve.wire.rows import first_number, row_tensor

SERVICE = "pytorch_model_server.ModelServer"


class ModelServerApi:
    """Predict."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def handlers(self) -> Handlers:
        """What `calls.generic_handler` takes."""
        return Handlers(SERVICE, unary={"Predict": self.predict})

    async def predict(self, request: Any, context: Context) -> Any:
        """Run one row of a model with one input; the result is its first output's first value."""
        self._service.refuse_while_draining()
        model = self._service.look(request.model_name)
        row = row_tensor(
            request.input_data, _only(request.model_name, model.inputs), batched=model.batched
        )
        response = await self._service.infer(
            InferRequest(
                model=request.model_name,
                version=None,
                inputs=[row],
                deadline_ns=inference.deadline_of(context),
            )
        )
        return message("pytorch_model_server.Response")(
            model_name=request.model_name, result=first_number(response.outputs[0])
        )


def _only(name: str, specs: tuple[TensorSpec, ...]) -> TensorSpec:
    """Return the model's single input, whose shape and dtype must be known."""
    if len(specs) != 1:
        names = ", ".join(f'"{spec.name}"' for spec in specs)
        raise InvalidInput(
            f'Predict is for models with one input, "{name}" has {len(specs)} ({names}): use '
            "inference.GRPCInferenceService"
        )
    if not specs[0].dtype:
        raise InvalidInput(
            f'Predict needs a known shape, "{name}" has no signature: use '
            "inference.GRPCInferenceService, whose requests bring shape and datatype"
        )
    return specs[0]
