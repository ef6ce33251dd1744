"""What is registered or served, in the words of TorchServe's API; nothing is changed here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from pyserve.errors import ModelNotFound, PyserveError, Unavailable
from pyserve.service import Service
from pyserve.torchserve.describe import Described, describe
from pyserve.torchserve.faults import VersionNotFound
from pyserve.torchserve.manifest import version_number
from pyserve.torchserve.registrations import StoredModel
from pyserve.typed import show

_MOST_LISTED = 100


class Listed(NamedTuple):
    """One page of models, as name and URL, and where the next one begins."""

    models: list[tuple[str, str]]
    next_page: int | None


class Catalog:
    """Look-ups over one service.

    models: what is registered from archives, by name; all others are the service's alone.
    """

    def __init__(self, service: Service, models: Mapping[str, StoredModel]) -> None:
        self._service = service
        self._models = models

    def target(self, name: str, version: str | None) -> str | None:
        """Return the version, as the service knows it, for a request that says `version`.

        Raises ModelNotFound, VersionNotFound, or Unavailable where a registered model has no
        workers.
        """
        stored = self._models.get(name)
        if stored is None:
            self._service.look(name)
            return None if version is None else self.number_of(name, version)
        number = None if version is None else str(stored.find(version).number)
        try:
            self._service.look(name, number)
        except ModelNotFound:
            named = f'Model "{name}"' + (f" Version {version}" if version else "")
            raise Unavailable(
                f"{named} has no worker to serve inference request. Please use scale workers API "
                "to add workers."
            ) from None
        return number

    def kind(self, name: str, number: str) -> str:
        """Return the handler of a live version, empty for a model that is from no archive."""
        stored = self._models.get(name)
        one = None if stored is None else stored.versions.get(int(number))
        return "" if one is None else one.converted.mapping.kind

    def number_of(self, name: str, version: str) -> str:
        """Return the version of a model that is from no archive: a label, a number, or "2.0"."""
        try:
            return self._service.look(name, version).version
        except ModelNotFound:
            self._service.look(name)  # without one of its versions, it is the model that is missing
            number = version_number(version)
            if number is not None and str(number) in self._service.versions(name):
                return str(number)
            raise VersionNotFound(
                f"Model version: {show(version)} does not exist for model: {name}"
            ) from None

    async def page(self, limit: int | None, page: int | None) -> Listed:
        """Return a page of the models that are registered or served, by name."""
        urls = {name: stored.find(None).url for name, stored in self._models.items()}
        for one in await self._service.index():
            if one.state:
                urls.setdefault(one.name, one.name)
        if limit is None or not 0 <= limit <= _MOST_LISTED:
            limit = _MOST_LISTED
        start = max(0, page or 0)
        names = sorted(urls)
        end = start + limit
        listed = [(name, urls[name]) for name in names[start:end]]
        return Listed(listed, end if end < len(names) else None)

    def describe(
        self, name: str, version: str | None, *, customized: bool = False
    ) -> list[dict[str, object]]:
        """Return descriptions of one version, of the default one (None), or of "all"."""
        stored = self._models.get(name)
        if stored is None:
            versions = self._service.versions(name)
            if version != "all" or not versions:
                named = self.number_of(name, version) if version not in (None, "all") else None
                versions = [self._service.look(name, named).version]
            told = [(int(one), Described(name, one, name)) for one in versions]
        else:
            chosen = (
                [stored.versions[one] for one in sorted(stored.versions)]
                if version == "all"
                else [stored.find(version)]
            )
            told = [
                (
                    one.number,
                    Described(name, one.text, one.url, one.converted.runtime, one.at_startup),
                )
                for one in chosen
            ]
        return [self._describe(number, one, customized) for number, one in told]

    def _describe(self, number: int, told: Described, customized: bool) -> dict[str, object]:
        default = None
        with suppress(PyserveError):
            default = self._service.look(told.name).version
        try:
            live = self._service.lease(told.name, str(number))
        except PyserveError:
            return describe(told, None, default=False, customized=customized)
        with live:
            return describe(told, live, default=default == str(number), customized=customized)
