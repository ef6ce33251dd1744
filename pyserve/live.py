"""One loaded version, and the leases that keep it loaded.

A lease is one item of a list: `list.append` and `list.pop` are atomic in CPython, so taking
and giving back a lease needs no lock, on the event loop or on any thread.  Retiring works
like this, and no order of steps loses a wake-up or closes a leased model:

  leaseholder   append, then look at `retired`; if set, give back and look the route up again
  release       pop, then look at `retired`; if set, notify under the lock
  retire        set `retired`, then wait under the lock until the list is empty
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from pyserve.config import ModelConfig
from pyserve.repository import Stamp

if TYPE_CHECKING:
    from types import TracebackType

    from pyserve.model import Model

_log = logging.getLogger(__name__)


class LiveVersion:
    """A loaded model with the leases on it; used as a context manager it is one lease.

    `Registry.lease` has taken the lease already when it returns this: entering costs nothing
    and leaving gives it back.
    """

    __slots__ = ("_idle", "config", "leases", "loaded_at", "model", "retired", "stamp")

    def __init__(self, model: Model, config: ModelConfig, stamp: Stamp | None) -> None:
        self.model = model
        self.config = config
        self.stamp = stamp
        self.loaded_at = time.time()
        self.leases: list[None] = []
        self.retired = False
        self._idle = threading.Condition(threading.Lock())

    def __enter__(self) -> Model:
        return self.model

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.leases.pop()
        if self.retired:
            with self._idle:
                self._idle.notify_all()

    def release(self) -> None:
        """Give one lease back."""
        self.__exit__(None, None, None)

    def retire(self, timeout_s: float | None) -> bool:
        """Wait for the leases, drain, close; blocks.  False if time ran out (None: no limit).

        After the time limit the model is closed all the same, which cancels what still waits.
        The caller has taken the version out of the routes before.
        """
        self.retired = True
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._idle:
            finished = self._idle.wait_for(lambda: not self.leases, timeout_s)
        try:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            # A drain hands a waiting batch to an instance: with no time left, nothing is begun.
            finished = finished and self.model.drain(left)
        except Exception:
            # What a fault in draining must not do is to leave the model open for ever.
            _log.exception("model %s version %s: drain", self.model.name, self.model.version)
            finished = False
        finally:
            self.model.close()
        return finished
