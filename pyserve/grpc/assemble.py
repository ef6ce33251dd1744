"""The gRPC front end put together: one grpc.aio server with every service, its limits and its end.

It runs on the event loop that it is built on, the same as HTTP's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Any

import grpc

from pyserve.config import ServerConfig
from pyserve.errors import PyserveError
from pyserve.grpc import health, limits, oip, reflection
from pyserve.grpc.calls import Handlers, Responses, generic_handler
from pyserve.grpc.drain import Drain
from pyserve.grpc.express import ExpressLane
from pyserve.grpc.health import HealthApi
from pyserve.grpc.management import Management
from pyserve.grpc.model_server import ModelServerApi
from pyserve.grpc.oip import OipApi
from pyserve.grpc.reflection import ReflectionApi
from pyserve.grpc.repository import RepositoryApi
from pyserve.grpc.settings import SettingsApi
from pyserve.grpc.shared_memory import SharedMemoryApi
from pyserve.grpc.stream import StreamApi
from pyserve.guard import Guard
from pyserve.service import Service


class AddressTaken(PyserveError):
    """An address that cannot be listened on."""


class GrpcServer:
    """A server of several services on any number of addresses."""

    def __init__(self, server: Any, drain: Drain) -> None:
        self._server = server
        self._drain = drain

    def bind(self, host: str, port: int) -> str:
        """Listen on an address, 0 for a free port, before `start`; returns it as HOST:PORT.

        Raises AddressTaken where that cannot be.
        """
        name = f"[{host}]" if ":" in host else host
        try:
            bound = self._server.add_insecure_port(f"{name}:{port}")
        except RuntimeError:
            bound = 0
        if not bound:
            reason = _why_not(host, port)
            raise AddressTaken(f"cannot listen on {host}, port {port}, for gRPC{reason}")
        return f"{name}:{bound}"

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Admit no call any more; returns when the last one has ended, cancelled after `grace_s`.

        Calls that wait for their client's next message are ended at once.
        """
        self._drain.begin()
        await self._server.stop(grace_s)


def _why_not(host: str, port: int) -> str:
    """Return what the system says of an address, which grpc keeps to itself."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return f": {os.strerror(error.errno)}" if error.errno and error.errno > 0 else f": {error}"
    return ""


def build_server(
    service: Service,
    config: ServerConfig,
    *,
    version: str,
    responses: Responses,
    extra: Iterable[Handlers] = (),
) -> GrpcServer:
    """Return the server with every service, and `extra` ones; it counts its answers in `responses`.

    It is bound and started by its methods.
    """
    drain = Drain()
    health.register()
    reflection.register()
    services = [_inference(service, config, drain, version=version)]
    services += [ModelServerApi(service).handlers, *extra]
    names = [one.service for one in services]
    services.append(HealthApi(service, drain, names).handlers)
    names += [health.SERVICE, reflection.SERVICE]
    services.append(ReflectionApi(drain, names).handlers)
    server = grpc.aio.server(options=limits.options(config.max_body_bytes))
    server.add_generic_rpc_handlers([generic_handler(one, responses) for one in services])
    return GrpcServer(server, drain)


def _inference(service: Service, config: ServerConfig, drain: Drain, *, version: str) -> Handlers:
    """Return `inference.GRPCInferenceService`, which several files have a part in."""
    management = Management(
        Guard(config.management_token, loopback=config.loopback, control=config.control)
    )
    lane = ExpressLane(service) if config.express else None
    api = OipApi(service, version=version, lane=lane)
    unary = {
        **api.unary,
        **RepositoryApi(service, management).unary,
        **SharedMemoryApi(service, management).unary,
        **SettingsApi(service, log_format=config.log_format).unary,
    }
    streams = {"ModelStreamInfer": StreamApi(service, drain, lane).infer}
    return Handlers(oip.SERVICE, unary=unary, raw=api.raw, streams=streams)
