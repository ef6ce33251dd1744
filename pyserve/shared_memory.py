"""System shared memory: tensors that a client on this machine leaves in, or takes from, its object.

A client registers a stretch of a POSIX shared-memory object as a region, and names the region where
a tensor's bytes would be.  The object stays the client's, who may change or cut it at any moment:
so nothing is mapped (touching what was cut off would end the process), bytes are copied through a
file descriptor, and what is there is compared with what was asked for on every use.

All methods are for the event loop; long copies leave it.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from pyserve.errors import InvalidInput, PayloadTooLarge
from pyserve.messages import Buffer, InputTensor, OutputTensor, Region
from pyserve.typed import show

MAX_REGIONS = 256
"""Each holds a file descriptor, which connections need too."""

_FOLDER = Path("/dev/shm")
_KEY = re.compile(r"/?((?!\.)[A-Za-z0-9._-]{1,255})")
_MAX_NAME_CHARS = 255
# More than this takes a thread: copying it is some tenths of a millisecond.
_INLINE_BYTES = 256 * 1024

_T = TypeVar("_T")


class RegisteredRegion(NamedTuple):
    """What a client has registered: `byte_size` bytes of the object `key`, from `offset` on."""

    name: str
    key: str
    offset: int
    byte_size: int


class SharedMemory:
    """The regions that are registered.

    max_request_bytes: most that the inputs of one request may take from regions.
    """

    def __init__(self, *, max_request_bytes: int = 64 << 20, folder: Path = _FOLDER) -> None:
        self._max_request_bytes = max_request_bytes
        self._folder = folder
        self._regions: dict[str, _Opened] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Give a stretch of the object `key` a name; InvalidInput where that cannot be."""
        if not 0 < len(name) <= _MAX_NAME_CHARS:
            raise InvalidInput(
                f"a region's name has 1 to {_MAX_NAME_CHARS} characters, got {len(name)}"
            )
        if name in self._regions:
            raise InvalidInput(f"shared memory region {show(name)} is registered already")
        if len(self._regions) >= MAX_REGIONS:
            raise InvalidInput(f"there are {MAX_REGIONS} regions already: unregister one")
        if offset < 0 or byte_size < 1:
            raise InvalidInput(
                f"region {show(name)}: expected an offset of 0 or more and at least one byte, "
                f"got offset {show(offset)} and {show(byte_size)} bytes"
            )
        match = _KEY.fullmatch(key)
        if match is None:
            raise InvalidInput(
                f"region {show(name)}: the key is {show(key)}, expected one name of letters, "
                'digits, ".", "_" and "-", such as "/input"'
            )
        opened = _Opened(
            RegisteredRegion(name, key, offset, byte_size),
            _open(name, key, self._folder / match[1]),
        )
        opened.check(offset, byte_size)
        self._regions[name] = opened

    def unregister(self, name: str) -> None:
        """Forget a region; of one that is not registered, nothing is left to be done."""
        self._regions.pop(name, None)

    def unregister_all(self) -> None:
        """Forget every region."""
        self._regions.clear()

    def status(self, name: str | None = None) -> list[RegisteredRegion]:
        """Return every region, or the one called `name`; InvalidInput if there is none."""
        if name:
            return [self._find(name).region]
        return [one.region for one in self._regions.values()]

    async def fill(
        self, inputs: Sequence[InputTensor], regions: Mapping[str, Region]
    ) -> list[InputTensor]:
        """Return `inputs` with the bytes of those in `regions` (by name) copied from there."""
        total = sum(region.byte_size for region in regions.values())
        if total > self._max_request_bytes:
            raise PayloadTooLarge(
                f"the inputs take {show(total)} bytes from shared memory, "
                f"at most {self._max_request_bytes} are allowed"
            )
        sources = {name: self._stretch(region) for name, region in regions.items()}

        def read() -> list[InputTensor]:
            return [
                one._replace(data=sources[one.name].read()) if one.name in sources else one
                for one in inputs
            ]

        return await _run(read, total)

    async def write(
        self, outputs: Sequence[OutputTensor], regions: Mapping[str, Region]
    ) -> list[OutputTensor]:
        """Copy those of `outputs` that are in `regions` (by name) there, and return all.

        Those written have no data any more.  Nothing is written where one does not fit.
        """
        targets = {name: self._stretch(region) for name, region in regions.items()}
        chosen = [one for one in outputs if one.name in targets]
        for one in chosen:
            room = regions[one.name].byte_size
            if len(one.data) > room:
                raise InvalidInput(
                    f"output {show(one.name)} needs {len(one.data)} bytes of shared memory, "
                    f"{room} are there for it"
                )

        def write() -> None:
            for one in chosen:
                targets[one.name].write(one.data)

        await _run(write, sum(len(one.data) for one in chosen))
        return [one._replace(data=b"") if one.name in targets else one for one in outputs]

    def _find(self, name: str) -> _Opened:
        opened = self._regions.get(name)
        if opened is None:
            raise InvalidInput(f"there is no system shared memory region {show(name)}: register it")
        return opened

    def _stretch(self, region: Region) -> _Stretch:
        """Find the part of a registered region that a request means; it must lie within."""
        opened = self._find(region.name)
        if (
            region.offset < 0
            or region.byte_size < 0
            or region.offset + region.byte_size > opened.region.byte_size
        ):
            raise InvalidInput(
                f"region {show(region.name)} has {opened.region.byte_size} bytes, "
                f"{show(region.byte_size)} from {show(region.offset)} on are asked for"
            )
        return _Stretch(opened, opened.region.offset + region.offset, region.byte_size)


class _Opened:
    """A region and its object, which is closed when the last request lets go of it."""

    __slots__ = ("descriptor", "region")

    def __init__(self, region: RegisteredRegion, descriptor: int) -> None:
        self.region = region
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)

    def check(self, offset: int, byte_size: int) -> None:
        """Compare with the object as it is now."""
        size = os.fstat(self.descriptor).st_size
        if offset + byte_size > size:
            raise InvalidInput(
                f"region {show(self.region.name)}: its object has {size} bytes, "
                f"{show(byte_size)} from {show(offset)} on are asked for"
            )


class _Stretch(NamedTuple):
    """Bytes of an object; what a thread works on."""

    opened: _Opened
    offset: int
    byte_size: int

    def read(self) -> bytes:
        """Copy the bytes out."""
        self.opened.check(self.offset, self.byte_size)
        pieces: list[bytes] = []
        missing = self.byte_size
        while missing:
            # One call gives at most 2 GiB, and less where the object was cut after the check.
            piece = os.pread(
                self.opened.descriptor, missing, self.offset + self.byte_size - missing
            )
            if not piece:
                name = self.opened.region.name
                raise InvalidInput(f"region {show(name)}: its object became shorter meanwhile")
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, data: Buffer) -> None:
        """Copy `data`, which fits, in."""
        self.opened.check(self.offset, len(data))
        view = memoryview(data)
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(self.opened.descriptor, view[done:], self.offset + done)
            except OSError as error:
                name = self.opened.region.name
                raise InvalidInput(
                    f"region {show(name)} cannot be written: {error.strerror}"
                ) from None


def _open(name: str, key: str, path: Path) -> int:
    """Open a client's object: a plain file, not what a link leads to."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise InvalidInput(
            f"region {show(name)}: the object {show(key)} cannot be opened: {error.strerror}"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidInput(f"region {show(name)}: {show(key)} is no shared memory object")
    return descriptor


async def _run(work: Callable[[], _T], size: int) -> _T:
    return work() if size <= _INLINE_BYTES else await asyncio.to_thread(work)
