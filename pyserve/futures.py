"""Futures that end when others have ended.

They come from no executor, so they are marked as running from the start: who waits for one
and goes away cannot cancel it under the feet of the others.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def running() -> Future[T]:
    """Return a future that nobody can cancel."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    return future


def when_all(
    futures: Mapping[str, Future[T]],
    each: Callable[[str, Future[T]], None],
    finish: Callable[[], R],
) -> Future[R]:
    """Call `each` as every future ends, one at a time; the result is what `finish` returns."""
    done: Future[R] = running()
    lock = threading.Lock()
    left = len(futures)

    def settle() -> None:
        try:
            done.set_result(finish())
        except Exception as error:
            done.set_exception(error)

    def ended(key: str, future: Future[T]) -> None:
        nonlocal left
        with lock:
            try:
                each(key, future)
            finally:
                left -= 1
                last = left == 0
        if last:
            settle()

    if not futures:
        settle()
    for key, future in futures.items():
        future.add_done_callback(partial(ended, key))
    return done


def flatten(outer: Future[list[Future[T]]]) -> Future[None]:
    """Return a future that ends when `outer` and then all the futures in its result have."""
    done: Future[None] = running()

    def outer_ended(future: Future[list[Future[T]]]) -> None:
        error = future.exception()
        if error is not None:
            done.set_exception(error)
            return
        inner = {str(index): one for index, one in enumerate(future.result())}
        when_all(inner, lambda _key, _one: None, lambda: done.set_result(None))

    outer.add_done_callback(outer_ended)
    return done
