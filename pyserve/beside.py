"""Files that a configuration names: they lie beside the model, and nowhere else."""

import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pyserve.errors import ConfigError
from pyserve.typed import show


def find_beside(name: str, folders: Iterable[Path]) -> Path:
    """Return the file `name` of the first of the `folders` that has it; it cannot lead out of them.

    A configuration may have come with a load request: what else this machine has is none of its
    business.  Raises ConfigError; what it says names no folder.
    """
    relative = PurePosixPath(name)
    if not relative.parts or relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise ConfigError(f"expected the name of a file beside the model, got {show(name)}")
    for folder in folders:
        path = folder / relative
        try:
            inside = path.resolve().is_relative_to(folder.resolve())
            found = inside and stat.S_ISREG(path.stat().st_mode)
        except (OSError, RuntimeError):
            continue
        if found:
            return path
    raise ConfigError(f"there is no file {show(name)} beside the model")
