"""Loads, swaps and retires: everything that changes what is live.

One thread does the loads and unloads, in the order in which they were asked for.  Versions on
their way out wait for their leases on threads of their own, so that one slow request holds up
nobody's load.  A failed load leaves what served before; versions that the policy no longer
picks leave only when nothing failed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from pyserve import typed
from pyserve.config import ModelConfig
from pyserve.errors import ConfigError, LoadFailed, ModelNotFound, PyserveError, Unavailable
from pyserve.futures import flatten, running
from pyserve.live import LiveVersion
from pyserve.model_state import ModelState, Routes, without_routing
from pyserve.repository import ModelEntry, Repository

if TYPE_CHECKING:
    from pyserve.model import Model

T = TypeVar("T")
# Values for keys of a model's configuration, by the path of each key.
Changes: TypeAlias = Mapping[tuple[str, ...], object]
_MAX_RETIRING = 32
_log = logging.getLogger(__name__)


class OpenModel(Protocol):
    """Opens one version, warmed and ready; blocks; raises what `pyserve.errors` has."""

    def __call__(self, path: Path, *, name: str, version: str, config: ModelConfig) -> Model:
        """Open the model file at `path`."""
        ...


class Loader:
    """Owns the states of all models and the routes to their live versions.

    lock: guards `states` and what is in them, `closing`, and the writing of `routes`.
    routes: read without the lock; the value for a name is replaced whole, never changed.
    """

    def __init__(
        self, repository: Repository, *, open_model: OpenModel, drain_timeout_s: float | None
    ) -> None:
        self.lock = threading.Lock()
        self.states: dict[str, ModelState] = {}
        self.routes: dict[str, Routes] = {}
        self.closing = False
        self.watchers: list[Callable[[], None]] = []  # of `routes`
        self._repository = repository
        self._open_model = open_model
        self._drain_timeout_s = drain_timeout_s
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="pyserve-loader")
        self._retirer = ThreadPoolExecutor(_MAX_RETIRING, thread_name_prefix="pyserve-retire")

    def load(
        self, name: str, changes: Changes | None = None, *, more: bool = False
    ) -> Future[tuple[str, ...]]:
        """Queue a load, or a reload of what changed; the result is the versions that serve.

        changes: what stands over the configuration on disk, until the next load; with `more` it is
        added to what the last one asked for.
        """
        with self.lock:
            state = self.states.setdefault(name, ModelState(name))
            state.pending += 1

        def load_now() -> tuple[str, ...]:
            try:
                before = state.changes if more else {}
                return self._load_now(state, {**before, **(changes or {})})
            finally:
                self._load_ended(state)

        try:
            future = self._submit(load_now)
        except Unavailable:
            self._load_ended(state)
            raise
        # Who waits may cancel a load that has not begun.
        future.add_done_callback(lambda one: self._load_ended(state) if one.cancelled() else None)
        return future

    def unload(self, name: str, version: int | None = None) -> Future[None]:
        """Queue an unload; the future ends when the version, or all versions, are closed."""

        def unload_now() -> list[Future[bool]]:
            with self.lock:
                state = self.states.get(name)
                if state is None:
                    raise ModelNotFound(f"no model {typed.show(name)}")
                if version is not None and set(state.live) != {version}:
                    live = state.live.get(version)
                    if live is None:
                        raise state.refusal(str(version))
                    state.live = {one: state.live[one] for one in state.live if one != version}
                    leaving = [live]
                else:
                    leaving = list(state.live.values())
                    state.live = {}
                    state.failures = {}
                    state.error = ""
                    state.wanted = False
                    state.unloaded = True
                    state.changes = {}
                    state.default = None
                self._publish(state)
                self._retire(state, leaving)
                return [state.retiring[one] for one in leaving] or [*state.retiring.values()]

        return flatten(self._submit(unload_now))

    def set_default(self, name: str, version: int) -> None:
        """Make a live version the one for requests that name none."""
        with self.lock:
            state = self.states.get(name)
            if state is None:
                raise ModelNotFound(f"no model {typed.show(name)}")
            if version not in state.live:
                raise state.refusal(str(version))
            state.default = version
            self._publish(state)

    def close(self, timeout_s: float | None = None) -> bool:
        """Take every route away, drain and close; blocks.  False if requests were cut off.

        `timeout_s` defaults to the drain timeout and counts for all versions together.  A load
        that is under way cannot be broken off and is waited for.
        """
        limit = self._drain_timeout_s if timeout_s is None else timeout_s
        deadline = None if limit is None else time.monotonic() + limit
        with self.lock:
            self.closing = True
            # First, so that whoever meets a retired version finds no way back to it.
            self.routes.clear()
            self._tell()
            for state in self.states.values():
                live, state.live = state.live, {}
                self._retire(state, live.values(), deadline)
            leaving = [one for state in self.states.values() for one in state.retiring.values()]
        self._queue.shutdown(wait=True)
        self._retirer.shutdown(wait=True)
        return all(one.result() for one in leaving)

    def _submit(self, job: Callable[[], T]) -> Future[T]:
        try:
            return self._queue.submit(job)
        except RuntimeError as error:
            raise Unavailable("shutting down") from error

    def _load_ended(self, state: ModelState) -> None:
        with self.lock:
            state.pending -= 1
            self._forget_if_idle(state)

    def _forget_if_idle(self, state: ModelState) -> None:
        """Keep no state for names that exist nowhere; the lock is held."""
        if state.idle and state.entry is None:
            self.states.pop(state.name, None)

    def _load_now(self, state: ModelState, changes: Changes) -> tuple[str, ...]:
        """Load what is new or changed, then swap it in; runs on the loader thread."""
        if self.closing:
            raise Unavailable("shutting down")
        entry = self._read_entry(state)
        if changes:
            config = typed.overlay(entry.config, changes, ModelConfig, source="load request")
            entry = replace(entry, config=config)
        chosen = entry.chosen()
        core = without_routing(entry.config)
        with self.lock:
            fresh = [
                version
                for version in chosen
                if (live := state.live.get(version)) is None
                or live.stamp != entry.stamp_of(version)
                or live.config != core
            ]
            state.loading = set(fresh)
        opened: dict[int, LiveVersion] = {}
        failures: dict[int, str] = {}
        for version in fresh:
            if self.closing:
                break
            try:
                opened[version] = self._open(entry, version, core)
            except PyserveError as error:
                failures[version] = _without_path(error.message, chosen[version])
            except Exception as error:
                _log.exception("model %s version %s: load", entry.name, version)
                message = f"{type(error).__name__}: {error}".partition("\n")[0]
                failures[version] = _without_path(message, chosen[version])
        return self._swap(state, entry, changes, opened, failures)

    def _read_entry(self, state: ModelState) -> ModelEntry:
        error = ""
        entry = None
        try:
            entry = self._repository.find(state.name)
        except ConfigError as fault:
            error = fault.message
        with self.lock:
            state.wanted = state.wanted or entry is not None
            state.unloaded = False
            state.entry = entry or state.entry
            state.error = error or (entry.error if entry else "")
            error = state.error
        if entry is None and not error:
            raise ModelNotFound(f"no model {typed.show(state.name)} in the repository")
        if entry is None or error:
            _log.error("model %s: %s", state.name, error)
            raise LoadFailed(f'model "{state.name}": {error}')
        for note in entry.notes:
            _log.warning("model %s: %s", entry.name, note)
        return entry

    def _open(self, entry: ModelEntry, version: int, config: ModelConfig) -> LiveVersion:
        started = time.monotonic()
        model = self._open_model(
            entry.versions[version], name=entry.name, version=str(version), config=config
        )
        seconds = time.monotonic() - started
        _log.info("model %s version %s: loaded in %.2f s", entry.name, version, seconds)
        return LiveVersion(model, config, entry.stamp_of(version))

    def _swap(
        self,
        state: ModelState,
        entry: ModelEntry,
        changes: Changes,
        opened: dict[int, LiveVersion],
        failures: dict[int, str],
    ) -> tuple[str, ...]:
        """Publish what was opened; versions not chosen leave only if nothing failed."""
        with self.lock:
            state.loading = set()
            closing = self.closing
            if closing:
                self._retire(state, opened.values(), time.monotonic())
            else:
                before = state.live
                after = {**before, **opened}
                if not failures:
                    after = {one: after[one] for one in after if one in entry.chosen()}
                state.live = after
                state.failures = failures
                if not failures:
                    state.changes = changes
                state.labels = dict(entry.config.labels)
                self._publish(state)
                leaving = [live for one, live in before.items() if after.get(one) is not live]
                self._retire(state, leaving)
            failure = state.failure()
        if closing:
            raise Unavailable("shutting down")
        if failure:
            _log.error("model %s: %s", entry.name, failure)
            raise LoadFailed(f'model "{entry.name}": {failure}')
        return tuple(str(version) for version in sorted(after))

    def _publish(self, state: ModelState) -> None:
        """Replace the model's routes; the lock is held."""
        routes = state.routes()
        if routes:
            self.routes[state.name] = routes
        else:
            self.routes.pop(state.name, None)
        self._tell()

    def _tell(self) -> None:
        for changed in self.watchers:
            changed()

    def _retire(
        self, state: ModelState, leaving: Iterable[LiveVersion], deadline: float | None = None
    ) -> None:
        """Let versions end on threads of their own; the lock is held, the routes are gone."""
        for live in leaving:
            live.retired = True
            state.retiring[live] = running()
            self._retirer.submit(self._retire_now, state, live, deadline)

    def _retire_now(self, state: ModelState, live: LiveVersion, deadline: float | None) -> None:
        named = (live.model.name, live.model.version)
        timeout_s = self._drain_timeout_s
        if deadline is not None:
            timeout_s = max(0.0, deadline - time.monotonic())
        finished = False
        try:
            finished = live.retire(timeout_s)
            if finished:
                _log.info("model %s version %s: unloaded", *named)
            else:
                _log.warning("model %s version %s: closed with requests in flight", *named)
        except Exception:
            _log.exception("model %s version %s: close", *named)
        with self.lock:
            future = state.retiring.pop(live)
            self._forget_if_idle(state)
        future.set_result(finished)


def _without_path(message: str, path: Path) -> str:
    """Keep where the repository lies out of what clients may read."""
    return message.replace(f"{path.parent}/", "")
