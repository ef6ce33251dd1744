"""pyserve.repository: what a folder on disk means, and what is passed over."""

import logging
import os
import tempfile
from pathlib import Path

import pytest
from fake_model import configure, put
from hypothesis import given
from hypothesis import strategies as st

from pyserve.config import ModelConfig, apply_options, is_name
from pyserve.errors import ConfigError
from pyserve.repository import Repository, entry_for_file, platform_of, scan


def test_models_versions_and_configs_are_found(tmp_path: Path) -> None:
    one = put(tmp_path, "digits", 1)
    ten = put(tmp_path, "digits", 10)
    two = put(tmp_path, "digits", 2)
    put(tmp_path, "affine", 3)
    configure(tmp_path, "digits", "versions: {policy: latest, count: 2}")
    entries = Repository([tmp_path]).scan()
    assert list(entries) == ["affine", "digits"]
    assert entries["digits"].versions == {1: one, 2: two, 10: ten}
    assert entries["digits"].chosen() == {2: two, 10: ten}
    assert entries["digits"].error == ""
    assert entries["affine"].config == ModelConfig()


def test_folders_that_are_no_versions_are_passed_over_with_a_note(tmp_path: Path) -> None:
    path = put(tmp_path, "m", 1)
    for odd in ("01", "0", "-1", "+1", "1.0", "one", "1 ", "\u0661", "9" * 20, "1_0"):
        put(tmp_path, "m", odd)
    put(tmp_path, "m", ".hidden")
    put(tmp_path, "m", str(2**63))
    entry = scan([tmp_path])["m"]
    assert entry.versions == {1: path}
    assert entry.problems == {}
    assert len(entry.notes) == 11
    assert any("'01'" in note for note in entry.notes)
    assert not any("hidden" in note for note in entry.notes)


def test_a_version_without_its_file_is_told_and_does_not_shadow_an_older_one(
    tmp_path: Path,
) -> None:
    path = put(tmp_path, "m", 1)
    (tmp_path / "m" / "2").mkdir()
    entry = Repository([tmp_path]).scan()["m"]
    assert entry.chosen() == {1: path}
    assert entry.problems == {2: "no model.pt or model.pt2"}
    assert entry.error == ""


def test_a_folder_without_any_version_is_an_entry_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "1").mkdir(parents=True)
    entries = Repository([tmp_path]).scan()
    assert entries["empty"].error == "no versions, expected NAME/1/model.pt"
    assert entries["hollow"].error == "version 1: no model.pt or model.pt2"


def test_a_broken_config_spoils_only_its_own_model(tmp_path: Path) -> None:
    put(tmp_path, "good")
    put(tmp_path, "bad")
    configure(tmp_path, "bad", "batchin: 3")
    entries = Repository([tmp_path]).scan()
    assert entries["good"].error == ""
    assert 'unknown key "batchin"' in entries["bad"].error


def test_hidden_folders_and_plain_files_are_silently_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, ".git")
    (tmp_path / "README.md").write_text("hello")
    assert Repository([tmp_path]).scan() == {}
    assert caplog.records == []


def test_a_folder_that_cannot_be_a_name_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "my model")
    repository = Repository([tmp_path])
    with caplog.at_level(logging.WARNING):
        assert repository.scan() == {}
        assert repository.scan() == {}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "my model" in caplog.text


def test_a_folder_name_that_is_no_utf8_is_passed_over(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")).mkdir()
    put(tmp_path, "m")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/m/bad\xff")).mkdir()
    entries = Repository([tmp_path]).scan()
    assert list(entries) == ["m"]
    assert entries["m"].notes[0].encode()


def test_the_platform_picks_among_two_files(tmp_path: Path) -> None:
    script = put(tmp_path, "m", 1)
    package = script.with_name("model.pt2")
    package.write_text("package")
    assert "both model.pt and model.pt2" in Repository([tmp_path]).scan()["m"].error
    configure(tmp_path, "m", "platform: aotinductor")
    assert scan([tmp_path])["m"].versions == {1: package}
    configure(tmp_path, "m", "platform: torchscript")
    assert scan([tmp_path])["m"].versions == {1: script}
    script.unlink()
    assert scan([tmp_path])["m"].problems == {
        1: "platform is torchscript, but the file is model.pt2"
    }
    assert platform_of(package, ModelConfig()) == "aotinductor"
    assert platform_of(script, ModelConfig()) == "torchscript"
    assert platform_of(script, ModelConfig(platform="aotinductor")) == "aotinductor"


def test_one_name_in_two_repositories_is_an_error_of_that_model(tmp_path: Path) -> None:
    put(tmp_path / "a", "m")
    put(tmp_path / "b", "m")
    put(tmp_path / "b", "other")
    repository = Repository([tmp_path / "a", tmp_path / "b"])
    entries = repository.scan()
    assert "there twice" in entries["m"].error
    assert entries["other"].error == ""
    found = repository.find("m")
    assert found is not None
    assert found.error == entries["m"].error


def test_specific_versions_that_are_missing_are_an_error_that_lists_what_is_there(
    tmp_path: Path,
) -> None:
    put(tmp_path, "m", 1)
    configure(tmp_path, "m", "versions: {policy: specific, specific: [7]}")
    error = Repository([tmp_path]).scan()["m"].error
    assert error == "versions.specific asks for 7, the folder has 1"


def test_a_missing_repository_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as a folder"):
        Repository([tmp_path / "missing"]).scan()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be read as a folder"):
        Repository([tmp_path / "file"]).scan()


def test_a_bare_file_is_version_1_of_its_stem(tmp_path: Path) -> None:
    path = tmp_path / "digits.pt"
    path.write_text("model")
    entry = entry_for_file(path)
    assert (entry.name, entry.versions) == ("digits", {1: path})
    assert entry_for_file(path, name="other").name == "other"
    assert Repository(files=[path]).scan()["digits"] == entry
    assert Repository(files=[path]).find("digits") == entry


def test_a_bare_file_that_cannot_be_served_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        entry_for_file(tmp_path / "missing.pt")
    with pytest.raises(ConfigError, match="is a folder"):
        entry_for_file(tmp_path)
    odd = tmp_path / "my model.pt"
    odd.write_text("model")
    with pytest.raises(ConfigError, match='"my model" cannot name a model'):
        entry_for_file(odd)
    assert entry_for_file(odd, name="mine").name == "mine"


def test_two_bare_files_of_one_stem_are_an_error(tmp_path: Path) -> None:
    for suffix in (".pt", ".pt2"):
        (tmp_path / f"m{suffix}").write_text("model")
    entries = Repository(files=[tmp_path / "m.pt", tmp_path / "m.pt2"]).scan()
    assert "there twice" in entries["m"].error


def test_configure_has_the_last_word_and_its_errors_stay_with_the_model(tmp_path: Path) -> None:
    put(tmp_path, "a")
    put(tmp_path, "b")
    configure(tmp_path, "a", "batching: {max_batch_size: 4}")

    def change(name: str, config: ModelConfig) -> ModelConfig:
        if name == "b":
            raise ConfigError("no")
        return apply_options(config, {"threads": 2})

    entries = Repository([tmp_path], configure=change).scan()
    assert entries["a"].config.instances.threads == 2
    assert entries["a"].config.batching.max_batch_size == 4
    assert entries["b"].error == "no"


def test_find_agrees_with_scan_and_follows_no_path_out(tmp_path: Path) -> None:
    put(tmp_path / "repo", "m")
    put(tmp_path, "secret")
    repository = Repository([tmp_path / "repo"])
    assert repository.find("m") == repository.scan()["m"]
    for name in ("../secret", "missing", "", ".", "..", "m/1", "m\0", "/etc"):
        assert repository.find(name) is None


def test_stamps_change_with_every_file_that_matters(tmp_path: Path) -> None:
    def stamps() -> object:
        return Repository([tmp_path]).scan()["m"].stamps

    put(tmp_path, "m", 1)
    seen = [stamps()]
    assert stamps() == seen[0]
    put(tmp_path, "m", 1, "other")
    seen.append(stamps())
    put(tmp_path, "m", 2)
    seen.append(stamps())
    configure(tmp_path, "m", "warmup: false")
    seen.append(stamps())
    (tmp_path / "m" / "config.yaml").unlink()
    (tmp_path / "m" / "1" / "model.pt").unlink()
    seen.append(stamps())
    assert len(set(map(str, seen))) == len(seen)


def test_a_symbolic_link_is_followed_and_a_dangling_one_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "store", "m")
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "linked").symlink_to(tmp_path / "store" / "m")
    (repo / "dangling").symlink_to(tmp_path / "nothing")
    assert list(Repository([repo]).scan()) == ["linked"]


FOLDER = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))


@given(model=FOLDER, version=FOLDER | st.integers(0, 10**20).map(str))
def test_whatever_folders_are_called_only_names_and_versions_are_served(
    model: str, version: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder), model, version)
        entries = scan([folder])
        assert set(entries) == ({model} if is_name(model) else set())
        for entry in entries.values():
            good = version.isascii() and version.isdigit() and version[0] != "0"
            expected = {int(version)} if good and int(version) < 2**63 else set()
            assert set(entry.versions) == expected
