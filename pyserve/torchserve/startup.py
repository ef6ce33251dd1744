"""What the command line and `config.properties` say about TorchServe becomes a model repository."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from pyserve.config import ServerConfig
from pyserve.errors import ConfigError
from pyserve.torchserve.properties import Properties, read_properties
from pyserve.torchserve.shelf import Shelf

_log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """What a server starts with.

    config: the server's configuration, completed by `config.properties`.  shelf: None where there
    is neither a model store nor a URL to take archives from.
    """

    config: ServerConfig
    properties: Properties
    shelf: Shelf | None

    @property
    def problems(self) -> dict[str, str]:
        """Archives that cannot be served, and why."""
        return {} if self.shelf is None else self.shelf.problems


@contextmanager
def open_store(config: ServerConfig) -> Iterator[Opened]:
    """Unpack what is to be served from the start; it is removed from the disk at the end.

    Blocks.  Raises ConfigError.
    """
    properties = read_properties(Path(config.ts_config)) if config.ts_config else Properties()
    for line in properties.report:
        _log.warning("%s", line)
    if properties.addresses and not config.torchserve_ports:
        _log.warning("%s: its addresses are for --torchserve-ports", config.ts_config)
    config = _completed(config, properties)
    if config.model_store is None and not config.allowed_urls:
        yield Opened(config, properties, None)
        return
    store = None if config.model_store is None else Path(config.model_store)
    if store is not None and not store.is_dir():
        raise ConfigError(f"model store {store} is no folder")
    shelf = Shelf(store, properties, allow_handlers=config.allow_handlers)
    try:
        shelf.fill()
        repositories = (*config.model_repository, str(shelf.folder))
        config = msgspec.structs.replace(config, model_repository=repositories)
        yield Opened(config, properties, shelf)
    finally:
        shelf.close()


def _completed(config: ServerConfig, properties: Properties) -> ServerConfig:
    """Return `config` with what `config.properties` says, where nobody else has said anything."""
    default = ServerConfig()
    options = {
        name: value
        for name, value in properties.options.items()
        if getattr(config, name) == getattr(default, name)
    }
    try:
        return config.with_options(options)
    except ConfigError as error:
        raise ConfigError(f"{config.ts_config}: {error}") from None
