"""Name, version or label -> a leased live version; and who may change what is live.

`lease` is on the path of every request: two dict look-ups and one list append, no lock.  How
models are loaded, swapped and retired is in `loader.py`; what a model is and how one is opened
is injected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal

from pyserve import typed
from pyserve.errors import (
    ConfigError,
    ModelNotFound,
    PermissionDenied,
    PyserveError,
    Unavailable,
)
from pyserve.futures import when_all
from pyserve.live import LiveVersion
from pyserve.loader import Changes, Loader, OpenModel
from pyserve.model_state import ModelIndexEntry, ModelState
from pyserve.repository import Repository
from pyserve.watcher import Watcher

if TYPE_CHECKING:
    from pyserve.model import Model

__all__ = ["ModelIndexEntry", "OpenModel", "Progress", "Registry"]

# Told after each model of `load_all`: name, how many are done, of how many, and why it failed.
Progress = Callable[[str, int, int, str], None]


class Registry:
    """The live versions of all models.  Every method may be called from any thread.

    control: `none` refuses changes after `load_all`, `explicit` obeys `load` and `unload`,
    `poll` follows the repository every `poll_interval_s` seconds.
    drain_timeout_s: how long a version on its way out waits for its requests (None: no limit).
    """

    def __init__(
        self,
        repository: Repository,
        *,
        open_model: OpenModel,
        control: Literal["none", "explicit", "poll"] = "explicit",
        poll_interval_s: float = 5.0,
        drain_timeout_s: float | None = 30.0,
    ) -> None:
        self.repository = repository
        self.control = control
        self._loader = Loader(repository, open_model=open_model, drain_timeout_s=drain_timeout_s)
        # The loader's own dict, looked up once here and not for every request.
        self._routes = self._loader.routes
        self._settled = False
        self._watcher = Watcher(
            scan=repository.scan,
            load=self._loader.load,
            unload=self._loader.unload,
            interval_s=poll_interval_s,
        )

    # --- requests ---------------------------------------------------------------------------

    def lease(self, name: str, version: str | None = None) -> LiveVersion:
        """Take a lease; use it at once: `with registry.lease(name, version) as model`.

        `version` is a number or a label; None is the default, the highest live version unless
        `set_default` said otherwise.  Raises
        ModelNotFound, or Unavailable while the model is loading or being unloaded.
        """
        try:
            live = self._routes[name][version]
        except KeyError:
            raise self._refusal(name, version) from None
        live.leases.append(None)
        if live.retired:
            # It left between the two lines above; its successor, if any, has the route now.
            live.release()
            return self.lease(name, version)
        return live

    def get(self, name: str, version: str | None = None) -> Model:
        """Return a live model without a lease, to look at; raises as `lease` does."""
        try:
            return self._routes[name][version].model
        except KeyError:
            raise self._refusal(name, version) from None

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` behind every change of what serves, on the thread that makes it."""
        self._loader.watchers.append(changed)

    def names(self) -> list[str]:
        """Return the names of the models that serve now."""
        return sorted(self._routes)

    def versions(self, name: str) -> list[str]:
        """Return the versions of `name` that serve now, lowest first."""
        routes = self._routes.get(name, {})
        return sorted({live.model.version for live in routes.values()}, key=int)

    def live(self) -> list[Model]:
        """Return every live model, by name and version."""
        with self._loader.lock:
            states = [self._loader.states[name] for name in sorted(self._loader.states)]
            return [state.live[one].model for state in states for one in sorted(state.live)]

    def index(self) -> list[ModelIndexEntry]:
        """Return every model known, with state and reason; reads no disk (see `refresh`)."""
        with self._loader.lock:
            states = [self._loader.states[name] for name in sorted(self._loader.states)]
            return [line for state in states for line in state.index()]

    def ready(self) -> bool:
        """Whether the first loads are over and there is something to serve, or nothing asked."""
        with self._loader.lock:
            if self._loader.closing or not self._settled:
                return False
            return bool(self._routes) or not any(one.wanted for one in self._loader.states.values())

    # --- changes ----------------------------------------------------------------------------

    def load_all(
        self, names: Iterable[str] | None = None, *, progress: Progress | None = None
    ) -> Future[dict[str, str]]:
        """Load the models named, or all; the result maps each to why it failed, or to ``""``.

        The registry is not ready before this has ended.  Raises ConfigError at once if the
        repository cannot be read or a name is not in it.
        """
        entries = self.repository.scan()
        wanted = list(entries) if names is None else list(dict.fromkeys(names))
        for name in wanted:
            if name not in entries:
                hint = typed.nearest(name, entries) or f"; it has: {', '.join(entries) or 'none'}"
                raise ConfigError(f'model "{name}" is not in the repository{hint}')
        with self._loader.lock:
            for name, entry in entries.items():
                self._loader.states.setdefault(name, ModelState(name)).entry = entry
        results: dict[str, str] = {}

        def finished(name: str, future: Future[tuple[str, ...]]) -> None:
            error = future.exception()
            results[name] = "" if error is None else str(error)
            if progress is not None:
                progress(name, len(results), len(wanted), results[name])

        def settled() -> dict[str, str]:
            with self._loader.lock:
                self._settled = True
            if self.control == "poll":
                self._watcher.start(entries)
            return results

        return when_all({name: self._loader.load(name) for name in wanted}, finished, settled)

    def load(
        self, name: str, changes: Changes | None = None, *, more: bool = False
    ) -> Future[tuple[str, ...]]:
        """Load, or reload what changed on disk; the result is the versions that serve then.

        changes: values for keys of the configuration, such as `{("instances", "count"): 2}`, that
        stand over what is on disk until the next load; with `more` they are added to those of the
        load before.

        The future fails with ModelNotFound, ConfigError or LoadFailed; what served before
        serves on.  Raises PermissionDenied where model control is not `explicit`.
        """
        self._check_control()
        return self._loader.load(name, changes, more=more)

    def unload(self, name: str, version: int | None = None) -> Future[None]:
        """Unload; the future ends when the last request has ended and the model is closed.

        With a `version` only that one leaves, until the next load.  The future fails with
        ModelNotFound for a name never heard of, or a version that is not served.  Raises
        PermissionDenied where model control is not `explicit`.
        """
        self._check_control()
        return self._loader.unload(name, version)

    def set_default(self, name: str, version: int) -> None:
        """Let `version` answer requests that name none, until the model is unloaded.

        Raises ModelNotFound where it is not served, PermissionDenied where model control is not
        `explicit`.
        """
        self._check_control()
        self._loader.set_default(name, version)

    def refresh(self) -> None:
        """Read the repository anew, so that `index` lists what has come and gone; blocks."""
        entries = self.repository.scan()
        with self._loader.lock:
            for name, entry in entries.items():
                self._loader.states.setdefault(name, ModelState(name)).entry = entry
            for name in [one for one in self._loader.states if one not in entries]:
                if self._loader.states[name].idle:
                    del self._loader.states[name]

    def close(self, timeout_s: float | None = None) -> bool:
        """Refuse new leases, drain every version and close it; blocks.  False if time ran out.

        `timeout_s` defaults to the drain timeout and counts for all versions together.  A load
        that is under way cannot be broken off and is waited for.
        """
        self._watcher.stop()
        return self._loader.close(timeout_s)

    # --- under the hood ---------------------------------------------------------------------

    def _check_control(self) -> None:
        if self.control != "explicit":
            raise PermissionDenied(
                f'model control is "{self.control}": loading and unloading by request needs '
                '"explicit"'
            )

    def _refusal(self, name: str, version: str | None) -> PyserveError:
        with self._loader.lock:
            if self._loader.closing:
                return Unavailable("shutting down")
            state = self._loader.states.get(name)
            if state is not None:
                return state.refusal(version)
            hint = typed.nearest(name, self._routes)
        return ModelNotFound(f"no model {typed.show(name)}{hint}")
