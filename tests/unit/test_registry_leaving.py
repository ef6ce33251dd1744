"""pyserve.registry and the loader behind it: unloading, closing, who may, many at once."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, cast

import pytest
from fake_model import LIMIT_S, FakeModel, Opener, content, index, put, wait

from pyserve.errors import (
    ModelNotFound,
    PermissionDenied,
    PyserveError,
    Unavailable,
)
from pyserve.live import LiveVersion
from pyserve.registry import Registry
from pyserve.repository import Repository


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def registry(tmp_path: Path, opener: Opener) -> Iterator[Registry]:
    one = Registry(Repository([tmp_path]), open_model=opener)
    yield one
    one.close(LIMIT_S)


# --- unloading ----------------------------------------------------------------------------


def test_unload_waits_for_the_lease_then_drains_then_closes(
    tmp_path: Path, registry: Registry, opener: Opener
) -> None:
    put(tmp_path, "m")
    wait(registry.load("m"))
    with registry.lease("m") as leased:
        future = registry.unload("m")
        # The unload has run once the model has no route; the lease still holds it.
        wait(_fence(registry))
        assert not future.done()
        assert index(registry) == [("m", "1", "UNLOADING", "")]
        with pytest.raises(Unavailable, match="is being unloaded"):
            registry.lease("m")
        assert not cast(FakeModel, leased).closed.is_set()
    wait(future)
    assert opener.opened[0].drained == 1
    assert opener.opened[0].closed.is_set()
    assert index(registry) == [("m", "1", "UNAVAILABLE", "unloaded")]
    with pytest.raises(ModelNotFound, match="is not loaded"):
        registry.lease("m")
    wait(registry.unload("m"))


def _fence(registry: Registry) -> Future[object]:
    """A future that ends when the loader has done everything asked for before."""
    ended: Future[object] = Future()
    registry.load("no-such-model").add_done_callback(lambda _: ended.set_result(None))
    return ended


def test_a_model_can_be_loaded_again_while_its_old_self_is_draining(
    tmp_path: Path, registry: Registry
) -> None:
    put(tmp_path, "m")
    wait(registry.load("m"))
    with registry.lease("m") as old:
        unload = registry.unload("m")
        wait(registry.load("m"))
        with registry.lease("m") as new:
            assert new is not old
        assert not unload.done()
    wait(unload)
    assert content(registry) == "good"


def test_a_lease_beyond_the_drain_timeout_is_cut_off(tmp_path: Path, opener: Opener) -> None:
    put(tmp_path, "m")
    registry = Registry(Repository([tmp_path]), open_model=opener, drain_timeout_s=0.0)
    wait(registry.load("m"))
    with registry.lease("m"):
        wait(registry.unload("m"))
        assert opener.opened[0].closed.is_set()
    registry.close()


def test_a_fault_while_draining_still_closes(
    tmp_path: Path, registry: Registry, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(self: FakeModel, timeout_s: float | None) -> bool:
        raise RuntimeError("drain")

    monkeypatch.setattr(FakeModel, "drain", fault)
    put(tmp_path, "m")
    wait(registry.load("m"))
    wait(registry.unload("m"))
    assert opener.opened[0].closed.is_set()


# --- closing ------------------------------------------------------------------------------


def test_close_drains_and_closes_all_and_refuses_from_then_on(
    tmp_path: Path, opener: Opener
) -> None:
    for name in "abc":
        put(tmp_path, name)
    registry = Registry(Repository([tmp_path]), open_model=opener)
    registry.load_all().result(LIMIT_S)
    assert registry.close(LIMIT_S)
    assert all(model.closed.is_set() and model.drained == 1 for model in opener.opened)
    assert not registry.ready()
    for call in (registry.lease, registry.get):
        with pytest.raises(Unavailable, match="shutting down"):
            call("a")
    with pytest.raises(Unavailable, match="shutting down"):
        registry.load("a")
    with pytest.raises(Unavailable, match="shutting down"):
        registry.unload("a")
    assert registry.close(LIMIT_S)


def test_close_tells_when_a_request_was_cut_off(tmp_path: Path, opener: Opener) -> None:
    put(tmp_path, "m")
    registry = Registry(Repository([tmp_path]), open_model=opener)
    wait(registry.load("m"))
    with registry.lease("m"):
        assert not registry.close(0.0)
        assert opener.opened[0].closed.is_set()


def test_close_during_a_load_closes_what_comes_of_it(tmp_path: Path) -> None:
    for name in "abc":
        put(tmp_path, name)
    entered, go_on = threading.Event(), threading.Event()

    def hold(name: str, version: str) -> None:
        entered.set()
        assert go_on.wait(LIMIT_S)

    opener = Opener(hold)
    registry = Registry(Repository([tmp_path]), open_model=opener)
    future = registry.load_all()
    assert entered.wait(LIMIT_S)
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(registry.close, LIMIT_S)
        with pytest.raises(Unavailable, match="shutting down"):
            while True:
                registry.load("a")
        go_on.set()
        assert closed.result(LIMIT_S)
    assert set(future.result(LIMIT_S).values()) == {"shutting down"}
    assert [model.closed.is_set() for model in opener.opened] == [True]


# --- control, asyncio, many clients -------------------------------------------------------


@pytest.mark.parametrize("control", ["none", "poll"])
def test_loading_by_request_needs_explicit_control(
    tmp_path: Path, control: Literal["none", "poll"]
) -> None:
    put(tmp_path, "m")
    registry = Registry(Repository([tmp_path]), open_model=Opener(), control=control)
    registry.load_all().result(LIMIT_S)
    for call in (registry.load, registry.unload):
        with pytest.raises(PermissionDenied, match=f'model control is "{control}"'):
            call("m")
    assert content(registry) == "good"
    registry.close(LIMIT_S)


async def test_futures_are_awaited_from_asyncio(tmp_path: Path, registry: Registry) -> None:
    put(tmp_path, "m")
    assert await asyncio.wrap_future(registry.load("m")) == ("1",)
    with registry.lease("m") as model:
        unload = asyncio.wrap_future(registry.unload("m"))
        assert not cast(FakeModel, model).closed.is_set()
    await unload


async def test_a_waiter_that_leaves_does_not_stop_an_unload(
    tmp_path: Path, registry: Registry, opener: Opener
) -> None:
    put(tmp_path, "m")
    await asyncio.wrap_future(registry.load("m"))
    with registry.lease("m"):
        waiter = asyncio.wrap_future(registry.unload("m"))
        waiter.cancel()
    await asyncio.wrap_future(registry.unload("m"))
    assert opener.opened[0].closed.is_set()


def test_a_load_cancelled_before_it_begins_is_forgotten(tmp_path: Path) -> None:
    put(tmp_path, "slow")
    put(tmp_path, "m")
    entered, go_on = threading.Event(), threading.Event()

    def hold(name: str, version: str) -> None:
        entered.set()
        assert go_on.wait(LIMIT_S)

    registry = Registry(Repository([tmp_path]), open_model=Opener(hold))
    slow = registry.load("slow")
    assert entered.wait(LIMIT_S)
    assert registry.load("m").cancel()
    go_on.set()
    wait(slow)
    assert index(registry) == [("slow", "1", "READY", "")]
    registry.close(LIMIT_S)


class StaleOnce(dict[str, dict[str | None, LiveVersion]]):
    """Routes that answer once as they stood before a change: a thread was held up in between."""

    def __init__(self, stale: dict[str, dict[str | None, LiveVersion]]) -> None:
        self.stale: dict[str, dict[str | None, LiveVersion]] | None = stale

    def __getitem__(self, name: str) -> dict[str | None, LiveVersion]:
        if self.stale is None:
            return super().__getitem__(name)
        stale, self.stale = self.stale, None
        return stale[name]


def test_a_lease_that_meets_a_retired_version_takes_its_successor(
    tmp_path: Path, registry: Registry, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "m", content="old")
    wait(registry.load("m"))
    routes = StaleOnce(dict(registry._routes))
    put(tmp_path, "m", content="new")
    wait(registry.load("m"))
    assert opener.opened[0].closed.wait(LIMIT_S)
    routes.update(registry._routes)
    monkeypatch.setattr(registry, "_routes", routes)
    assert content(registry) == "new"


def test_a_lease_that_meets_an_unloaded_version_is_refused(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "m")
    wait(registry.load("m"))
    routes = StaleOnce(dict(registry._routes))
    wait(registry.unload("m"))
    monkeypatch.setattr(registry, "_routes", routes)
    with pytest.raises(ModelNotFound, match="is not loaded"):
        registry.lease("m")


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Make the interpreter change threads as often as it can, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_many_threads_lease_load_and_unload_one_model_at_once(
    tmp_path: Path, registry: Registry, opener: Opener
) -> None:
    put(tmp_path, "m")
    wait(registry.load("m"))
    rounds, count = 40, 4
    served = [0] * count
    start = threading.Barrier(count + 3)

    faults: list[str] = []
    changing = threading.Event()
    changing.set()

    def lease(client: int) -> None:
        start.wait(LIMIT_S)
        while changing.is_set():
            try:
                with registry.lease("m") as model:
                    served[client] += 1
                    if cast(FakeModel, model).closed.is_set():
                        faults.append(f"version {model.version} was closed while leased")
            except (ModelNotFound, Unavailable):
                continue

    def change(unload: bool) -> None:
        start.wait(LIMIT_S)
        for _ in range(rounds):
            put(tmp_path, "m", content="other") if not unload else None
            future = registry.unload("m") if unload else registry.load("m")
            future.exception(LIMIT_S)

    changers = [threading.Thread(target=change, args=(one,)) for one in (True, False)]
    clients = [threading.Thread(target=lease, args=(one,)) for one in range(count)]
    for thread in changers + clients:
        thread.start()
    start.wait(LIMIT_S)
    for thread in changers:
        thread.join(LIMIT_S * 3)
    changing.clear()
    for thread in clients:
        thread.join(LIMIT_S)
    assert not any(thread.is_alive() for thread in changers + clients)
    assert faults == []
    wait(registry.load("m"))
    assert content(registry) in ("good", "other")
    assert sum(served) > 0
    assert registry.close(LIMIT_S)
    assert all(model.closed.is_set() and model.drained == 1 for model in opener.opened)


def test_fifty_loads_at_once_open_the_model_once(
    tmp_path: Path, registry: Registry, opener: Opener
) -> None:
    put(tmp_path, "m")
    start = threading.Barrier(50)

    def load() -> object:
        start.wait(LIMIT_S)
        return registry.load("m").result(LIMIT_S)

    with ThreadPoolExecutor(50) as pool:
        results = [one.result(LIMIT_S) for one in [pool.submit(load) for _ in range(50)]]
    assert results == [("1",)] * 50
    assert len(opener.opened) == 1


def test_every_error_of_a_lease_is_one_that_clientsknow(tmp_path: Path, registry: Registry) -> None:
    for name, version in (("x", None), ("", ""), ("x" * 10_000, "y" * 10_000)):
        with pytest.raises(PyserveError) as caught:
            registry.lease(name, version)
        assert len(str(caught.value)) <= 1024
