"""`grpc.health.v1.Health`, the protocol of load balancers and of Kubernetes.

The service "" is the whole server, and so is each service that it has; any other name is a model's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from grpc_health.v1 import health_pb2

from pyserve import protos
from pyserve.errors import ModelNotFound, Unavailable
from pyserve.grpc.calls import Context, Handlers
from pyserve.grpc.drain import Drain
from pyserve.service import Service
from pyserve.wire.oip_proto import parse

SERVICE = "grpc.health.v1.Health"

# Models come and go without a word to anybody, so those who watch one look at it this often.
_LOOK_S = 1.0


def register() -> None:
    """Add the messages of the health protocol to the pool, for handlers and for reflection."""
    protos.add(health_pb2.DESCRIPTOR.serialized_pb)


class HealthApi:
    """Check and Watch."""

    def __init__(self, service: Service, drain: Drain, names: Collection[str]) -> None:
        self._service = service
        self._drain = drain
        self._names = {"", *names}

    @property
    def handlers(self) -> Handlers:
        """What `calls.generic_handler` takes."""
        return Handlers(SERVICE, unary={"Check": self.check}, streams={"Watch": self.watch})

    async def check(self, request: Any, context: Context) -> Any:
        """Whether requests should be sent here now; NOT_FOUND for what is no service or model."""
        status = self._status(request.service)
        if status == "SERVICE_UNKNOWN":
            raise ModelNotFound("there is no such service, and no such model")
        return _response(status)

    async def watch(self, request: Any, context: Context) -> None:
        """Say so, and again whenever that changes, until the server shuts down."""
        name = parse("grpc.health.v1.HealthCheckRequest", request).service
        last = ""
        while True:
            status = self._status(name)
            if status != last:
                await context.write(_response(status).SerializeToString())
                last = status
            if self._drain.begun:
                raise self._drain.refusal()
            await self._drain.within(_LOOK_S)

    def _status(self, name: str) -> str:
        if name in self._names:
            return "NOT_SERVING" if self._service.why_not_ready() else "SERVING"
        try:
            self._service.look(name)
            self._service.refuse_while_draining()
        except ModelNotFound:
            return "SERVICE_UNKNOWN"
        except Unavailable:
            return "NOT_SERVING"
        return "SERVING"


def _response(status: str) -> Any:
    return protos.message("grpc.health.v1.HealthCheckResponse")(status=status)
