"""Archives from strangers: what is taken, and what is refused before it does harm."""

from __future__ import annotations

import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pyserve.torchserve.archives import MAX_FILES, Limits, is_archive, unpack
from pyserve.torchserve.faults import BadArchive

MANIFEST = json.dumps({"model": {"modelName": "m", "serializedFile": "m.pt"}}).encode()
GOOD = {"MAR-INF/MANIFEST.json": MANIFEST, "m.pt": b"weights", "extra/words.txt": b"one"}


def mar(path: Path, files: dict[str, bytes], *infos: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
        for info, data in infos:
            made.writestr(info, data)
    return path


def tgz(path: Path, files: dict[str, bytes], *members: tarfile.TarInfo, root: str = "") -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name, data in files.items():
            member = tarfile.TarInfo(root + name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
        for member in members:
            made.addfile(member)
    return path


def refusal(path: Path, into: Path, limits: Limits | None = None) -> str:
    into.mkdir()
    with pytest.raises(BadArchive) as caught:
        unpack(path, into, limits)
    assert str(into) not in caught.value.message
    return caught.value.message


def linked(name: str, target: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def tar_member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


@pytest.mark.parametrize("form", ["mar", "tgz", "rooted", "folder"])
def test_every_form_of_archive_is_unpacked(tmp_path: Path, form: str) -> None:
    into = tmp_path / "into"
    into.mkdir()
    path = tmp_path / "archive"
    if form == "mar":
        mar(path, GOOD)
    elif form == "folder":
        for name, data in GOOD.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        assert is_archive(path)
    else:
        tgz(path, GOOD, root="m/" if form == "rooted" else "")
    root = unpack(path, into)
    assert {
        one.relative_to(root).as_posix(): one.read_bytes()
        for one in root.rglob("*")
        if one.is_file()
    } == GOOD


EVIL_NAMES = [
    "../escaped",
    "a/../../escaped",
    "/tmp/escaped",
    "..\\escaped",
    "C:escaped",
    "a\nb",
    "deep/" * 20 + "file",
    "x" * 600,
]


@pytest.mark.parametrize("name", EVIL_NAMES)
@pytest.mark.parametrize("make", [mar, tgz])
def test_no_file_lands_outside_of_its_folder(
    tmp_path: Path, make: Callable[..., Path], name: str
) -> None:
    path = make(tmp_path / "archive", {**GOOD, name: b"evil"})
    assert "outside" in refusal(path, tmp_path / "into")
    assert not list(tmp_path.rglob("*escaped"))
    assert not Path("/tmp/escaped").exists()


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    path = mar(tmp_path / "a", GOOD, (linked("link", "x"), b"/etc/passwd"))
    assert "'link' is a link" in refusal(path, tmp_path / "1")
    kinds = {
        "sym": tar_member("sym", tarfile.SYMTYPE, "/etc/passwd"),
        "hard": tar_member("hard", tarfile.LNKTYPE, "m.pt"),
        "fifo": tar_member("fifo", tarfile.FIFOTYPE),
        "device": tar_member("device", tarfile.CHRTYPE),
    }
    for name, member in kinds.items():
        path = tgz(tmp_path / f"{name}.tar.gz", GOOD, member)
        assert f"'{name}' is a link" in refusal(path, tmp_path / f"into-{name}")
    folder = tmp_path / "folder" / "MAR-INF"
    folder.mkdir(parents=True)
    (folder / "MANIFEST.json").write_bytes(MANIFEST)
    (folder / "link").symlink_to("/etc/passwd")
    assert "is a link" in refusal(folder.parent, tmp_path / "2")


@pytest.mark.parametrize("make", [mar, tgz])
def test_a_bomb_stops_at_the_limit(tmp_path: Path, make: Callable[..., Path]) -> None:
    limits = Limits(slack=1 << 20, ratio=20)
    path = make(tmp_path / "bomb", {**GOOD, "zeros": bytes(50 << 20)})
    assert path.stat().st_size < 1 << 20
    assert "expands to more than" in refusal(path, tmp_path / "into", limits)
    written = sum(one.stat().st_size for one in (tmp_path / "into").rglob("*") if one.is_file())
    assert written <= 3 << 20


@pytest.mark.parametrize("make", [mar, tgz])
def test_too_many_files_are_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    path = make(tmp_path / "many", {f"f{index}": b"" for index in range(MAX_FILES + 1)})
    assert "entries" in refusal(path, tmp_path / "into")


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = mar(tmp_path / "a", GOOD, (zipfile.ZipInfo("m.pt"), b"other"))
    assert "twice" in refusal(path, tmp_path / "1")
    path = mar(tmp_path / "b", {**GOOD, "m.pt/inner": b"file as folder"})
    assert "twice" in refusal(path, tmp_path / "2")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    whole = mar(tmp_path / "whole", GOOD).read_bytes()
    cases = {
        "nothing": b"",
        "text": b"this is no archive",
        "cut": whole[: len(whole) // 2],
        "gzip": tgz(tmp_path / "t", GOOD).read_bytes()[:60],
        "noise": whole[:-30] + bytes(30),
    }
    for name, data in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert refusal(path, tmp_path / f"into-{name}")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    data = mar(tmp_path / "a", {**GOOD, "big": bytes(range(256)) * 400}).read_bytes()
    path = tmp_path / "damaged"
    at = data.index(b"big") + 60
    path.write_bytes(data[:at] + b"\xff" * 20 + data[at + 20 :])
    assert refusal(path, tmp_path / "into")


def test_encrypted_files_are_refused(tmp_path: Path) -> None:
    data = bytearray(mar(tmp_path / "a", GOOD).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(mark, at + 4)
    path = tmp_path / "encrypted"
    path.write_bytes(bytes(data))
    assert "cannot be unpacked" in refusal(path, tmp_path / "into")


def test_a_header_that_claims_gigabytes_is_not_believed(tmp_path: Path) -> None:
    member = tar_member("long", tarfile.XHDTYPE)
    member.size = 4 << 30
    path = tmp_path / "liar.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        made.fileobj.write(member.tobuf(tarfile.USTAR_FORMAT))
        made.fileobj.write(bytes(1 << 20))
    assert "too long" in refusal(path, tmp_path / "into")


def test_an_archive_without_a_manifest_is_none_of_torchserves(tmp_path: Path) -> None:
    path = mar(tmp_path / "a", {"m.pt": b"weights"})
    assert "MAR-INF/MANIFEST.json" in refusal(path, tmp_path / "into")
    assert not is_archive(tmp_path)
