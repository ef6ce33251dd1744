"""Archives are unpacked within limits: .mar (a zip), .tar.gz, or the archiver's plain folders.

An archive may come from anywhere, so nothing in it is trusted: every path is checked, links and
devices are refused, and files are written in pieces while they are counted.  What is in the
files is for `manifest.py` and `convert.py`.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from pyserve.torchserve.faults import BadArchive

SUFFIXES = (".mar", ".zip", ".tar.gz", ".tgz")
"""How the names of archives end; a folder is one by what is in it."""

MAX_FILES = 4096
MAX_PATH_CHARS = 512
MAX_DEPTH = 16
_PIECE_BYTES = 1 << 20
# Headers of tar archives are read in one piece; the content of files never is.
_MAX_TAR_READ_BYTES = 4 << 20
_MANIFEST = "MAR-INF/MANIFEST.json"


class Limits(NamedTuple):
    """What one archive may become; sizes in bytes.

    slack, ratio: the files may have `slack` bytes, or `ratio` times what the archive has.
    """

    files: int = MAX_FILES
    total: int = 64 << 30
    slack: int = 256 << 20
    ratio: int = 20

    def allowed(self, archive: int) -> int:
        """Return how many bytes the files of an archive of this size may have."""
        return min(self.total, max(self.slack, self.ratio * archive))


def is_archive(path: Path) -> bool:
    """Whether a file or folder of a model store looks like an archive."""
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return (path / _MANIFEST).is_file()
    return path.name.endswith(SUFFIXES) and path.is_file()


def unpack(path: Path, into: Path, limits: Limits | None = None) -> Path:
    """Unpack an archive into the empty folder `into`; return the folder that has `MAR-INF`.

    Blocks.  Raises BadArchive, whose message names no path but those in the archive.
    """
    limits = limits or Limits()
    try:
        size = 0 if path.is_dir() else path.stat().st_size
        writer = _Writer(into, limits.files, limits.allowed(size))
        if path.is_dir():
            writer.limit_bytes = limits.total
            _copy_folder(path, writer)
        elif zipfile.is_zipfile(path):
            _unpack_zip(path, writer)
        else:
            _unpack_tar(path, writer)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise BadArchive(f"not a whole archive, neither zip nor tar.gz: {error}") from None
    except (NotImplementedError, RuntimeError, ValueError, OverflowError) as error:
        # What zipfile says of encryption, of unknown compression and of nonsense in headers.
        raise BadArchive(f"cannot be unpacked: {error}") from None
    except OSError as error:
        raise BadArchive(f"cannot be read or unpacked: {error.strerror or 'a fault'}") from None
    return _root(into)


def _root(into: Path) -> Path:
    """Return where `MAR-INF` is: tar.gz archives have a folder around everything."""
    if (into / _MANIFEST).is_file():
        return into
    inner = list(into.iterdir())
    if len(inner) == 1 and (inner[0] / _MANIFEST).is_file():
        return inner[0]
    raise BadArchive(f"there is no {_MANIFEST} in it, so it is no archive of TorchServe")


class _Writer:
    """Writes files below a folder, and stops where the limits are."""

    def __init__(self, into: Path, limit_files: int, limit_bytes: int) -> None:
        self._into = into
        self._files = 0
        self._bytes = 0
        self._limit_files = limit_files
        self.limit_bytes = limit_bytes

    def count(self) -> None:
        """Count one entry, of whatever kind."""
        self._files += 1
        if self._files > self._limit_files:
            raise BadArchive(f"has more than {self._limit_files} entries")

    def write(self, name: str, source: IO[bytes]) -> None:
        """Write one file from where `source` stands to its end."""
        target = self._target(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("xb")
        except (FileExistsError, NotADirectoryError):
            raise BadArchive(f"has {_shown(name)} twice") from None
        with file:
            while piece := source.read(_PIECE_BYTES):
                self._bytes += len(piece)
                if self._bytes > self.limit_bytes:
                    raise BadArchive(
                        f"expands to more than {self.limit_bytes} bytes, which is too much for an "
                        "archive of its size"
                    )
                file.write(piece)

    def _target(self, name: str) -> Path:
        path = PurePosixPath(name)
        parts = path.parts
        bad = (
            not parts
            or path.is_absolute()
            or ".." in parts
            or "\\" in name
            or ":" in parts[0]
            or not name.isprintable()
            or len(name) > MAX_PATH_CHARS
            or len(parts) > MAX_DEPTH
        )
        if bad:
            raise BadArchive(f"has a file {_shown(name)}, which would lie outside of its folder")
        return self._into.joinpath(*parts)


def _unpack_zip(path: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            writer.count()
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise BadArchive(f"{_shown(info.filename)} is a link, or no plain file")
            with archive.open(info) as source:
                writer.write(info.filename, source)


def _unpack_tar(path: Path, writer: _Writer) -> None:
    with _open_tar(path) as archive:
        for member in archive:
            writer.count()
            if member.isdir():
                continue
            source = archive.extractfile(member) if member.isreg() else None
            if source is None:
                raise BadArchive(f"{_shown(member.name)} is a link, or no plain file")
            with source:
                writer.write(member.name, source)


@contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    with (
        path.open("rb") as raw,
        _Cautious(fileobj=raw) as unzipped,
        tarfile.open(fileobj=unzipped, mode="r:", errorlevel=2) as archive,
    ):
        yield archive


class _Cautious(gzip.GzipFile):
    """A gzip file of which nobody reads much at once: a tar header may claim any length."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MAX_TAR_READ_BYTES:
            raise BadArchive("has a header that is too long")
        return super().read(size)


def _copy_folder(path: Path, writer: _Writer) -> None:
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            writer.count()
            inner = Path(folder, name)
            relative = inner.relative_to(path).as_posix()
            mode = inner.lstat().st_mode
            if stat.S_ISREG(mode):
                with inner.open("rb") as source:
                    writer.write(relative, source)
            elif not stat.S_ISDIR(mode):
                raise BadArchive(f"{_shown(relative)} is a link, or no plain file")


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else name[:80] + "…")
