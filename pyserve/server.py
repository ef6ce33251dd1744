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
from collections.abc import Awaitable
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web

from pyserve.completions import reader_for
from pyserve.config import ModelConfig, ServerConfig
from pyserve.engine import open_model
from pyserve.errors import ConfigError, LoadFailed, PyserveError
from pyserve.http.assemble import build_app
from pyserve.http.connection import HttpServer
from pyserve.http.rehearsal import rehearse
from pyserve.http.request_log import logged
from pyserve.log import request_log
from pyserve.registry import Registry
from pyserve.repository import Repository, platform_of
from pyserve.service import Service
from pyserve.signature import read_signature

_BACKLOG = 1024
# What a stop may take beyond the drain timeout, for threads that cannot be interrupted.
_GRACE_S = 5.0

_logger = logging.getLogger(__name__)


class ServeFailed(PyserveError):
    """The server cannot do its work, for a reason that is not its configuration."""


def serve(config: ServerConfig, *, version: str) -> int:
    """Serve until a signal says to stop; returns the exit code, 0 after a clean drain.

    Raises ConfigError or LoadFailed for what the command line asks for and cannot be served, and
    ServeFailed if the address cannot be bound.
    """
    if not config.models and not config.model_repository:
        raise ConfigError(
            "nothing to serve: name a model file, or a folder of models with --model-repository "
            "(`pyserve zoo build digits -o models` makes one)"
        )
    for path in map(Path, config.models):
        # What is plainly no model is told before anything is set up.
        if path.is_file() and platform_of(path, ModelConfig()) == "torchscript":
            read_signature(path)
    return uvloop.run(_Server(config, version).run())


class _Server:
    """One run of the server; every method runs on the event loop."""

    def __init__(self, config: ServerConfig, version: str) -> None:
        self._config = config
        self._version = version
        self._registry = Registry(
            Repository(config.model_repository, files=config.models, configure=config.configure),
            open_model=open_model,
            control=config.control,
            poll_interval_s=config.poll_interval_s,
            drain_timeout_s=config.drain_timeout_s,
        )
        self._service = Service(self._registry)
        self._stop = asyncio.Event()

    async def run(self) -> int:
        self._catch_signals()
        app, lane = build_app(self._service, self._config, version=self._version)
        self._express = lane is not None
        requests = request_log()
        http = HttpServer(app if requests is None else logged(app, requests), lane)
        runner = web.ServerRunner(http)
        await runner.setup()
        site = await self._bind(runner)
        try:
            await self._load(_url(runner.addresses[0]))
            await self._stop.wait()
        finally:
            deadline = time.monotonic() + self._config.drain_timeout_s
            self._service.start_draining()
            app.start_draining()
            if lane is not None:
                lane.start_draining()
            await site.stop()
            clean = await _within(app.drained(), deadline - time.monotonic())
            # Whoever is still waiting for a model is answered by its closing.
            clean &= await self._close_registry(deadline)
            http.pre_shutdown()
            await http.shutdown(max(1.0, deadline - time.monotonic()))
        _logger.info("stopped%s", "" if clean else ", but not everything had finished in time")
        return 0 if clean else 1

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            _logger.warning("second signal (%s): ending at once", number.name)
            logging.shutdown()
            os._exit(1)
        _logger.info("%s: draining for at most %g s", number.name, self._config.drain_timeout_s)
        self._service.start_draining()
        self._stop.set()

    async def _bind(self, runner: web.ServerRunner) -> web.TCPSite:
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
        return site

    async def _load(self, address: str) -> None:
        """Load what is to be served; a signal meanwhile ends the wait, not the load."""
        started = time.monotonic()
        names = self._config.load_model or None
        loading = asyncio.wrap_future(self._registry.load_all(names))
        _logger.info("listening at %s", address)
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._stop.is_set():
            return
        reader_for(asyncio.get_running_loop())  # not at the first client's expense
        await rehearse(self._registry.live(), express=self._express)
        # What is here now stays: the collector need not walk over it again and again.
        gc.collect()
        gc.freeze()
        failed = {name: reason for name, reason in loading.result().items() if reason}
        for path in self._config.models:
            reason = failed.get(Path(path).stem)
            if reason:
                raise LoadFailed(reason)
        self._announce(address, failed, time.monotonic() - started)

    def _announce(self, address: str, failed: dict[str, str], seconds: float) -> None:
        """Print the ready line: the one thing on standard output.

        It says "not ready" where models were to be loaded and every one of them failed.
        """
        names = self._registry.names()
        if self._config.log_format == "json":
            line = {
                "event": "ready" if self._registry.ready() else "not ready",
                "http": address,
                "models": {name: self._registry.versions(name) for name in names},
                "failed": failed,
                "seconds": round(seconds, 3),
                "pid": os.getpid(),
            }
            text = msgspec.json.encode(line).decode()
        else:
            served = ", ".join(names) or "no model"
            state = "ready" if self._registry.ready() else "NOT ready"
            text = f"pyserve is {state} at {address} with {served} (loaded in {seconds:.1f} s)"
            for reason in failed.values():
                text += f"\n  not served: {reason}"
        print(text, file=sys.stdout, flush=True)

    async def _close_registry(self, deadline: float) -> bool:
        left = max(0.0, deadline - time.monotonic())
        closing = asyncio.ensure_future(asyncio.to_thread(self._registry.close, left))
        if not await _within(asyncio.shield(closing), left + _GRACE_S):
            _logger.error("a model that is being loaded cannot be interrupted: ending without it")
            logging.shutdown()
            os._exit(1)
        return closing.result()


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
