"""Libraries that only some models need."""

import importlib

from pyserve.errors import ConfigError


def need(extra: str, *modules: str) -> None:
    """Import the modules of an optional library; ConfigError says what to do if they are missing.

    At load, so that no request finds out.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except (ImportError, OSError):  # OSError: a library that it is made for is missing
            raise ConfigError(f"needs {module}: pip install 'pyserve[{extra}]'") from None
