"""What clients of TorchServe's API may change: register, scale, set the default, unregister.

Models from archives are the shelf's; all others that the server has are told and changed in the
same words.  Loading, versions, batching and draining are the service's: an archive, once it is
unpacked, is a model like any other.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pyserve.errors import (
    InvalidInput,
    ModelFailed,
    ModelNotFound,
    PermissionDenied,
    PyserveError,
    Unavailable,
)
from pyserve.service import Service
from pyserve.torchserve.catalog import Catalog
from pyserve.torchserve.convert import Converted
from pyserve.torchserve.download import check_allowed, download, is_url
from pyserve.torchserve.faults import AlreadyRegistered, DefaultVersion
from pyserve.torchserve.manifest import ModelSettings, check_name
from pyserve.torchserve.registrations import Registration, StoredModel
from pyserve.torchserve.shelf import Shelf
from pyserve.typed import show

MAX_WORKERS = 1024
_RUNTIMES = ("python", "python2", "python3", "lsp")
_ACCEPTED = "Processing worker updates..."

_log = logging.getLogger(__name__)


class Said(NamedTuple):
    """The answer to a change: 200 for what is done, 202 for what will be."""

    code: Literal[200, 202]
    status: str


class Register(NamedTuple):
    """What a client says of an archive to register; None is the default."""

    url: str
    model_name: str = ""
    handler: str = ""
    runtime: str = ""
    batch_size: int | None = None
    max_batch_delay: int | None = None
    response_timeout: int | None = None
    initial_workers: int | None = None
    synchronous: bool = False


class Store:
    """TorchServe's management, over one service; used on its event loop.

    shelf: None where the server has neither a model store nor URLs to take archives from.
    """

    def __init__(
        self, service: Service, shelf: Shelf | None, *, allowed_urls: Sequence[str] = ()
    ) -> None:
        self._service = service
        self._shelf = shelf
        self._models = {} if shelf is None else shelf.models
        self.catalog = Catalog(service, self._models)
        self._allowed_urls = allowed_urls
        # One change after the other: they rewrite the same files.
        self._changing = asyncio.Lock()
        self._later: set[asyncio.Task[None]] = set()

    # --- changes ------------------------------------------------------------------------------

    async def register(self, wanted: Register) -> Said:
        """Take an archive in, and load it if it is to have workers."""
        shelf = self._shelf
        if shelf is None:
            raise InvalidInput(
                "nothing can be registered here: start the server with --model-store"
            )
        if not wanted.url:
            raise InvalidInput("Parameter url is required.")
        if wanted.runtime and wanted.runtime.lower() not in _RUNTIMES:
            raise InvalidInput(f"runtime {show(wanted.runtime)} is not one of {_RUNTIMES}")
        if wanted.model_name:
            check_name(wanted.model_name)
        workers = _checked_workers(wanted.initial_workers or 0)
        async with self._changing:
            made = await self._fetch(shelf, wanted)
            try:
                model, registration = await self._enter(shelf, made, wanted)
            except BaseException:
                await asyncio.to_thread(shutil.rmtree, made.folder, ignore_errors=True)
                raise
            for note in made.notes:
                _log.warning("archive %s: %s", wanted.url, note)
            workers = registration.workers or 0
            named = f'Model "{model.name}" Version: {registration.text} registered with'
            if not workers:
                return Said(
                    200,
                    f"{named} 0 initial workers. Use scale workers API to add workers for the "
                    "model.",
                )
            if not wanted.synchronous:
                self._soon(self._load_registered(model.name, registration.number))
                return Said(202, _ACCEPTED)
            try:
                await self._load(model.name)
            except PyserveError as error:
                await self._forget(shelf, model.name, registration.number)
                raise ModelFailed(f"Failed to start workers: {error}") from None
            return Said(200, f"{named} {workers} initial workers")

    async def _fetch(self, shelf: Shelf, wanted: Register) -> Converted:
        """Unpack the archive that a client names, from the store or from where it lies."""

        async def unpack(archive: Path) -> Converted:
            return await asyncio.to_thread(
                shelf.unpack, archive, model_name=wanted.model_name, handler=wanted.handler
            )

        url = wanted.url
        if not is_url(url) or url.startswith("file://"):
            return await unpack(shelf.find(url.removeprefix("file://")))
        check_allowed(url, self._allowed_urls)
        downloaded = shelf.scratch()
        try:
            await download(url, downloaded, self._allowed_urls)
            return await unpack(downloaded)
        finally:
            downloaded.unlink(missing_ok=True)

    async def _enter(
        self, shelf: Shelf, made: Converted, wanted: Register
    ) -> tuple[StoredModel, Registration]:
        name = made.model
        others = {one.name for one in await self._service.index()} - set(self._models)
        if name in others and self._service_has(name):
            raise AlreadyRegistered(f"model {name} is served from a model repository already")
        asked = ModelSettings(
            min_workers=wanted.initial_workers,
            batch_size=wanted.batch_size,
            max_batch_delay=wanted.max_batch_delay,
            response_timeout=wanted.response_timeout,
        )
        model, registration = shelf.registered(made, wanted.url, asked, at_startup=False)
        await asyncio.to_thread(shelf.place, model, registration)
        self._models[name] = model
        return model, registration

    async def scale(
        self,
        name: str,
        version: str | None,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
        synchronous: bool = False,
    ) -> Said:
        """Give a model as many instances as the minimum says; 0 unloads the version."""
        workers = _checked_workers(1 if minimum is None else minimum)
        if maximum is not None and maximum < workers:
            raise InvalidInput("max_worker cannot be less than min_worker.")
        self._check_known(name, version)
        change = self._scale(name, version, workers)
        if not synchronous:
            self._soon(change)
            return Said(202, _ACCEPTED)
        await change
        named = f", version: {version}" if version else ""
        return Said(200, f"Workers scaled to {workers} for model: {name}{named}")

    async def _scale(self, name: str, version: str | None, workers: int) -> None:
        async with self._changing:
            stored = self._models.get(name)
            if stored is None or self._shelf is None:
                await self._scale_other(name, version, workers)
                return
            number = stored.find(version).number
            model = replace(stored, versions=dict(stored.versions))
            model.scale(number, workers)
            await asyncio.to_thread(self._shelf.rewrite, model)
            self._models[name] = model
            if workers:
                await self._load(name)
            elif str(number) in self._service.versions(name):
                await self._service.unload(name, number)

    async def _scale_other(self, name: str, version: str | None, workers: int) -> None:
        if workers:
            await self._service.load(name, {("instances", "count"): workers}, more=True)
            return
        number = (
            self.catalog.number_of(name, version) if version else self._service.look(name).version
        )
        await self._service.unload(name, int(number))

    async def set_default(self, name: str, version: str) -> Said:
        """Let a version answer the requests that name none."""
        async with self._changing:
            stored = self._models.get(name)
            if stored is None:
                self._service.set_default(name, int(self.catalog.number_of(name, version)))
            else:
                number = stored.find(version).number
                if str(number) in self._service.versions(name):
                    self._service.set_default(name, number)
                self._models[name] = replace(stored, default=number)
        return Said(200, f'Default version successfully updated for model "{name}" to "{version}"')

    async def unregister(self, name: str, version: str | None) -> Said:
        """Forget a version; the default one goes last."""
        self._check_known(name, version)
        async with self._changing:
            stored = self._models.get(name)
            if stored is None or self._shelf is None:
                await self._unregister_other(name, version)
            else:
                number = stored.find(version).number
                if number == stored.default and len(stored.versions) > 1:
                    raise DefaultVersion(f"Cannot remove default version for model {name}")
                await self._forget(self._shelf, name, number)
        return Said(200, f'Model "{name}" unregistered')

    async def _unregister_other(self, name: str, version: str | None) -> None:
        default = self._service.look(name).version
        number = self.catalog.number_of(name, version) if version else default
        if number == default and len(self._service.versions(name)) > 1:
            raise DefaultVersion(f"Cannot remove default version for model {name}")
        await self._service.unload(name, int(number))

    # --- under the hood -----------------------------------------------------------------------

    def settle(self) -> None:
        """Make the default versions known, when what is served from the start is loaded."""
        for name in self._models:
            try:
                self._set_default(name)
            except PermissionDenied as error:
                _log.warning("model %s: its default version is the highest: %s", name, error)

    async def close(self) -> None:
        """Break off the changes that nobody waits for."""
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)

    def _check_known(self, name: str, version: str | None) -> None:
        """Raise ModelNotFound or VersionNotFound for what is not there to be changed."""
        stored = self._models.get(name)
        if stored is not None:
            stored.find(version)
        elif version is not None:
            self.catalog.number_of(name, version)
        elif not self._service_has(name):
            self._service.look(name)

    def _service_has(self, name: str) -> bool:
        """Whether the service serves it, or would, had it not failed or been told not to."""
        try:
            self._service.look(name)
        except ModelNotFound:
            return False
        except Unavailable:
            return True
        return True

    async def _load(self, name: str) -> None:
        await self._service.load(name)
        self._set_default(name)

    async def _load_registered(self, name: str, number: int) -> None:
        """Load what was registered a moment ago; it keeps no workers where that fails."""
        async with self._changing:
            stored = self._models.get(name)
            if stored is None or number not in stored.versions or self._shelf is None:
                return
            try:
                await self._load(name)
            except PyserveError:
                model = replace(stored, versions=dict(stored.versions))
                model.scale(number, 0)
                await asyncio.to_thread(self._shelf.rewrite, model)
                self._models[name] = model
                raise

    def _set_default(self, name: str) -> None:
        """The service's own default is the highest version; let it be ours, where that is live."""
        stored = self._models[name]
        versions = self._service.versions(name)
        if str(stored.default) in versions and self._service.look(name).version != str(
            stored.default
        ):
            self._service.set_default(name, stored.default)

    async def _forget(self, shelf: Shelf, name: str, number: int) -> None:
        """Take a version out of what is registered, off the disk, and out of service."""
        stored = self._models[name]
        model = replace(stored, versions=dict(stored.versions))
        model.remove(number)
        await asyncio.to_thread(shelf.remove, model, number)
        if model.versions:
            self._models[name] = model
        else:
            del self._models[name]
        with suppress(ModelNotFound, Unavailable):  # it may not have been loaded at all
            await self._service.unload(name, number if model.versions else None)

    def _soon(self, change: Coroutine[Any, Any, None]) -> None:
        """Make a change that the client does not wait for; the log has what becomes of it."""

        async def make() -> None:
            try:
                await change
            except PyserveError as error:
                _log.error("%s", error)
            except Exception:
                _log.exception("a change that a client asked for")

        task = asyncio.create_task(make())
        self._later.add(task)
        task.add_done_callback(self._later.discard)


def _checked_workers(count: int) -> int:
    if not 0 <= count <= MAX_WORKERS:
        raise InvalidInput(f"expected a number of workers from 0 to {MAX_WORKERS}, got {count}")
    return count
