"""What the registry knows about one model: what the disk says, what is live, what went wrong.

No thread, no lock and no loading here: the registry guards these values, and this file turns
them into answers, namely the routes for leases, the index, and the error for who finds none.
"""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from pyserve.config import ModelConfig, Versions
from pyserve.errors import ModelNotFound, PyserveError, Unavailable
from pyserve.live import LiveVersion
from pyserve.repository import ModelEntry

State: TypeAlias = Literal["LOADING", "READY", "UNLOADING", "UNAVAILABLE"]
# What a client may name: a version's number, a label, or None for the default.
Routes: TypeAlias = dict[str | None, LiveVersion]


class ModelIndexEntry(msgspec.Struct, frozen=True):
    """One line of the repository index.

    version: empty where the model has none that could be told.
    state: empty where nobody has asked for this model since the start.
    reason: why it is not served, or why its last reload failed while it serves on.
    """

    name: str
    version: str = ""
    state: State | Literal[""] = ""
    reason: str = ""


def without_routing(config: ModelConfig) -> ModelConfig:
    """Return `config` without what only steers requests: its change needs no reload."""
    return msgspec.structs.replace(config, labels={}, versions=Versions())


@dataclass(slots=True)
class ModelState:
    """One model's state; every field is guarded by the registry's lock.

    pending: loads asked for and not finished.
    wanted: it was loaded, or tried, and not unloaded since.
    changes: what the load asked for, over the configuration on disk.
    default: the version for requests that name none, where it is not the highest.
    retiring: versions on their way out, each with a future: whether all its requests ended.
    """

    name: str
    entry: ModelEntry | None = None
    live: dict[int, LiveVersion] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    loading: set[int] = field(default_factory=set)
    retiring: dict[LiveVersion, Future[bool]] = field(default_factory=dict)
    error: str = ""
    pending: int = 0
    wanted: bool = False
    unloaded: bool = False
    changes: Mapping[tuple[str, ...], object] = field(default_factory=dict)
    default: int | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is live, leaving or asked for."""
        return not (self.live or self.retiring or self.pending or self.wanted)

    def routes(self) -> Routes:
        """Return where each version and label leads; None is the default version."""
        routes: Routes = {str(version): live for version, live in self.live.items()}
        for label, version in self.labels.items():
            if version in self.live:
                routes[label] = self.live[version]
        if self.live:
            default = self.default if self.default in self.live else None
            routes[None] = self.live[max(self.live) if default is None else default]
        return routes

    def failure(self) -> str:
        """Return why the last load failed, or ``""``."""
        if self.error:
            return self.error
        return "; ".join(f"version {one}: {why}" for one, why in sorted(self.failures.items()))

    def index(self) -> list[ModelIndexEntry]:
        """Return this model's lines of the index, lowest version first."""
        entry = self.entry
        known = set(self.live) | set(self.failures) | self.loading
        known.update(int(one.model.version) for one in self.retiring)
        if entry is not None:
            known.update(entry.versions, entry.problems)
        if not known:
            return [self._line("")]
        return [self._line(str(version)) for version in sorted(known)]

    def _line(self, version: str) -> ModelIndexEntry:
        number = int(version or 0)
        failure = self.failures.get(number, "") or self.error
        state: State | Literal[""]
        if number in self.live:
            lost = self.live[number].model.failure
            return ModelIndexEntry(
                self.name, version, "UNAVAILABLE" if lost else "READY", lost or failure
            )
        if number in self.loading or (self.pending and not self.live):
            state, reason = "LOADING", ""
        elif any(one.model.version == version for one in self.retiring):
            state, reason = "UNLOADING", ""
        elif failure:
            state, reason = "UNAVAILABLE", failure
        elif self.entry is not None and number in self.entry.problems:
            state, reason = "UNAVAILABLE", self.entry.problems[number]
        elif self.unloaded:
            state, reason = "UNAVAILABLE", "unloaded"
        elif self.wanted:
            state, reason = "UNAVAILABLE", "not chosen by the version policy"
        else:
            state, reason = "", ""
        return ModelIndexEntry(self.name, version, state, reason)

    def refusal(self, version: str | None) -> PyserveError:
        """Return the error for a request that found no live version."""
        named = f'model "{self.name}"'
        leaving = {one.model.version for one in self.retiring}
        if self.live:
            if version in leaving:
                return Unavailable(f'{named}: version "{version}" is being unloaded')
            if version in {str(one) for one in self.loading}:
                return Unavailable(f'{named}: version "{version}" is loading')
            served = ", ".join(str(one) for one in sorted(self.live))
            if version in self.labels:
                target = self.labels[version]
                return ModelNotFound(
                    f'{named}: label "{version}" names version {target}, which is not served; '
                    f"served: {served}"
                )
            return ModelNotFound(f'{named} has no version "{version}"; served: {served}')
        if self.pending or self.loading:
            return Unavailable(f"{named} is loading")
        if leaving:
            return Unavailable(f"{named} is being unloaded")
        failure = self.failure()
        if failure:
            return Unavailable(f"{named} failed to load: {failure}")
        return ModelNotFound(f"{named} is not loaded")
