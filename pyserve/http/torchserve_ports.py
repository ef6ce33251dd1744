"""TorchServe's own ports: inference, management and metrics, each with its part of the API."""

from __future__ import annotations

import asyncio
import os

import msgspec
from aiohttp import web

from pyserve.config import ServerConfig
from pyserve.errors import PyserveError
from pyserve.http.app import App
from pyserve.http.connection import HttpServer
from pyserve.http.cors import CorsApp
from pyserve.http.health import HealthApi
from pyserve.http.management import Management
from pyserve.http.request_log import logged
from pyserve.http.routing import Router
from pyserve.http.torchserve import TorchServeApi, refuse
from pyserve.http.torchserve_management import TorchServeManagementApi
from pyserve.log import request_log
from pyserve.metrics import GrpcResponses, Metrics
from pyserve.service import Service
from pyserve.torchserve.properties import Properties
from pyserve.torchserve.store import Store

PORTS = {"inference": 8080, "management": 8081, "metrics": 8082}
GRPC_PORTS = {"inference": 7070, "management": 7071}
_BACKLOG = 1024


class PortTaken(PyserveError):
    """An address that cannot be listened on."""


class TorchServePorts:
    """The listeners; roles that share an address share a listener, as in TorchServe.

    main: the app of the main port; its metrics count the answers of these ports too.
    """

    def __init__(
        self,
        service: Service,
        store: Store,
        config: ServerConfig,
        properties: Properties,
        main: App,
        *,
        version: str,
        grpc_responses: GrpcResponses | None = None,
    ) -> None:
        self._service = service
        self._store = store
        self._main = main
        self._metrics = Metrics(
            service.all_stats, main.responses, version=version, grpc_responses=grpc_responses
        )
        self._config = config
        self._version = version
        self._listeners: list[tuple[App, HttpServer, web.ServerRunner]] = []
        self._roles: dict[tuple[str, int, str], list[str]] = {}
        for role, port in PORTS.items():
            host, port = properties.addresses.get(role, (config.host, port))
            # Port 0 is a free one, another one for each role.
            self._roles.setdefault((host, port, "" if port else role), []).append(role)

    async def start(self) -> dict[str, str]:
        """Listen on every address; returns the URL of each role.  Raises PortTaken."""
        urls: dict[str, str] = {}
        for (host, port, _), roles in self._roles.items():
            app = self._app(host, roles)
            self._main.beside.append(app)
            requests = request_log()
            http = HttpServer(app if requests is None else logged(app, requests))
            runner = web.ServerRunner(http)
            await runner.setup()
            self._listeners.append((app, http, runner))
            try:
                await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error
                raise PortTaken(
                    f"cannot listen on {host}, port {port}, for TorchServe's API: {reason}; "
                    "choose another in --ts-config, or leave --torchserve-ports out"
                ) from None
            bound = runner.addresses[0]
            name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            urls |= dict.fromkeys(roles, f"http://{name}:{bound[1]}")
        return urls

    def _app(self, host: str, roles: list[str]) -> App:
        config = self._config
        router = Router()
        if config.cors_origin:
            app: App = CorsApp(router, config.cors_origin, otherwise=refuse)
        else:
            app = App(router, otherwise=refuse)
        if "inference" in roles:
            TorchServeApi(
                self._service,
                self._store.catalog,
                version=self._version,
                max_body_bytes=config.max_body_bytes,
            ).add_routes(router)
        if "management" in roles:
            # Who may reach this listener is not who may reach the main one.
            loopback = msgspec.structs.replace(config, host=host).loopback
            guard = Management(config.management_token, loopback=loopback, control=config.control)
            TorchServeManagementApi(self._store, guard, version=self._version).add_routes(
                router, descriptions="inference" not in roles
            )
        if "metrics" in roles:
            health = HealthApi(self._service, self._metrics)
            router.add("GET", "/metrics", health.metrics, refusal=refuse)
        return app

    async def close_listeners(self) -> None:
        """Accept no connection any more, and close each with its next answer."""
        for app, _, runner in self._listeners:
            app.start_draining()
            for site in list(runner.sites):
                await site.stop()

    async def drained(self) -> None:
        """Wait until every request that had begun is answered; after `close_listeners`."""
        await asyncio.gather(*(app.drained() for app, _, _ in self._listeners))

    async def shutdown(self, timeout_s: float) -> None:
        """Close every connection."""
        for _, http, _ in self._listeners:
            http.pre_shutdown()
        await asyncio.gather(*(http.shutdown(timeout_s) for _, http, _ in self._listeners))
