"""An unpacked archive becomes a version's folder, and its handler becomes processing."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from pyserve.config import load_model_config
from pyserve.errors import ConfigError
from pyserve.torchserve.convert import Converted, convert
from pyserve.torchserve.faults import AlreadyRegistered, BadArchive, VersionNotFound
from pyserve.torchserve.handlers import map_handler
from pyserve.torchserve.manifest import ModelSettings, version_number
from pyserve.torchserve.properties import Properties, understand
from pyserve.torchserve.registrations import StoredModel
from pyserve.torchserve.shelf import Shelf


def torchscript(path: Path) -> bytes:
    """A zip laid out as torch.jit.save does it, as far as anything here looks."""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("m/data.pkl", b"x")
        made.writestr("m/constants.pkl", b"x")
        made.writestr("m/code/__torch__.py", b"x")
        made.writestr("m/version", b"3")
    return path.read_bytes()


def eager(path: Path) -> bytes:
    """A zip as torch.save makes of a state_dict."""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("m/data.pkl", b"x")
        made.writestr("m/version", b"3")
    return path.read_bytes()


def mar(
    path: Path,
    *,
    files: dict[str, bytes] | None = None,
    weights: bytes | None = None,
    manifest: object = None,
    **model: object,
) -> Path:
    model = {"modelName": "m", "modelVersion": "1.0", "serializedFile": "net.pt", **model}
    with zipfile.ZipFile(path, "w") as made:
        text = json.dumps({"runtime": "python", "model": model})
        made.writestr("MAR-INF/MANIFEST.json", text if manifest is None else str(manifest))
        made.writestr(
            "net.pt", torchscript(path.with_suffix(".pt")) if weights is None else weights
        )
        for name, data in (files or {}).items():
            made.writestr(name, data)
    return path


def made(tmp_path: Path, *, allow_handlers: bool = False, **options: object) -> Converted:
    archive = mar(tmp_path / "m.mar", **options)  # type: ignore[arg-type]
    return convert(archive, tmp_path / "into", allow_handlers=allow_handlers)


def test_the_model_file_gets_the_name_that_repositories_expect(tmp_path: Path) -> None:
    converted = made(tmp_path, handler="image_classifier", files={"index_to_name.json": b"{}"})
    assert (converted.model, converted.version) == ("m", "1.0")
    names = sorted(one.name for one in converted.folder.iterdir())
    assert names == ["index_to_name.json", "model.pt"]
    assert converted.knows_inputs and not converted.signed


def test_weights_of_a_python_class_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match=r"pyserve\.export"):
        made(tmp_path, weights=eager(tmp_path / "e.pt"), modelFile="net.py")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"manifest": "{"}, "not what was expected"),
        ({"manifest": "[" * 5000}, "not what was expected"),
        ({"manifest": '{"model": {}}'}, "modelName"),
        ({"modelName": "../up"}, "cannot name a model"),
        ({"modelName": ".hidden"}, "cannot name a model"),
        ({"modelName": "a b"}, "cannot name a model"),
        ({"modelVersion": "1/2"}, "cannot be one"),
        ({"serializedFile": "other.pt"}, "is not in the archive"),
        ({"serializedFile": "../../etc/passwd"}, "is not in the archive"),
        ({"serializedFile": ""}, "names no model file"),
        ({"files": {"model.pt": b"x"}}, "beside the model file"),
        ({"handler": "unheard_of"}, "no handler"),
        ({"handler": "object_detector"}, "no counterpart"),
        ({"handler": "text_classifier"}, "tokenizer"),
        ({"handler": "text_classifier", "files": {"tokenizer.json": b"{}"}}, "signature"),
        ({"handler": "own.py", "files": {"own.py": b""}}, "--allow-handlers"),
        ({"configFile": "c.yaml", "files": {"c.yaml": b"a: [1"}}, "c.yaml"),
    ],
)
def test_what_cannot_be_served_is_refused_in_words(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(BadArchive, match=words):
        made(tmp_path, **options)


def test_notes_say_what_was_passed_over(tmp_path: Path) -> None:
    converted = made(
        tmp_path,
        requirementsFile="requirements.txt",
        configFile="model-config.yaml",
        files={"model-config.yaml": b"minWorkers: 2\nbatchSize: 4\npippy: {rpc_timeout: 1}\n"},
    )
    assert converted.settings == ModelSettings(min_workers=2, batch_size=4)
    assert any("nothing is installed" in note for note in converted.notes)
    assert any('"pippy"' in note for note in converted.notes)


@pytest.mark.parametrize("handler", ["own.py", "own", "own.py:handle", "own:Own", "dir/own.py"])
def test_a_handler_of_the_archives_own_gets_an_adapter(tmp_path: Path, handler: str) -> None:
    converted = made(tmp_path, allow_handlers=True, handler=handler, files={"own.py": b""})
    assert converted.mapping.kind == "custom"
    assert "'own.py'" in (converted.folder / "pyserve_handler.py").read_text()


def test_an_entry_point_cannot_carry_code(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="as NAME"):
        made(tmp_path, allow_handlers=True, handler='own.py:"+exec("', files={"own.py": b""})


@pytest.mark.parametrize(
    "handler", ["", "base_handler", "base_handler.py", "a/base_handler.py:handle"]
)
def test_the_base_handler_adds_nothing(handler: str) -> None:
    assert map_handler(handler, [], signed=False, allow_handlers=False).config == {}


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("1.0", 1), ("2.0.0", 2), ("10.0", 10), ("1.5", None), ("0", None), ("beta", None)],
)
def test_versions_are_numbers_where_they_look_like_one(text: str, number: int | None) -> None:
    assert version_number(text) == number


# --- what is registered -------------------------------------------------------------------------


def shelf_with(tmp_path: Path, *versions: str, properties: Properties | None = None) -> Shelf:
    store = tmp_path / "store"
    store.mkdir()
    for version in versions:
        mar(store / f"{version}.mar", modelVersion=version, handler="image_classifier")
    shelf = Shelf(store, properties or Properties())
    shelf.fill()
    return shelf


def test_versions_without_a_number_get_the_next_one_and_a_label(tmp_path: Path) -> None:
    shelf = shelf_with(tmp_path, "1.0", "2.5", "beta")
    try:
        model = shelf.models["m"]
        assert {one.text: number for number, one in model.versions.items()} == {
            "1.0": 1,
            "2.5": 2,
            "beta": 3,
        }
        config = load_model_config(shelf.folder / "m" / "config.yaml")
        assert config.labels == {"1.0": 1, "2.5": 2, "beta": 3}
        assert config.versions.choose([1, 2, 3]) == (1, 2, 3)
        assert [step.resize for step in config.preprocess] == [256]  # type: ignore[union-attr]
        assert model.find("2.5").number == 2
        assert model.find("2").number == 2
        with pytest.raises(VersionNotFound):
            model.find("4.0")
        with pytest.raises(AlreadyRegistered):
            model.number_for("beta")
    finally:
        shelf.close()
    assert not shelf.folder.exists()


def test_settings_of_the_file_reach_the_configuration(tmp_path: Path) -> None:
    pairs = {
        "default_workers_per_model": "2",
        "job_queue_size": "50",
        "models": json.dumps(
            {"m": {"1.0": {"batchSize": 8, "maxBatchDelay": 20, "defaultVersion": True}}}
        ),
    }
    properties = understand(pairs, source="c", folder=tmp_path)
    shelf = shelf_with(tmp_path, "1.0", properties=properties)
    try:
        config = load_model_config(shelf.folder / "m" / "config.yaml")
        assert config.instances.count == 2
        assert config.queue.capacity == 50
        assert config.batching.max_batch_size == 8
        assert config.batching.max_queue_delay_us == 20_000
    finally:
        shelf.close()


def test_one_bad_archive_does_not_keep_the_others_out(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    mar(store / "good.mar")
    (store / "bad.mar").write_bytes(b"no archive")
    (store / "readme.txt").write_text("no archive either")
    shelf = Shelf(store, Properties())
    try:
        shelf.fill()
        assert list(shelf.models) == ["m"]
        assert list(shelf.problems) == ["bad.mar"]
        assert list((shelf.folder / ".scratch").iterdir()) == []
    finally:
        shelf.close()


def test_only_the_listed_archives_are_loaded_under_their_names(tmp_path: Path) -> None:
    pairs = {"load_models": "mine=1.0.mar, gone.mar"}
    properties = understand(pairs, source="c", folder=tmp_path)
    shelf = shelf_with(tmp_path, "1.0", "2.0", properties=properties)
    try:
        assert list(shelf.models) == ["mine"]
        assert list(shelf.problems) == ["gone.mar"]
    finally:
        shelf.close()


def test_versions_that_need_other_processing_do_not_share_a_name(tmp_path: Path) -> None:
    first = made(tmp_path, handler="image_classifier")
    other = convert(
        mar(tmp_path / "o.mar", modelVersion="2.0"), tmp_path / "o", allow_handlers=False
    )
    shelf = Shelf(None, Properties())
    try:
        model, registration = shelf.registered(first, "a", ModelSettings(), at_startup=True)
        shelf.place(model, registration)
        shelf.models["m"] = model
        with pytest.raises(ConfigError, match="a name of its own"):
            shelf.registered(other, "b", ModelSettings(), at_startup=True)
        assert list(shelf.models["m"].versions) == [1]
    finally:
        shelf.close()


def test_numbers_and_texts_never_mean_two_versions() -> None:
    model = StoredModel("m")
    assert model.number_for("3.0") == 3
    with pytest.raises(AlreadyRegistered, match="positive number"):
        model.number_for("0")
