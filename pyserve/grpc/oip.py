"""The Open Inference Protocol v2 over gRPC: health, metadata, inference, statistics.

The model repository and shared memory, extensions of Triton's in the same service, are in files of
their own.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from google.protobuf import json_format

from pyserve.descriptions import model_config, model_metadata, model_statistics
from pyserve.grpc import inference
from pyserve.grpc.calls import Context, Raw, Unary
from pyserve.grpc.express import Answer, ExpressLane
from pyserve.protos import message
from pyserve.service import Service
from pyserve.wire.extensions import extensions

SERVICE = "inference.GRPCInferenceService"


class OipApi:
    """The unary methods that the protocol itself has, and Triton's that describe models.

    lane: None where every request is to take the plain lane.
    """

    def __init__(self, service: Service, *, version: str, lane: ExpressLane | None = None) -> None:
        self._service = service
        self._lane = lane
        self._version = version

    @property
    def raw(self) -> dict[str, Raw]:
        """Handlers of serialized messages."""
        return {"ModelInfer": self.infer}

    @property
    def unary(self) -> dict[str, Unary]:
        """Handlers of messages."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ServerMetadata": self.server_metadata,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
        }

    def infer(self, data: bytes, context: Context) -> bytes | Awaitable[bytes]:
        """Run one request; the trailers carry where its time went."""
        deadline_ns = inference.deadline_of(context)
        answer = None if self._lane is None else self._lane.begin(data, deadline_ns)
        if isinstance(answer, tuple):
            return _with_timing(context, answer)
        return self._later(data, context, deadline_ns, answer)

    async def _later(
        self,
        data: bytes,
        context: Context,
        deadline_ns: int,
        begun: Awaitable[Answer | None] | None,
    ) -> bytes:
        answer = None if begun is None else await begun
        if answer is None:
            answer = await inference.run(self._service, data, deadline_ns=deadline_ns)
        return _with_timing(context, answer)

    async def server_live(self, request: Any, context: Context) -> Any:
        """The process answers; no model has a say in this."""
        return message("inference.ServerLiveResponse")(live=True)

    async def server_ready(self, request: Any, context: Context) -> Any:
        """Whether all that was to be loaded is, and warm; false from the drain on."""
        ready = not self._service.why_not_ready()
        return message("inference.ServerReadyResponse")(ready=ready)

    async def server_metadata(self, request: Any, context: Context) -> Any:
        """Name, version and extensions of this server."""
        return message("inference.ServerMetadataResponse")(
            name="pyserve",
            version=self._version,
            extensions=extensions(shared_memory=self._service.shared_memory is not None),
        )

    async def model_ready(self, request: Any, context: Context) -> Any:
        """True where the model can be asked; else NOT_FOUND or UNAVAILABLE and why."""
        self._service.refuse_while_draining()
        self._service.look(request.name, request.version or None)
        return message("inference.ModelReadyResponse")(ready=True)

    async def model_metadata(self, request: Any, context: Context) -> Any:
        """Versions, inputs and outputs of a model."""
        found = self._service.look(request.name, request.version or None)
        described = model_metadata(found, self._service.versions(request.name))
        return _filled("inference.ModelMetadataResponse", described)

    async def model_config(self, request: Any, context: Context) -> Any:
        """The model's configuration in the words of Triton's ModelConfig."""
        found = self._service.look(request.name, request.version or None)
        return _filled("inference.ModelConfigResponse", {"config": model_config(found)})

    async def model_statistics(self, request: Any, context: Context) -> Any:
        """What one version, each live version of a model, or every model has done."""
        if request.name:
            found = self._service.stats(request.name, request.version or None)
        else:
            found = list(self._service.all_stats())
        described = [model_statistics(one) for one in found]
        return _filled("inference.ModelStatisticsResponse", {"model_stats": described})


def _with_timing(context: Context, answer: Answer) -> bytes:
    """Return the message of an answer; its timing goes into the trailers."""
    message, timing = answer
    context.set_trailing_metadata((("server-timing", timing),))
    return message


def _filled(kind: str, described: dict[str, object]) -> Any:
    """Return the message that says what the JSON of the REST API does, as far as it has fields."""
    return json_format.ParseDict(described, message(kind)(), ignore_unknown_fields=True)
