"""pyserve.class_labels: a list, or a file beside the model."""

import json
from pathlib import Path

import pytest

from pyserve.class_labels import read_class_labels
from pyserve.errors import ConfigError


def refused(spec: str, *folders: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_class_labels(spec, folders)
    for folder in folders:
        assert str(folder) not in caught.value.message
    return caught.value.message


def test_no_labels_and_a_list_of_them(tmp_path: Path) -> None:
    assert read_class_labels(None, [tmp_path]) == ()
    assert read_class_labels(["cat", "dog"], []) == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("cat\r\n\r\n dog \n\n\n", ("cat", "", "dog")),
        ("\ufeffchat sauvage\nhérisson", ("chat sauvage", "hérisson")),
        ("", ()),
        ('["cat", "dog"]', ("cat", "dog")),
        ('[["n01", "cat"], "dog"]', ("cat", "dog")),
        (' {"1": "dog", "0": ["n01", "cat"], "3": "owl"}', ("cat", "dog", "", "owl")),
        ("{}", ()),
    ],
)
def test_a_file_has_lines_or_json(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    (tmp_path / "labels").write_text(text, encoding="utf-8", newline="")
    assert read_class_labels("labels", [tmp_path]) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": "cat"}', "index of a class"),
        ('{"-1": "cat"}', "index of a class"),
        ('{"٣": "cat"}', "index of a class"),
        ('{"123456789": "cat"}', "index of a class"),
        ('{"0": 7}', "expected a name"),
        ('["cat", null]', "class 1"),
        ('["cat"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "labels").write_text(text)
    assert words in refused("labels", tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refused("labels", tmp_path)


def test_the_nearest_folder_counts(tmp_path: Path) -> None:
    version = tmp_path / "m" / "1"
    version.mkdir(parents=True)
    (tmp_path / "m" / "labels").write_text("far")
    assert read_class_labels("labels", [version, tmp_path / "m"]) == ("far",)
    (version / "labels").write_text("near")
    assert read_class_labels("labels", [version, tmp_path / "m"]) == ("near",)


def test_no_file_outside_the_model_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(folder / "loop")
    for spec in ("../secret", str(tmp_path / "secret"), "", ".", "a\0b", "x/../../secret"):
        assert "class_labels" in refused(spec, folder)
    for spec in ("link", "loop", "missing", "n" * 5000):
        assert "no file" in refused(spec, folder)


def test_labels_are_json_of_torchserve_as_they_are(tmp_path: Path) -> None:
    names = {str(index): [f"n{index}", f"class {index}"] for index in range(1000)}
    (tmp_path / "index_to_name.json").write_text(json.dumps(names))
    labels = read_class_labels("index_to_name.json", [tmp_path])
    assert labels == tuple(f"class {index}" for index in range(1000))
