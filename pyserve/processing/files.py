"""Files that lie beside a model, and libraries that only some models need."""

import importlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pyserve.errors import ConfigError


def find_beside(name: str, folders: Sequence[Path]) -> Path:
    """Return the file `name` of the first folder that has it; it cannot lead out of them.

    A configuration may have come with a load request: what else this machine has is none of its
    business.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise ConfigError(f'"{name}": expected a file in the model\'s folder')
    for folder in folders:
        path = folder / relative
        if path.is_file():
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f'"{name}" leads out of the model\'s folder')
            return path
    raise ConfigError(f"there is no file \"{name}\" in the version's folder or the model's")


def need(extra: str, *modules: str) -> None:
    """Import the modules of an optional library; ConfigError says what to do if they are missing.

    At load, so that no request finds out.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except (ImportError, OSError):  # OSError: a library that it is made for is missing
            raise ConfigError(f"needs {module}: pip install 'pyserve[{extra}]'") from None
