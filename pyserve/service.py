"""The one path that every protocol calls; it knows models and requests, and no protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pyserve.errors import ModelFailed, PyserveError, Unavailable
from pyserve.loader import Changes
from pyserve.messages import InferRequest, InferResponse
from pyserve.metrics import LiveStats
from pyserve.registry import ModelIndexEntry, Registry
from pyserve.staged import infer_staged, is_staged

if TYPE_CHECKING:
    from pyserve.live import LiveVersion
    from pyserve.model import Model
    from pyserve.shared_memory import SharedMemory

_logger = logging.getLogger(__name__)


class Service:
    """Inference, statistics and changes over one registry."""

    def __init__(self, registry: Registry, shared_memory: SharedMemory | None = None) -> None:
        self._registry = registry
        self.shared_memory = shared_memory  # None: it is off
        self.draining = False  # nothing new is admitted any more
        self._why_draining = ""
        self._watchers: list[Callable[[], None]] = []

    async def infer(self, request: InferRequest) -> InferResponse:
        """Run `request` on the version it names; all that it may raise is in `pyserve.errors`."""
        wanted = request.outputs
        names = None if wanted is None else [output.name for output in wanted]
        with self._registry.lease(request.model, request.version) as model:
            try:
                if model.processor is not None or is_staged(request):
                    return await infer_staged(model, request, self.shared_memory)
                outputs, timing = await model.infer_tensors(
                    request.inputs,
                    deadline_ns=request.deadline_ns,
                    priority=request.priority,
                    outputs=names,
                )
            except ModelFailed as error:
                raise blame(model.name, model.version, request.id, error) from None
            return InferResponse(model.name, model.version, request.id, outputs, timing)

    def lease(self, name: str, version: str | None) -> LiveVersion:
        """Take a lease on the version that a request names, for who runs the request itself."""
        return self._registry.lease(name, version)

    def watch(self, *, routes: Callable[[], None], draining: Callable[[], None]) -> None:
        """Call `routes`, from any thread, when other versions serve; `draining` when that begins.

        For who keeps what `look` said: a version that it led to may go on or drain, as it is.
        """
        self._registry.watch(routes)
        self._watchers.append(draining)

    def look(self, name: str, version: str | None = None) -> Model:
        """Return a live version (a number, a label, None for the highest), to read what it says."""
        return self._registry.get(name, version)

    def versions(self, name: str) -> list[str]:
        """Return the versions of `name` that are served, lowest first."""
        return self._registry.versions(name)

    def stats(self, name: str, version: str | None = None) -> list[LiveStats]:
        """Return what one version (None: each version) of a model has done."""
        wanted: list[str | None] = [version]
        if version is None:
            # With none alive, the look-up of None raises what a request would be told.
            wanted = [*self._registry.versions(name)] or [None]
        models = [self._registry.get(name, one) for one in wanted]
        return [LiveStats(model.name, model.version, model.stats()) for model in models]

    def all_stats(self) -> Iterator[LiveStats]:
        """Return what every live version has done."""
        for name in self._registry.names():
            try:
                yield from self.stats(name)
            except PyserveError:
                # It was unloaded between the two looks.
                continue

    async def index(self) -> list[ModelIndexEntry]:
        """Return every model of the repository, loaded or not, as the disk has it now."""
        try:
            await asyncio.to_thread(self._registry.refresh)
        except PyserveError as error:
            _logger.warning("the repository index is as it was: %s", error)
        return self._registry.index()

    async def load(
        self, name: str, changes: Changes | None = None, *, more: bool = False
    ) -> tuple[str, ...]:
        """Load or reload a model; returns the versions that serve.

        The load goes on if the caller leaves. `changes` and `more` are as for `Registry.load`.
        """
        loading = asyncio.wrap_future(self._registry.load(name, changes, more=more))
        return await asyncio.shield(loading)

    async def unload(self, name: str, version: int | None = None) -> None:
        """Unload a model, or one version of it; returns when its last request is done."""
        await asyncio.shield(asyncio.wrap_future(self._registry.unload(name, version)))

    def set_default(self, name: str, version: int) -> None:
        """Let `version` of a model answer the requests that name none."""
        self._registry.set_default(name, version)

    def start_draining(self, why: str = "the server is shutting down") -> None:
        """From now on nothing new is admitted, nor is the service ready; the first `why` holds."""
        self.draining = True
        self._why_draining = self._why_draining or why
        for tell in self._watchers:
            tell()

    def refuse_while_draining(self) -> None:
        """Raise `Unavailable` for a request that came too late to be run."""
        if self.draining:
            raise Unavailable(f"{self._why_draining}: send the request to another one")

    def why_not_ready(self) -> str:
        """Return why this server should get no requests now; empty when it should."""
        if self.draining:
            return self._why_draining
        if self._registry.ready():
            return ""
        entries = self._registry.index()
        loading = sorted({one.name for one in entries if one.state == "LOADING"})
        if loading:
            return f"loading: {', '.join(loading)}"
        failed = sorted({one.name for one in entries if one.reason})
        return f"no model is loaded; failed: {', '.join(failed)}" if failed else "starting"


def blame(model: str, version: str, request_id: str, error: ModelFailed) -> ModelFailed:
    """Name what failed, so that a line in a client's log can be traced to one request."""
    request = f' request "{request_id}"' if request_id else ""
    return ModelFailed(f'model "{model}" version {version}{request}: {error}')
