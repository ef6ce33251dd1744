"""pyserve.futures: futures that end with others."""

from concurrent.futures import Future

import pytest

from pyserve.futures import flatten, running, when_all


def test_all_of_none_is_done_at_once() -> None:
    assert when_all({}, lambda _key, _one: None, lambda: 7).result(0) == 7


def test_all_ends_with_the_last_and_tells_each_as_it_ends() -> None:
    a: Future[int] = Future()
    b: Future[int] = Future()
    told: list[str] = []
    done = when_all({"a": a, "b": b}, lambda key, _one: told.append(key), lambda: len(told))
    b.set_exception(ValueError("no"))
    assert told == ["b"]
    assert not done.done()
    a.set_result(1)
    assert done.result(0) == 2
    assert told == ["b", "a"]


def test_a_fault_at_the_end_is_the_result() -> None:
    def fault() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        when_all({}, lambda _key, _one: None, fault).result(0)


def test_flatten_waits_for_the_inner_ones_and_passes_an_outer_error_on() -> None:
    outer: Future[list[Future[bool]]] = Future()
    inner: Future[bool] = Future()
    done = flatten(outer)
    outer.set_result([inner])
    assert not done.done()
    inner.set_result(True)
    assert done.result(0) is None
    failing: Future[list[Future[bool]]] = Future()
    failed = flatten(failing)
    failing.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        failed.result(0)


def test_nobody_can_cancel_what_others_wait_for() -> None:
    future: Future[int] = running()
    assert not future.cancel()
    future.set_result(1)
    assert future.result(0) == 1
