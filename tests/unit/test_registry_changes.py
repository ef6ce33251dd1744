"""pyserve.registry: loads that change the configuration, single versions, the default version."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_model import LIMIT_S, Opener, configure, content, put, wait

from pyserve.errors import ConfigError, ModelNotFound, PermissionDenied
from pyserve.registry import Registry
from pyserve.repository import Repository

TWO = {("instances", "count"): 2}


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def registry(tmp_path: Path, opener: Opener) -> Iterator[Registry]:
    for version in (1, 2, 3):
        put(tmp_path, "m", version, f"v{version}")
    configure(tmp_path, "m", "versions: {policy: all}\ninstances: {threads: 3}")
    one = Registry(Repository([tmp_path]), open_model=opener)
    wait(one.load("m"))
    yield one
    one.close(LIMIT_S)


def instances(opener: Opener) -> tuple[int | None, int | None]:
    """Count and threads that the model opened last was given."""
    config = opener.opened[-1].config
    return config.instances.count, config.instances.threads


def test_a_load_with_changes_opens_the_model_with_them_over_its_file(
    registry: Registry, opener: Opener
) -> None:
    assert wait(registry.load("m", TWO)) == ("1", "2", "3")
    assert instances(opener) == (2, 3)
    assert len(opener.opened) == 6


def test_changes_hold_until_the_next_load(registry: Registry, opener: Opener) -> None:
    wait(registry.load("m", TWO))
    wait(registry.load("m"))
    assert instances(opener) == (None, 3)


def test_more_changes_are_added_to_those_before(registry: Registry, opener: Opener) -> None:
    wait(registry.load("m", TWO))
    wait(registry.load("m", {("queue", "capacity"): 7}, more=True))
    assert instances(opener) == (2, 3)
    assert opener.opened[-1].config.queue.capacity == 7


def test_changes_that_make_no_sense_leave_what_served(registry: Registry, opener: Opener) -> None:
    with pytest.raises(ConfigError, match=r"instances\.count: expected a whole number"):
        wait(registry.load("m", {("instances", "count"): 0}))
    assert len(opener.opened) == 3
    assert content(registry) == "v3"


def test_a_failed_load_with_changes_does_not_change_the_next(
    tmp_path: Path, registry: Registry, opener: Opener
) -> None:
    put(tmp_path, "m", 3, "broken")
    with pytest.raises(Exception, match="version 3"):
        wait(registry.load("m", TWO))
    put(tmp_path, "m", 3, "good")
    wait(registry.load("m", {("queue", "capacity"): 7}, more=True))
    assert instances(opener) == (None, 3)


def test_one_version_is_unloaded_and_the_others_serve(registry: Registry, opener: Opener) -> None:
    wait(registry.unload("m", 3))
    assert opener.opened[2].closed.is_set()
    assert registry.versions("m") == ["1", "2"]
    assert content(registry) == "v2"
    with pytest.raises(ModelNotFound, match="served: 1, 2"):
        wait(registry.unload("m", 3))
    assert wait(registry.load("m")) == ("1", "2", "3")


def test_unloading_the_only_version_unloads_the_model(registry: Registry) -> None:
    for version in (1, 2, 3):
        wait(registry.unload("m", version))
    assert registry.names() == []
    with pytest.raises(ModelNotFound, match="not loaded"):
        registry.lease("m")


def test_the_default_version_answers_who_names_none(tmp_path: Path, registry: Registry) -> None:
    registry.set_default("m", 2)
    assert content(registry) == "v2"
    put(tmp_path, "m", 4, "v4")
    wait(registry.load("m"))
    assert content(registry) == "v2"
    wait(registry.unload("m", 2))
    assert content(registry) == "v4"


def test_an_unload_forgets_the_default_version(registry: Registry) -> None:
    registry.set_default("m", 2)
    wait(registry.unload("m"))
    wait(registry.load("m"))
    assert content(registry) == "v3"


@pytest.mark.parametrize(("name", "version"), [("m", 9), ("other", 1)])
def test_only_a_version_that_serves_can_be_the_default(
    registry: Registry, name: str, version: int
) -> None:
    with pytest.raises(ModelNotFound):
        registry.set_default(name, version)


def test_the_default_version_obeys_model_control(tmp_path: Path) -> None:
    put(tmp_path, "m")
    fixed = Registry(Repository([tmp_path]), open_model=Opener(), control="none")
    wait(fixed.load_all())
    with pytest.raises(PermissionDenied):
        fixed.set_default("m", 1)
    fixed.close(LIMIT_S)
