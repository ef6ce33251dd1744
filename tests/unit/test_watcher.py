"""pyserve.watcher: what counts as a change on disk, and that the registry follows it."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_model import Opener, configure, put

from pyserve.errors import ConfigError
from pyserve.registry import Registry
from pyserve.repository import ModelEntry, Repository
from pyserve.watcher import Watcher


class Calls:
    """A watcher with its calls written down; its own thread never gets to look."""

    def __init__(self, repository: Path) -> None:
        self.made: list[str] = []
        self.source = Repository([repository])
        self.watcher = Watcher(
            scan=self.source.scan,
            load=lambda name: self.made.append(f"load {name}"),
            unload=lambda name: self.made.append(f"unload {name}"),
            interval_s=3600.0,
        )
        self.watcher.start(self.source.scan())

    def look(self, times: int = 1) -> list[str]:
        """Look so many times; returns the calls made."""
        self.made.clear()
        for _ in range(times):
            self.watcher.look()
        return list(self.made)


@pytest.fixture
def watch() -> Iterator[Callable[[Path], Calls]]:
    watchers: list[Watcher] = []

    def make(repository: Path) -> Calls:
        calls = Calls(repository)
        watchers.append(calls.watcher)
        return calls

    yield make
    for watcher in watchers:
        watcher.stop()


def test_nothing_is_done_while_nothing_changes(
    tmp_path: Path, watch: Callable[[Path], Calls]
) -> None:
    put(tmp_path, "m")
    assert watch(tmp_path).look(3) == []


def test_new_changed_and_removed_models_are_followed_once_each(
    tmp_path: Path, watch: Callable[[Path], Calls]
) -> None:
    put(tmp_path, "m")
    calls = watch(tmp_path)
    put(tmp_path, "n")
    assert calls.look(3) == ["load n"]
    put(tmp_path, "m", content="changed")
    assert calls.look(3) == ["load m"]
    configure(tmp_path, "m", "warmup: false")
    assert calls.look(3) == ["load m"]
    put(tmp_path, "m", 2)
    assert calls.look(3) == ["load m"]
    (tmp_path / "m").rename(tmp_path / ".m")
    assert calls.look(3) == ["unload m"]
    (tmp_path / ".m").rename(tmp_path / "m")
    assert calls.look(3) == ["load m"]


def test_a_file_that_is_still_growing_is_left_alone_until_it_rests(
    tmp_path: Path, watch: Callable[[Path], Calls]
) -> None:
    calls = watch(tmp_path)
    for size in range(1, 5):
        put(tmp_path, "m", content="x" * size)
        assert calls.look() == []
    assert calls.look() == ["load m"]


def test_a_folder_swapped_by_two_renames_is_reloaded_and_never_unloaded(
    tmp_path: Path, watch: Callable[[Path], Calls]
) -> None:
    put(tmp_path, "m")
    calls = watch(tmp_path)
    (tmp_path / "m").rename(tmp_path / ".old")
    assert calls.look() == []
    put(tmp_path, "m", content="new")
    assert calls.look(3) == ["load m"]


def test_a_repository_that_is_away_unloads_nothing(
    tmp_path: Path, watch: Callable[[Path], Calls]
) -> None:
    repository = tmp_path / "repo"
    put(repository, "m")
    calls = watch(repository)
    repository.rename(tmp_path / "away")
    for _ in range(3):
        with pytest.raises(ConfigError):
            calls.look()
    (tmp_path / "away").rename(repository)
    assert calls.look(3) == []


def test_the_thread_goes_on_after_a_fault_and_ends_with_stop() -> None:
    looks = threading.Semaphore(0)
    faults: list[Exception] = [ConfigError("away"), RuntimeError("bug")]

    def scan() -> dict[str, ModelEntry]:
        looks.release()
        if faults:
            raise faults.pop()
        return {}

    watcher = Watcher(scan=scan, load=print, unload=print, interval_s=0.001)
    watcher.start({})
    for _ in range(3):
        assert looks.acquire(timeout=20)
    watcher.stop()
    watcher.stop()
    assert not any(one.name == "pyserve-watcher" for one in threading.enumerate())


def test_a_registry_under_poll_follows_its_repository(tmp_path: Path) -> None:
    loaded = threading.Semaphore(0)
    put(tmp_path, "m", 1)
    opener = Opener(lambda name, version: loaded.release())
    registry = Registry(
        Repository([tmp_path]), open_model=opener, control="poll", poll_interval_s=0.001
    )
    registry.load_all().result(20)
    assert loaded.acquire(timeout=20)
    put(tmp_path, "n", 1)
    assert loaded.acquire(timeout=20)
    put(tmp_path, "m", 2)
    assert loaded.acquire(timeout=20)
    assert opener.opened[0].closed.wait(20)
    (tmp_path / "m").rename(tmp_path / ".m")
    assert opener.opened[-1].closed.wait(20)
    assert registry.names() == ["n"]
    assert registry.close(20)
    assert {(one.name, one.version) for one in opener.opened} == {
        ("m", "1"),
        ("n", "1"),
        ("m", "2"),
    }
