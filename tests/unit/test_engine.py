"""pyserve.load and pyserve.Engine over models without a core behind them."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from fake_model import Opener, configure, put

import pyserve.engine
from pyserve.config import OPTIONS
from pyserve.engine import Engine, Options, load
from pyserve.errors import ConfigError, LoadFailed, ModelNotFound, Unavailable


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch) -> Opener:
    one = Opener()
    monkeypatch.setattr(pyserve.engine, "open_model", one)
    return one


# --- load ---------------------------------------------------------------------------------


def test_load_opens_a_file_with_the_options_given(tmp_path: Path, opener: Opener) -> None:
    path = tmp_path / "digits.pt"
    path.write_text("good")
    model = load(path, max_batch_size=8, threads=2)
    assert (model.name, model.version) == ("digits", "1")
    assert opener.opened[0].config.batching.max_batch_size == 8
    assert opener.opened[0].config.instances.threads == 2
    assert load(str(path), name="other").name == "other"


def test_load_opens_the_highest_version_of_a_models_folder(tmp_path: Path, opener: Opener) -> None:
    put(tmp_path, "m", 2, "v2")
    put(tmp_path, "m", 10, "v10")
    configure(tmp_path, "m", "queue: {capacity: 7}\nbatching: {max_batch_size: 4}")
    model = load(tmp_path / "m", max_batch_size=8)
    assert (model.name, model.version) == ("m", "10")
    config = opener.opened[0].config
    assert (config.queue.capacity, config.batching.max_batch_size) == (7, 8)
    assert load(tmp_path / "m", name="n").name == "n"


def test_load_refuses_an_unknown_option_with_the_nearest_name(
    tmp_path: Path, opener: Opener
) -> None:
    path = tmp_path / "m.pt"
    path.write_text("good")
    with pytest.raises(ConfigError, match='unknown option "max_batch", did you mean'):
        load(path, max_batch=3)
    assert opener.opened == []


def test_load_says_what_is_missing(tmp_path: Path, opener: Opener) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "missing.pt")
    with pytest.raises(LoadFailed, match="no version to load, expected VERSION/"):
        load(tmp_path)
    (tmp_path / "m" / "1").mkdir(parents=True)
    with pytest.raises(LoadFailed, match=r"version 1: no model\.pt or model\.pt2"):
        load(tmp_path / "m")
    configure(tmp_path, "m", "batchin: 1")
    with pytest.raises(ConfigError, match='unknown key "batchin"'):
        load(tmp_path / "m")


def test_load_refuses_a_name_that_cannot_name_a_model(tmp_path: Path, opener: Opener) -> None:
    path = put(tmp_path, "m")
    for target in (path, tmp_path / "m"):
        with pytest.raises(ConfigError, match='"a b" cannot name a model'):
            load(target, name="a b")
    assert opener.opened == []


def test_the_typed_options_are_the_known_ones() -> None:
    assert set(get_type_hints(Options)) == set(OPTIONS)


# --- Engine -------------------------------------------------------------------------------


def test_an_engine_serves_its_repository(tmp_path: Path) -> None:
    put(tmp_path, "a", 1)
    put(tmp_path, "b", 1)
    put(tmp_path, "b", 2)
    configure(tmp_path, "b", "versions: {policy: all}\nlabels: {stable: 1}")
    opener = Opener()
    with Engine(tmp_path, open_model=opener) as engine:
        assert engine.names() == list(engine) == ["a", "b"]
        assert len(engine) == 2
        assert "a" in engine
        assert "c" not in engine
        assert engine["b"].version == "2"
        assert engine.model("b", 1).version == "1"
        assert engine.model("b", "stable").version == "1"
        assert engine.versions("b") == ["1", "2"]
        assert engine.stats() == {
            "a": {"1": "stats of a 1"},
            "b": {"1": "stats of b 1", "2": "stats of b 2"},
        }
        with pytest.raises(ModelNotFound):
            engine["c"]
    assert all(model.closed.is_set() and model.drained == 1 for model in opener.opened)
    with pytest.raises(Unavailable):
        engine["a"]
    assert engine.close()


def test_options_and_settings_apply_in_that_order(tmp_path: Path) -> None:
    put(tmp_path, "a")
    put(tmp_path, "b")
    configure(tmp_path, "a", "batching: {max_batch_size: 1}")
    opener = Opener()
    with Engine(
        tmp_path,
        open_model=opener,
        settings=["b:batching.max_batch_size=3"],
        max_batch_size=2,
        threads=1,
    ):
        sizes = {one.name: one.config.batching.max_batch_size for one in opener.opened}
        assert sizes == {"a": 2, "b": 3}


@pytest.mark.parametrize("options", [{"max_batch": 2}, {"settings": ["batchin=2"]}])
def test_a_wrong_option_or_setting_is_the_callers_error(
    tmp_path: Path, options: dict[str, object]
) -> None:
    put(tmp_path, "a")
    opener = Opener()
    with pytest.raises(ConfigError, match="did you mean"):
        Engine(tmp_path, open_model=opener, **options)
    assert opener.opened == []


def test_several_repositories_and_files_make_one_engine(tmp_path: Path) -> None:
    put(tmp_path / "x", "a")
    put(tmp_path / "y", "b")
    (tmp_path / "c.pt").write_text("good")
    with Engine(
        [tmp_path / "x", str(tmp_path / "y")], files=[tmp_path / "c.pt"], open_model=Opener()
    ) as engine:
        assert engine.names() == ["a", "b", "c"]


def test_only_the_models_named_are_loaded_until_asked(tmp_path: Path) -> None:
    put(tmp_path, "a")
    put(tmp_path, "b")
    with Engine(tmp_path, models=["a"], open_model=Opener()) as engine:
        assert engine.names() == ["a"]
        assert engine.load("b") == ("1",)
        assert engine.names() == ["a", "b"]
        engine.unload("a")
        assert engine.names() == ["b"]
        assert [(one.name, one.state) for one in engine.index()] == [
            ("a", "UNAVAILABLE"),
            ("b", "READY"),
        ]


def test_one_broken_model_does_not_spoil_the_engine_and_is_told(tmp_path: Path) -> None:
    put(tmp_path, "good")
    put(tmp_path, "bad", content="broken")
    told: list[tuple[str, int, int, str]] = []
    with Engine(tmp_path, open_model=Opener(), progress=lambda *one: told.append(one)) as engine:
        assert engine.names() == ["good"]
        with pytest.raises(Unavailable, match="is not a TorchScript archive"):
            engine["bad"]
    assert [one[:3] for one in told] == [("bad", 1, 2), ("good", 2, 2)]


def test_an_engine_where_all_failed_raises_and_closes(tmp_path: Path) -> None:
    put(tmp_path, "bad", content="broken")
    with pytest.raises(LoadFailed, match='no model could be loaded: model "bad": version 1'):
        Engine(tmp_path, open_model=Opener())


def test_an_engine_over_nothing_is_empty_and_one_over_a_missing_folder_an_error(
    tmp_path: Path,
) -> None:
    with Engine(tmp_path, open_model=Opener()) as engine:
        assert engine.names() == []
    with pytest.raises(ConfigError, match="cannot be read as a folder"):
        Engine(tmp_path / "missing", open_model=Opener())


def test_option_types_offer_what_the_configuration_accepts() -> None:
    hints = get_type_hints(Options)
    assert get_args(hints["platform"]) == ("torchscript", "aotinductor")
