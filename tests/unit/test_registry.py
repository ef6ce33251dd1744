"""pyserve.registry and the loader behind it: finding, loading, reloading, failing to."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from fake_model import LIMIT_S, FakeModel, Opener, configure, content, index, put, wait

from pyserve.errors import (
    ConfigError,
    LoadFailed,
    ModelNotFound,
    Unavailable,
)
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


# --- finding ------------------------------------------------------------------------------


def test_a_loaded_model_is_leased_by_default_version_and_label(
    tmp_path: Path, registry: Registry
) -> None:
    for version in (2, 9, 10):
        put(tmp_path, "m", version, f"v{version}")
    configure(tmp_path, "m", "versions: {policy: all}\nlabels: {stable: 9, gone: 7}")
    assert wait(registry.load("m")) == ("2", "9", "10")
    assert content(registry) == "v10"
    assert content(registry, version="2") == "v2"
    assert content(registry, version="stable") == "v9"
    assert registry.versions("m") == ["2", "9", "10"]
    assert registry.names() == ["m"]
    assert [model.version for model in registry.live()] == ["2", "9", "10"]
    assert registry.get("m", "stable").version == "9"
    for version in ("3", "02", "", "newest", "gone"):
        with pytest.raises(ModelNotFound, match="served: 2, 9, 10"):
            registry.lease("m", version)
    with pytest.raises(ModelNotFound, match='label "gone" names version 7'):
        registry.get("m", "gone")


def test_the_latest_version_alone_is_served_by_default(tmp_path: Path, registry: Registry) -> None:
    for version in (1, 9, 10):
        put(tmp_path, "m", version, f"v{version}")
    assert wait(registry.load("m")) == ("10",)
    assert index(registry) == [
        ("m", "1", "UNAVAILABLE", "not chosen by the version policy"),
        ("m", "9", "UNAVAILABLE", "not chosen by the version policy"),
        ("m", "10", "READY", ""),
    ]


def test_an_unknown_name_is_not_found_with_the_nearest_one(
    tmp_path: Path, registry: Registry
) -> None:
    put(tmp_path, "digits")
    wait(registry.load("digits"))
    with pytest.raises(ModelNotFound, match='no model "digit", did you mean "digits"'):
        registry.lease("digit")
    assert registry.versions("digit") == []


@pytest.mark.parametrize("name", ["missing", "", "..", "../m", "m/1", "m\0"])
def test_loading_what_is_not_there_is_not_found_and_leaves_no_trace(
    tmp_path: Path, registry: Registry, name: str
) -> None:
    put(tmp_path, "m")
    with pytest.raises(ModelNotFound):
        wait(registry.load(name))
    assert index(registry) == []
    with pytest.raises(ModelNotFound):
        wait(registry.unload(name))


def test_a_lease_ends_with_its_block_also_when_it_raises(
    tmp_path: Path, registry: Registry
) -> None:
    put(tmp_path, "m")
    wait(registry.load("m"))
    with pytest.raises(ZeroDivisionError), registry.lease("m"):
        raise ZeroDivisionError
    wait(registry.unload("m"))


# --- loading ------------------------------------------------------------------------------


def test_load_all_reports_progress_and_the_failures(
    tmp_path: Path, registry: Registry, opener: Opener
) -> None:
    put(tmp_path, "good")
    put(tmp_path, "bad", content="broken")
    put(tmp_path, "ugly", content="bug")
    put(tmp_path, "unread")
    configure(tmp_path, "unread", "nonsense: 1")
    told: list[tuple[str, int, int, str]] = []
    assert not registry.ready()
    results = registry.load_all(progress=lambda *one: told.append(one)).result(LIMIT_S)
    assert registry.ready()
    assert registry.names() == ["good"]
    assert results == {
        "good": "",
        "bad": 'model "bad": version 1: model.pt is not a TorchScript archive',
        "ugly": 'model "ugly": version 1: RuntimeError: model.pt tripped',
        "unread": 'model "unread": unread: config.yaml: unknown key "nonsense"; known keys: '
        "platform, device, inputs, outputs, batching, lengths, instances, queue, versions, warmup, "
        "cuda_graphs, labels, class_labels, preprocess, postprocess, processor",
    }
    assert [one[0] for one in told] == ["bad", "good", "ugly", "unread"]
    assert [one[1:3] for one in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {one[0]: one[3] for one in told} == results
    with pytest.raises(Unavailable, match=r"failed to load: version 1: model\.pt is not"):
        registry.lease("bad")
    with pytest.raises(Unavailable, match=r"failed to load: unread: config\.yaml: unknown key"):
        registry.lease("unread")
    assert str(tmp_path) not in str(registry.index())


def test_only_the_named_models_are_loaded_and_the_index_lists_all(
    tmp_path: Path, registry: Registry
) -> None:
    put(tmp_path, "a")
    put(tmp_path, "b")
    assert registry.load_all(["a"]).result(LIMIT_S) == {"a": ""}
    assert index(registry) == [("a", "1", "READY", ""), ("b", "1", "", "")]
    with pytest.raises(ModelNotFound, match='model "b" is not loaded'):
        registry.lease("b")


def test_a_name_to_load_that_is_not_in_the_repository_is_a_config_error(
    tmp_path: Path, registry: Registry
) -> None:
    put(tmp_path, "digits")
    with pytest.raises(ConfigError, match='"digit" is not in the repository, did you mean'):
        registry.load_all(["digit"])


def test_an_empty_repository_is_ready_and_one_where_all_failed_is_not(
    tmp_path: Path, registry: Registry
) -> None:
    assert registry.load_all().result(LIMIT_S) == {}
    assert registry.ready()
    put(tmp_path, "m", content="broken")
    with pytest.raises(LoadFailed):
        wait(registry.load("m"))
    assert not registry.ready()
    put(tmp_path, "m", content="good")
    wait(registry.load("m"))
    assert registry.ready()
    wait(registry.unload("m"))
    assert registry.ready()


def test_a_model_that_is_loading_is_unavailable(tmp_path: Path) -> None:
    put(tmp_path, "m")
    put(tmp_path, "n")
    entered, go_on = threading.Event(), threading.Event()

    def hold(name: str, version: str) -> None:
        entered.set()
        assert go_on.wait(LIMIT_S)

    registry = Registry(Repository([tmp_path]), open_model=Opener(hold))
    future = registry.load_all()
    assert entered.wait(LIMIT_S)
    for name in ("m", "n"):
        with pytest.raises(Unavailable, match="is loading"):
            registry.lease(name)
    assert [one[2] for one in index(registry)] == ["LOADING", "LOADING"]
    assert not registry.ready()
    go_on.set()
    future.result(LIMIT_S)
    assert [one[2] for one in index(registry)] == ["READY", "READY"]
    assert registry.close(LIMIT_S)


# --- reloading ----------------------------------------------------------------------------


def test_serving_goes_on_during_a_reload_and_the_old_version_is_closed_after_it(
    tmp_path: Path,
) -> None:
    put(tmp_path, "m", content="old")
    held = threading.Event()
    go_on = threading.Event()
    go_on.set()

    def hold(name: str, version: str) -> None:
        held.set()
        assert go_on.wait(LIMIT_S)

    opener = Opener(hold)
    registry = Registry(Repository([tmp_path]), open_model=opener)
    wait(registry.load("m"))
    put(tmp_path, "m", content="new")
    held.clear()
    go_on.clear()
    reload = registry.load("m")
    assert held.wait(LIMIT_S)
    assert content(registry) == "old"
    assert index(registry) == [("m", "1", "READY", "")]
    with registry.lease("m") as model:
        old = cast(FakeModel, model)
        go_on.set()
        wait(reload)
        assert content(registry) == "new"
        assert not old.closed.is_set()
    assert old.closed.wait(LIMIT_S)
    assert old.drained == 1
    assert registry.close(LIMIT_S)


def test_what_has_not_changed_on_disk_is_not_loaded_again(
    tmp_path: Path, registry: Registry, opener: Opener
) -> None:
    put(tmp_path, "m", 1)
    configure(tmp_path, "m", "versions: {policy: all}")
    wait(registry.load("m"))
    put(tmp_path, "m", 2)
    assert wait(registry.load("m")) == ("1", "2")
    wait(registry.load("m"))
    assert [model.version for model in opener.opened] == ["1", "2"]


def test_a_changed_label_moves_without_a_reload_and_other_keys_reload(
    tmp_path: Path, registry: Registry, opener: Opener
) -> None:
    put(tmp_path, "m", 1, "v1")
    put(tmp_path, "m", 2, "v2")
    configure(tmp_path, "m", "versions: {policy: all}\nlabels: {stable: 1}")
    wait(registry.load("m"))
    assert content(registry, version="stable") == "v1"
    configure(tmp_path, "m", "versions: {policy: all}\nlabels: {stable: 2}")
    wait(registry.load("m"))
    assert content(registry, version="stable") == "v2"
    assert len(opener.opened) == 2
    configure(tmp_path, "m", "versions: {policy: all}\nqueue: {capacity: 7}")
    wait(registry.load("m"))
    assert len(opener.opened) == 4
    assert opener.opened[-1].config.queue.capacity == 7
    with pytest.raises(ModelNotFound):
        registry.lease("m", "stable")


@pytest.mark.parametrize("bad", ["broken", "bug"])
def test_a_failed_reload_leaves_what_served_and_the_index_tells_why(
    tmp_path: Path, registry: Registry, opener: Opener, bad: str
) -> None:
    put(tmp_path, "m", content="good")
    wait(registry.load("m"))
    put(tmp_path, "m", content=bad)
    with pytest.raises(LoadFailed, match='model "m": version 1: '):
        wait(registry.load("m"))
    assert content(registry) == "good"
    assert not opener.opened[0].closed.is_set()
    [(_, _, state, reason)] = index(registry)
    assert state == "READY"
    assert reason
    put(tmp_path, "m", content="mended")
    wait(registry.load("m"))
    assert content(registry) == "mended"
    assert index(registry) == [("m", "1", "READY", "")]


def test_a_new_version_that_fails_leaves_the_older_one_serving(
    tmp_path: Path, registry: Registry
) -> None:
    put(tmp_path, "m", 1, "v1")
    wait(registry.load("m"))
    put(tmp_path, "m", 2, "broken")
    with pytest.raises(LoadFailed):
        wait(registry.load("m"))
    assert content(registry) == "v1"
    assert index(registry) == [
        ("m", "1", "READY", ""),
        ("m", "2", "UNAVAILABLE", "model.pt is not a TorchScript archive"),
    ]


def test_a_broken_config_at_reload_leaves_what_served(tmp_path: Path, registry: Registry) -> None:
    put(tmp_path, "m")
    wait(registry.load("m"))
    configure(tmp_path, "m", "batchin: 1")
    with pytest.raises(LoadFailed, match="unknown key"):
        wait(registry.load("m"))
    assert content(registry) == "good"
    [(_, _, state, reason)] = index(registry)
    assert (state, "unknown key" in reason) == ("READY", True)


def test_a_model_whose_folder_went_serves_until_it_is_unloaded(
    tmp_path: Path, registry: Registry
) -> None:
    put(tmp_path, "m")
    wait(registry.load("m"))
    (tmp_path / "m").rename(tmp_path / ".gone")
    with pytest.raises(ModelNotFound):
        wait(registry.load("m"))
    registry.refresh()
    assert content(registry) == "good"
    wait(registry.unload("m"))
    registry.refresh()
    assert index(registry) == []


def test_versions_the_policy_no_longer_picks_are_retired(
    tmp_path: Path, registry: Registry, opener: Opener
) -> None:
    put(tmp_path, "m", 1)
    wait(registry.load("m"))
    put(tmp_path, "m", 2)
    assert wait(registry.load("m")) == ("2",)
    assert opener.opened[0].closed.wait(LIMIT_S)
    with pytest.raises((ModelNotFound, Unavailable)):
        registry.lease("m", "1")
