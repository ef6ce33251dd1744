"""The server process: build the parts, bind, load in the background, drain, stop.

The process is live from the moment it has bound, and ready when every model that was asked for is
loaded and warm.  The first SIGTERM or SIGINT drains: readiness fails, no connection is accepted,
what is in flight finishes within the drain timeout.  The second one ends the process at once.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec
import uvloop
from aiohttp import web

from pyserve.completions import reader_for
from pyserve.config import ModelConfig, ServerConfig
from pyserve.engine import open_served_model
from pyserve.errors import ConfigError, LoadFailed, PyserveError
from pyserve.guard import Guard
from pyserve.http.app import App
from pyserve.http.assemble import build_app
from pyserve.http.connection import HttpServer
from pyserve.http.rehearsal import rehearse
from pyserve.http.request_log import logged
from pyserve.http.torchserve_ports import GRPC_PORTS, PortTaken, TorchServePorts
from pyserve.log import request_log
from pyserve.notices import watch
from pyserve.registry import Registry
from pyserve.repository import Repository, platform_of
from pyserve.restart import (
    Handover,
    listeners,
    next_handover,
    replace_process,
    taken_over,
    too_often,
)
from pyserve.service import Service
from pyserve.shared_memory import SharedMemory
from pyserve.signature import read_signature
from pyserve.torchserve.startup import Opened, open_store
from pyserve.torchserve.store import Store

if TYPE_CHECKING:
    from pyserve.grpc.assemble import GrpcServer

_BACKLOG = 1024
# What a stop may take beyond the drain timeout, for threads that cannot be interrupted.
_GRACE_S = 5.0
# What a call that its model's closing has answered may take to hear of it.
_ANSWER_S = 1.0

_logger = logging.getLogger(__name__)


class ServeFailed(PyserveError):
    """The server cannot do its work, for a reason that is not its configuration."""


def serve(config: ServerConfig, *, version: str) -> int:
    """Serve until a signal says to stop; returns the exit code, 0 after a clean drain.

    Raises ConfigError or LoadFailed for what the command line asks for and cannot be served, and
    ServeFailed if the address cannot be bound.
    """
    with open_store(config) as opened:
        config = opened.config
        if not config.models and not config.model_repository:
            raise ConfigError(
                "nothing to serve: name a model file, a folder of models with --model-repository "
                "(`pyserve zoo build digits -o models` makes one), or one of archives with "
                "--model-store"
            )
        for path in map(Path, config.models):
            # What is plainly no model is told before anything is set up.
            if path.is_file() and platform_of(path, ModelConfig()) == "torchscript":
                read_signature(path)
        before = taken_over()
        if before is not None:
            changes: dict[str, object] = {}
            if config.grpc and before.grpc_port:
                changes["grpc_port"] = before.grpc_port
            if config.device == "auto":
                changes["device"] = before.device
            opened = opened._replace(config=config.with_options(changes))
        server = _Server(opened, version, before)
        code = uvloop.run(server.run())
    if server.handover is not None:
        replace_process(server.handover)
    return code


class _Server:
    """One run of the server; every method runs on the event loop."""

    def __init__(self, opened: Opened, version: str, before: Handover | None) -> None:
        self._opened = opened
        self._config = config = opened.config
        self._version = version
        self._registry = Registry(
            Repository(config.model_repository, files=config.models, configure=config.configure),
            open_model=partial(open_served_model, allow_handlers=config.allow_handlers),
            control=config.control,
            poll_interval_s=config.poll_interval_s,
            drain_timeout_s=config.drain_timeout_s,
        )
        memory = None
        if config.shared_memory:
            memory = SharedMemory(max_request_bytes=config.max_body_bytes)
        self._service = Service(self._registry, memory)
        self._grpc_responses: Counter[tuple[str, str]] = Counter()
        self._store = Store(self._service, opened.shelf, allowed_urls=config.allowed_urls)
        self._addresses: dict[str, str] = {}  # by protocol, as the ready line has them
        self._torchserve: dict[str, str] = {}  # TorchServe's own ports, by role
        self._stop = asyncio.Event()
        self._before = before
        self._failed = False  # what is left to do is to end, with a code that says so
        self._lost_device = ""  # set: a new process is to take this one's place
        self.handover: Handover | None = None

    async def run(self) -> int:
        self._catch_signals()
        end_watch = watch(asyncio.get_running_loop(), self._on_notice)
        app, lane = build_app(
            self._service,
            self._config,
            version=self._version,
            grpc_responses=self._grpc_responses if self._config.grpc else None,
            store=self._store,
        )
        self._express = lane is not None
        requests = request_log()
        http = HttpServer(app if requests is None else logged(app, requests), lane)
        runner = web.ServerRunner(http)
        await runner.setup()
        sites = await self._bind(runner)
        self._addresses["http"] = _url(runner.addresses[0])
        grpc = self._build_grpc() if self._config.grpc else None
        ports = self._build_ports(app) if self._config.torchserve_ports else None
        try:
            if grpc is not None:
                await grpc.start()
            if ports is not None:
                await self._start_ports(ports)
            await self._load()
            await self._stop.wait()
        finally:
            deadline = time.monotonic() + self._config.drain_timeout_s
            if self._lost_device:
                self.handover = self._hand_over(sites)
            self._service.start_draining()
            app.start_draining()
            if lane is not None:
                lane.start_draining()
            for site in sites:
                await site.stop()
            if ports is not None:
                await ports.close_listeners()
            left = max(0.0, deadline - time.monotonic())
            calls = asyncio.ensure_future(_stop_grpc(grpc, left + _ANSWER_S))
            clean = await _within(app.drained(), left)
            clean &= await _within(asyncio.shield(calls), deadline - time.monotonic())
            if ports is not None:
                clean &= await _within(ports.drained(), deadline - time.monotonic())
            await self._store.close()
            # Whoever is still waiting for a model is answered by its closing.
            clean &= await self._close_registry(deadline)
            await calls
            http.pre_shutdown()
            await http.shutdown(max(1.0, deadline - time.monotonic()))
            if ports is not None:
                await ports.shutdown(max(1.0, deadline - time.monotonic()))
            end_watch()
        _logger.info("stopped%s", "" if clean else ", but not everything had finished in time")
        if self.handover is not None and not self._lost_device:  # a signal has come in between
            self.handover = None
        return 0 if clean and not self._failed else 1

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._lost_device:
            _logger.info("%s: ending, rather than restarting", number.name)
            self._lost_device = ""
            return
        if self._stop.is_set():
            _logger.warning("second signal (%s): ending at once", number.name)
            self._end_now()
        _logger.info("%s: draining for at most %g s", number.name, self._config.drain_timeout_s)
        self._service.start_draining()
        self._stop.set()

    def _on_notice(self, kind: str, text: str) -> None:
        if kind != "device_lost":
            _logger.warning("%s", text)
            return
        _logger.error("%s", text)
        if self._stop.is_set():
            return  # it ends already
        if too_often(self._before):
            _logger.error("that was not the first restart in a few minutes: ending instead")
            self._failed = True
        else:
            _logger.info("restarting, once what is in flight is answered")
            lost = [model.device for model in self._registry.live() if model.failure]
            self._lost_device = lost[0] if lost else self._config.device
        self._service.start_draining("the server is restarting")
        self._stop.set()

    def _hand_over(self, sites: Sequence[web.BaseSite]) -> Handover:
        """Keep what must outlast this process: from here on the listeners have a second owner."""
        sockets = [
            os.dup(one.fileno()) for site in sites for one in getattr(site._server, "sockets", ())
        ]
        _, _, port = self._addresses.get("grpc", "").rpartition(":")
        return next_handover(
            self._before, sockets=sockets, grpc_port=int(port or 0), device=self._lost_device
        )

    async def _bind(self, runner: web.ServerRunner) -> list[web.BaseSite]:
        if self._before is not None:
            sites: list[web.BaseSite] = [
                web.SockSite(runner, one, backlog=_BACKLOG) for one in listeners(self._before)
            ]
            for one in sites:
                await one.start()
            return sites
        host, port = self._config.host, self._config.http_port
        site = web.TCPSite(runner, host, port, backlog=_BACKLOG)
        try:
            await site.start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise ServeFailed(
                f"cannot listen on {host}, port {port}: {reason}; "
                "choose another with --host and --http-port (0 takes any free port)"
            ) from None
        return [site]

    def _build_grpc(self) -> "GrpcServer":
        """Return the gRPC server, bound but not started; imported only where it is wanted."""
        from pyserve.grpc.assemble import AddressTaken, build_server
        from pyserve.grpc.management import Management
        from pyserve.grpc.torchserve import TorchServeApi

        config = self._config
        guard = Guard(config.management_token, loopback=config.loopback, control=config.control)
        torchserve = TorchServeApi(self._service, self._store, Management(guard))
        server = build_server(
            self._service,
            config,
            version=self._version,
            responses=self._grpc_responses,
            extra=torchserve.handlers,
        )
        try:
            self._addresses["grpc"] = server.bind(config.host, config.grpc_port)
            if config.torchserve_ports:
                ports = {**GRPC_PORTS, **self._opened.properties.grpc_ports}
                for role, port in ports.items():
                    self._torchserve[f"grpc_{role}"] = server.bind(config.host, port)
        except AddressTaken as error:
            raise ServeFailed(
                f"{error}; choose another port with --grpc-port (0 takes any free port), or serve "
                "HTTP alone with --no-grpc"
            ) from None
        return server

    def _build_ports(self, app: App) -> TorchServePorts:
        return TorchServePorts(
            self._service,
            self._store,
            self._config,
            self._opened.properties,
            app,
            version=self._version,
            grpc_responses=self._grpc_responses if self._config.grpc else None,
        )

    async def _start_ports(self, ports: TorchServePorts) -> None:
        try:
            self._torchserve = {**await ports.start(), **self._torchserve}
        except PortTaken as error:
            raise ServeFailed(str(error)) from None

    async def _load(self) -> None:
        """Load what is to be served; a signal meanwhile ends the wait, not the load."""
        started = time.monotonic()
        names = self._config.load_model or None
        loading = asyncio.wrap_future(self._registry.load_all(names))
        _logger.info("listening at %s", " and ".join(self._addresses.values()))
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._stop.is_set():
            return
        self._store.settle()
        reader_for(asyncio.get_running_loop())  # not at the first client's expense
        await rehearse(self._registry.live(), express=self._express)
        # What is here now stays: the collector need not walk over it again and again.
        gc.collect()
        gc.freeze()
        failed = {name: reason for name, reason in loading.result().items() if reason}
        failed |= self._opened.problems
        for path in self._config.models:
            reason = failed.get(Path(path).stem)
            if reason:
                raise LoadFailed(reason)
        self._announce(failed, time.monotonic() - started)

    def _announce(self, failed: dict[str, str], seconds: float) -> None:
        """Print the ready line: the one thing on standard output.

        It says "not ready" where models were to be loaded and every one of them failed.
        """
        names = self._registry.names()
        report = self._opened.properties.report
        if self._config.log_format == "json":
            line: dict[str, object] = {
                "event": "ready" if self._registry.ready() else "not ready",
                **self._addresses,
                "models": {name: self._registry.versions(name) for name in names},
                "failed": failed,
                "seconds": round(seconds, 3),
                "pid": os.getpid(),
            }
            if self._torchserve:
                line["torchserve"] = self._torchserve
            if report:
                line["not_understood"] = report
            text = msgspec.json.encode(line).decode()
        else:
            served = ", ".join(names) or "no model"
            state = "ready" if self._registry.ready() else "NOT ready"
            where = ", gRPC at ".join(self._addresses.values())
            text = f"pyserve is {state} at {where} with {served} (loaded in {seconds:.1f} s)"
            for role, address in self._torchserve.items():
                text += f"\n  TorchServe's {role.replace('_', ' ')} port: {address}"
            for reason in failed.values():
                text += f"\n  not served: {reason}"
            for one in report:
                text += f"\n  {one}"
        print(text, file=sys.stdout, flush=True)

    def _end_now(self) -> NoReturn:
        if self._opened.shelf is not None:
            self._opened.shelf.close()
        logging.shutdown()
        os._exit(1)

    async def _close_registry(self, deadline: float) -> bool:
        left = max(0.0, deadline - time.monotonic())
        closing = asyncio.ensure_future(asyncio.to_thread(self._registry.close, left))
        if not await _within(asyncio.shield(closing), left + _GRACE_S):
            _logger.error("a model that is being loaded cannot be interrupted: ending without it")
            self._end_now()
        return closing.result()


async def _stop_grpc(server: "GrpcServer | None", grace_s: float) -> None:
    if server is not None:
        await server.stop(grace_s)


async def _within(work: Awaitable[object], seconds: float) -> bool:
    """Wait for `work`; False if it was not done in time."""
    try:
        await asyncio.wait_for(work, max(0.0, seconds))
    except TimeoutError:
        return False
    return True


def _url(address: tuple[object, ...]) -> str:
    host, port = str(address[0]), address[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
