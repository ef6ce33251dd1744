"""pyserve.shared_memory: what clients register, and do to their objects meanwhile."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path

import pytest

from pyserve.errors import InvalidInput, PayloadTooLarge
from pyserve.messages import InputTensor, OutputTensor, Region
from pyserve.shared_memory import MAX_REGIONS, SharedMemory

LONG = 300 * 1024
"""Copied in a thread."""


@pytest.fixture
def memory(tmp_path: Path) -> SharedMemory:
    return SharedMemory(max_request_bytes=1 << 20, folder=tmp_path)


def put(folder: Path, content: bytes, name: str = "a") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def x(name: str = "x") -> InputTensor:
    return InputTensor(name, "UINT8", (4,), b"")


def y(data: bytes) -> OutputTensor:
    return OutputTensor("y", "UINT8", (len(data),), data)


def open_files() -> int:
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def refused(memory: SharedMemory, *registration: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        memory.register(*registration)  # type: ignore[arg-type]
    return caught.value.message


def test_regions_are_listed_until_they_are_forgotten(memory: SharedMemory, tmp_path: Path) -> None:
    put(tmp_path, bytes(64))
    assert memory.status() == []
    before = open_files()
    memory.register("r", "/a", 8, 16)
    memory.register("s", "a", 0, 64)
    assert [tuple(one) for one in memory.status()] == [("r", "/a", 8, 16), ("s", "a", 0, 64)]
    assert [one.name for one in memory.status("s")] == ["s"]
    memory.unregister("r")
    memory.unregister("r")
    with pytest.raises(InvalidInput, match='no system shared memory region "r"'):
        memory.status("r")
    memory.unregister_all()
    assert memory.status() == []
    assert open_files() == before


def test_a_name_is_registered_once(memory: SharedMemory, tmp_path: Path) -> None:
    put(tmp_path, bytes(64))
    memory.register("r", "/a", 0, 64)
    assert "registered already" in refused(memory, "r", "/a", 0, 64)
    memory.unregister("r")
    memory.register("r", "/a", 0, 64)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "..",
        "/..",
        "../a",
        "/../a",
        "//a",
        "/a/",
        "a/b",
        ".a",
        "a\0",
        "a b",
        "é",
        "a" * 256,
    ],
)
def test_a_key_is_one_plain_name(memory: SharedMemory, tmp_path: Path, key: str) -> None:
    put(tmp_path, bytes(8))
    assert "expected one name" in refused(memory, "r", key, 0, 8)


def test_only_plain_files_are_opened(memory: SharedMemory, tmp_path: Path) -> None:
    put(tmp_path, bytes(8))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as here:
        here.bind(str(tmp_path / "socket"))
        before = open_files()
        for key in ("link", "folder", "pipe", "socket", "missing"):
            message = refused(memory, "r", key, 0, 8)
            assert str(tmp_path) not in message
        assert open_files() == before


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 65), (64, 1), (1, 64), (2**63, 8), (0, 2**64), (2**200, 2**200)]
)
def test_a_region_lies_within_its_object(
    memory: SharedMemory, tmp_path: Path, offset: int, size: int
) -> None:
    put(tmp_path, bytes(64))
    before = open_files()
    assert "its object has 64 bytes" in refused(memory, "r", "a", offset, size)
    assert memory.status() == []
    assert open_files() == before


@pytest.mark.parametrize(("offset", "size"), [(-1, 8), (0, 0), (0, -8)])
def test_a_region_has_bytes(memory: SharedMemory, tmp_path: Path, offset: int, size: int) -> None:
    put(tmp_path, bytes(64))
    assert "expected an offset" in refused(memory, "r", "a", offset, size)


def test_names_and_their_number_have_limits(memory: SharedMemory, tmp_path: Path) -> None:
    put(tmp_path, bytes(8))
    assert "1 to 255" in refused(memory, "", "a", 0, 8)
    assert "1 to 255" in refused(memory, "n" * 256, "a", 0, 8)
    for number in range(MAX_REGIONS):
        memory.register(str(number), "a", 0, 8)
    assert f"{MAX_REGIONS} regions" in refused(memory, "more", "a", 0, 8)
    memory.unregister_all()


async def test_inputs_are_filled_from_where_they_lie(memory: SharedMemory, tmp_path: Path) -> None:
    put(tmp_path, bytes(range(64)))
    memory.register("r", "a", 16, 32)
    inputs = [x("p"), InputTensor("q", "UINT8", (1,), b"q"), x("r")]
    filled = await memory.fill(inputs, {"p": Region("r", 0, 4), "r": Region("r", 28, 4)})
    assert [bytes(one.data) for one in filled] == [b"\x10\x11\x12\x13", b"q", b"\x2c\x2d\x2e\x2f"]
    # A copy: what the client does afterwards is its own affair.
    put(tmp_path, bytes(64))
    assert filled[0].data == b"\x10\x11\x12\x13"


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 33), (32, 1), (29, 4), (-1, 4), (4, -1), (2**64, 4), (4, 2**64)]
)
async def test_a_request_stays_within_its_region(
    memory: SharedMemory, tmp_path: Path, offset: int, size: int
) -> None:
    put(tmp_path, bytes(64))
    memory.register("r", "a", 16, 32)
    region = Region("r", offset, size)
    with pytest.raises((InvalidInput, PayloadTooLarge)):
        await memory.fill([x()], {"x": region})
    with pytest.raises(InvalidInput):
        await memory.write([y(b"1")], {"y": region})


async def test_a_region_that_nobody_registered_is_refused(memory: SharedMemory) -> None:
    with pytest.raises(InvalidInput, match="register it"):
        await memory.fill([x()], {"x": Region("r", 0, 4)})
    with pytest.raises(InvalidInput, match="register it"):
        await memory.write([y(b"1")], {"y": Region("r", 0, 4)})


async def test_an_object_that_shrank_is_noticed_on_every_use(
    memory: SharedMemory, tmp_path: Path
) -> None:
    path = put(tmp_path, bytes(LONG))
    memory.register("r", "a", 0, LONG)
    for size in (4, LONG):
        region = Region("r", LONG - size, size)
        assert len((await memory.fill([x()], {"x": region}))[0].data) == size
        await memory.write([y(bytes(size))], {"y": region})
        os.truncate(path, 2)
        with pytest.raises(InvalidInput, match="its object has 2 bytes"):
            await memory.fill([x()], {"x": region})
        with pytest.raises(InvalidInput, match="its object has 2 bytes"):
            await memory.write([y(bytes(size))], {"y": region})
        assert path.stat().st_size == 2, "a write must not make it larger"
        os.truncate(path, LONG)


async def test_a_read_that_comes_up_short_is_refused(
    memory: SharedMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, bytes(64))
    memory.register("r", "a", 0, 64)
    real = os.pread

    def cut_between(descriptor: int, size: int, offset: int) -> bytes:
        os.truncate(path, 10)
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", cut_between)
    with pytest.raises(InvalidInput, match="became shorter"):
        await memory.fill([x()], {"x": Region("r", 0, 64)})


async def test_a_read_in_pieces_is_put_together(
    memory: SharedMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, bytes(range(64)))
    memory.register("r", "a", 0, 64)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, offset: real(file, min(size, 7), offset))
    filled = await memory.fill([x()], {"x": Region("r", 0, 64)})
    assert filled[0].data == bytes(range(64))


async def test_outputs_are_written_and_have_no_data_any_more(
    memory: SharedMemory, tmp_path: Path
) -> None:
    path = put(tmp_path, bytes(16))
    memory.register("r", "a", 4, 12)
    other = OutputTensor("z", "UINT8", (1,), b"z")
    written = await memory.write([other, y(b"1234")], {"y": Region("r", 2, 8)})
    assert written == [other, OutputTensor("y", "UINT8", (4,), b"")]
    assert path.read_bytes() == bytes(6) + b"1234" + bytes(6)


async def test_nothing_is_written_where_an_output_does_not_fit(
    memory: SharedMemory, tmp_path: Path
) -> None:
    path = put(tmp_path, bytes(16))
    memory.register("r", "a", 0, 16)
    regions = {"a": Region("r", 0, 4), "y": Region("r", 4, 3)}
    outputs = [OutputTensor("a", "UINT8", (4,), b"1234"), y(b"5678")]
    with pytest.raises(InvalidInput, match='"y" needs 4 bytes of shared memory, 3 are there'):
        await memory.write(outputs, regions)
    assert path.read_bytes() == bytes(16)


async def test_one_request_takes_no_more_than_the_limit(
    memory: SharedMemory, tmp_path: Path
) -> None:
    path = put(tmp_path, b"")
    os.truncate(path, 1 << 40)
    memory.register("r", "a", 0, 1 << 40)
    with pytest.raises(PayloadTooLarge, match="at most 1048576"):
        await memory.fill([x()], {"x": Region("r", 0, 1 << 40)})
    halves = {"p": Region("r", 0, 1 << 19), "q": Region("r", 0, (1 << 19) + 1)}
    with pytest.raises(PayloadTooLarge):
        await memory.fill([x("p"), x("q")], halves)


async def test_a_region_may_be_forgotten_while_a_thread_copies(
    memory: SharedMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, b"7" * LONG)
    before = open_files()
    memory.register("r", "a", 0, LONG)
    real = os.pread

    def forget_first(descriptor: int, size: int, offset: int) -> bytes:
        memory.unregister("r")
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", forget_first)
    filled = await memory.fill([x()], {"x": Region("r", 0, LONG)})
    assert filled[0].data == b"7" * LONG
    assert open_files() == before


async def test_an_object_that_was_removed_serves_on(memory: SharedMemory, tmp_path: Path) -> None:
    put(tmp_path, b"1234")
    memory.register("r", "a", 0, 4)
    (tmp_path / "a").unlink()
    put(tmp_path, b"5678")
    assert (await memory.fill([x()], {"x": Region("r", 0, 4)}))[0].data == b"1234"
