"""Many requests in order, a bounded number under way: an iterator for threads.

How one request is sent is a function's business: `submit(inputs)` returns at once, and what it
returns waits for the result.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from pyserve.client.results import InferResult
from pyserve.client.values import Inputs
from pyserve.errors import ConfigError, PyserveError

R = TypeVar("R", covariant=True)


class Submit(Protocol):
    """Sends one request of a stream after the other."""

    def __call__(self, inputs: Inputs, /) -> Callable[[], InferResult]:
        """Send a request; what is returned waits for its result, or raises its error."""

    def close(self) -> None:
        """Give up what is still under way."""


class Stream(Generic[R]):
    """An iterator over results; goes on after a request's error has been raised.

    Close it (or use it in `with`) to leave before the end.
    """

    def __init__(
        self,
        inputs: Iterable[Inputs],
        submit: Submit,
        max_in_flight: int,
        *,
        return_errors: bool,
    ) -> None:
        if max_in_flight < 1:
            raise ConfigError(f"max_in_flight is {max_in_flight}, expected 1 or more")
        self._return_errors = return_errors
        self._feeder = _Feeder(submit, max_in_flight)
        # The thread must not keep alive the one whose end is to stop it.
        self.close = weakref.finalize(self, self._feeder.stop)
        self._feeder.start(inputs)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        feeder = self._feeder
        wait = None if feeder.ended else feeder.waiting.get()
        if wait is None:
            feeder.ended = True
            self.close()
            raise StopIteration
        try:
            result: Any = wait()
        except PyserveError as error:
            if not self._return_errors:
                raise
            result = error
        finally:
            feeder.room.release()
        answer: R = result
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Feeder:
    """The thread that takes inputs from their source, while there is room, and submits them."""

    def __init__(self, submit: Submit, max_in_flight: int) -> None:
        self.room = threading.Semaphore(max_in_flight)
        self.waiting: SimpleQueue[Callable[[], InferResult] | None] = SimpleQueue()
        self.ended = False
        self._submit = submit
        self._stopped = False

    def start(self, inputs: Iterable[Inputs]) -> None:
        threading.Thread(
            target=self._feed, args=(iter(inputs),), name="pyserve-stream", daemon=True
        ).start()

    def stop(self) -> None:
        self.ended = self._stopped = True
        self.room.release()
        self._submit.close()

    def _feed(self, inputs: Iterator[Inputs]) -> None:
        try:
            while True:
                self.room.acquire()
                if self._stopped:
                    break
                try:
                    one = next(inputs)
                except StopIteration:
                    break
                self.waiting.put(self._submitted(one))
        except BaseException as error:
            # The source failed: its error is the last of the results.
            self.waiting.put(_raising(error))
        self.waiting.put(None)

    def _submitted(self, inputs: Inputs) -> Callable[[], InferResult]:
        try:
            return self._submit(inputs)
        except PyserveError as error:
            return _raising(error)


def _raising(error: BaseException) -> Callable[[], InferResult]:
    def wait() -> InferResult:
        raise error

    return wait
