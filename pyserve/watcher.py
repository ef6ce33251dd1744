"""Model control `poll`: the models served follow the repository on disk.

A thread scans every few seconds and asks for loads and unloads; it never loads by itself.
A change counts when two scans in a row agree on it, so that a file is not loaded while it is
being copied and a folder that is swapped by two renames is not taken for removed.
"""

import logging
import threading
from collections.abc import Callable, Mapping

from pyserve.errors import PyserveError
from pyserve.repository import ModelEntry, Stamp

_log = logging.getLogger(__name__)


class Watcher:
    """Calls `load` and `unload` with the names of models that changed or went."""

    def __init__(
        self,
        *,
        scan: Callable[[], Mapping[str, ModelEntry]],
        load: Callable[[str], object],
        unload: Callable[[str], object],
        interval_s: float,
    ) -> None:
        self._scan = scan
        self._load = load
        self._unload = unload
        self._interval_s = interval_s
        self._applied: dict[str, tuple[Stamp, ...]] = {}
        self._previous: dict[str, tuple[Stamp, ...]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, entries: Mapping[str, ModelEntry]) -> None:
        """Begin to follow changes from `entries`, which have been asked for already."""
        self._applied = {name: entry.stamps for name, entry in entries.items()}
        self._previous = dict(self._applied)
        self._thread = threading.Thread(target=self._run, name="pyserve-watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following; returns when the thread has ended.  May be called twice."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def look(self) -> list[str]:
        """Scan once and act; returns the names acted on.  For the thread, and for tests."""
        current = {name: entry.stamps for name, entry in self._scan().items()}
        previous, self._previous = self._previous, current
        acted = []
        for name, stamps in current.items():
            if self._applied.get(name) != stamps and previous.get(name) == stamps:
                self._applied[name] = stamps
                self._load(name)
                acted.append(name)
        for name in [one for one in self._applied if one not in current and one not in previous]:
            del self._applied[name]
            self._unload(name)
            acted.append(name)
        return acted

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.look()
            except PyserveError as error:
                # Such as a network disk that is away: what is served stays, the next look tells.
                _log.warning("model repository: %s", error)
            except Exception:
                _log.exception("model repository: the watcher failed, it tries again")
