"""Finds, imports and sets up a processor's class, which lies beside its model."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pyserve import typed
from pyserve.beside import find_beside
from pyserve.errors import ConfigError
from pyserve.processing.steps import ServedModel
from pyserve.signature import TensorSpec

_logger = logging.getLogger(__name__)
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What `setup` is told: the model and where it lies.

    folder: of this version.  inputs, outputs: the model's own, without the batch dimension.
    """

    name: str
    version: str
    folder: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    class_labels: tuple[str, ...]


def load_class(where: str, model: ServedModel, folders: Sequence[Path]) -> Any:
    """Return an instance of `FILE.py:CLASS`, set up; ConfigError where it cannot be had."""
    file, colon, name = where.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise ConfigError(f'processor: expected FILE.py:CLASS, got "{where[:100]}"')
    module = _import(find_beside(file, folders), model)
    made = getattr(module, name, None)
    if not callable(made):
        classes = [one for one, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(
            f'processor: "{file}" has no class "{name}"{typed.nearest(name, classes)}'
        )
    context = Context(
        name=model.name,
        version=model.version,
        folder=folders[0],
        inputs=model.inputs,
        outputs=model.outputs,
        class_labels=model.class_labels,
    )
    try:
        instance = made()
        if hasattr(instance, "setup"):
            instance.setup(context)
    except ConfigError:
        raise  # in words already
    except (Exception, SystemExit) as error:
        raise _not_loaded(f'"{where}" cannot be set up', error) from None
    if not (hasattr(instance, "preprocess") or hasattr(instance, "postprocess")):
        raise ConfigError(f'processor: "{where}" has neither preprocess nor postprocess')
    return instance


def _import(path: Path, model: ServedModel) -> ModuleType:
    """Import a file under a name of its own: each version has its code, also while two serve."""
    plain = re.sub(r"\W", "_", f"{model.name}_{model.version}")
    name = f"pyserve_processor_{next(_numbers)}_{plain}"
    # As a package, so that the file can import its neighbours: `from .vocabulary import words`.
    spec = importlib.util.spec_from_file_location(
        name, path, submodule_search_locations=[str(path.parent)]
    )
    if spec is None or spec.loader is None:
        raise ConfigError(f'processor: "{path.name}" is no Python file')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _not_loaded(f'"{path.name}" cannot be imported', error) from None
    return module


def _not_loaded(what: str, error: BaseException) -> ConfigError:
    _logger.error("processor: %s", what, exc_info=error)
    return ConfigError(f"processor: {what}: {type(error).__name__}, see the server's log")
