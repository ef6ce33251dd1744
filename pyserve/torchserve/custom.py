"""A handler from an archive as a processor: its `preprocess` and `postprocess` round the engine.

What is supported: a class, usually of `BaseHandler`, that leaves inference alone.  Whoever has an
`inference` or `handle` of their own means to run the model themselves, and is refused: here the
engine does, with its batching.  Everything here runs on the threads of processing, and imports
torch; servers without such handlers never come here.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import logging
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from pyserve.errors import ConfigError, ModelFailed
from pyserve.torchserve.outputs import ADAPTED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pyserve.processing.load_class import Context

_BODY = {"dtype": "BYTES", "shape": [1]}
_OWN_INFERENCE = (
    "runs the model itself: leave inference and handle to BaseHandler, and keep preprocess and "
    "postprocess; the engine runs the model between them"
)

_logger = logging.getLogger(__name__)
_numbers = itertools.count()


def adapter(where: str, file: str, entry: str) -> Callable[[], HandlerProcessor]:
    """Return what makes the processor for the handler in `file`, which lies beside `where`.

    entry: a class in it, or what TorchServe would call; empty for its only class.
    """
    return partial(HandlerProcessor, Path(where).parent / file, entry)


class HandlerProcessor:
    """One handler; its methods are called by one thread at a time, as TorchServe's are."""

    inputs: ClassVar = [{"name": "body", **_BODY}]
    outputs: ClassVar = [{"name": name, **_BODY} for name in ADAPTED]

    def __init__(self, file: Path, entry: str) -> None:
        self._file = file
        self._entry = entry
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._handler: Any = None

    def setup(self, context: Context) -> None:
        """Import the handler and let it initialize; ConfigError says what is not supported."""
        from pyserve.torchserve import ts_shim

        ts_shim.install()
        self._names = [spec.name for spec in context.inputs]
        kind = _find_class(_import(self._file), self._entry, ts_shim.BaseHandler)
        self._handler = kind()
        told = ts_shim.Context(name=context.name, version=context.version, folder=context.folder)
        if hasattr(self._handler, "initialize"):
            self._handler.initialize(told)

    def preprocess(self, inputs: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """Hand the rows to the handler; what it returns are the model's inputs."""
        rows = [{"body": bytes(one)} for one in inputs["body"].ravel().tolist()]
        with self._lock:
            made = self._handler.preprocess(rows)
        if isinstance(made, dict):
            return {str(name): _array(value) for name, value in made.items()}
        values = made if isinstance(made, tuple) else (made,)
        if len(values) != len(self._names):
            raise ModelFailed(
                f"preprocess returned {len(values)} values, the model has {len(self._names)} inputs"
            )
        return {name: _array(value) for name, value in zip(self._names, values, strict=True)}

    def postprocess(self, outputs: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """Hand the model's outputs to the handler; each item that it returns answers one row."""
        import numpy as np
        import torch

        tensors = tuple(torch.from_numpy(np.array(one)) for one in outputs.values())
        with self._lock:
            answers = self._handler.postprocess(tensors[0] if len(tensors) == 1 else tensors)
        if not isinstance(answers, list):
            raise ModelFailed(
                f"postprocess returned {type(answers).__name__}, expected a list with an item for "
                "each row"
            )
        said = [_said(one) for one in answers]
        return {name: _column([one[index] for one in said]) for index, name in enumerate(ADAPTED)}


def _column(values: list[bytes]) -> NDArray[Any]:
    import numpy as np

    column: NDArray[np.object_] = np.empty((len(values), 1), object)
    column[:, 0] = values
    return column


def _array(value: Any) -> Any:
    """Return a tensor as an array; whatever else it is, numpy may know."""
    import torch

    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return value


def _said(value: Any) -> tuple[bytes, bytes]:
    """Return what one item is as a body, and of which type."""
    if isinstance(value, bytes | bytearray):
        return bytes(value), b"application/octet-stream"
    if isinstance(value, str):
        return value.encode(), b"text/plain; charset=utf-8"
    return json.dumps(value).encode(), b"application/json"


def _import(path: Path) -> ModuleType:
    """Import a handler's file; its neighbours in the archive can be imported by it."""
    name = f"pyserve_handler_{next(_numbers)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"handler {path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # For `import my_model_helpers`; no longer than it takes, for another version has its own.
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        del sys.modules[name]
        _logger.error("handler %s", path.name, exc_info=error)
        raise ConfigError(f"handler {path.name} cannot be imported: {error}") from None
    finally:
        sys.path.remove(str(path.parent))
    return module


def _find_class(module: ModuleType, entry: str, base: type) -> type:
    """Return the handler's class; ConfigError where there is none that can be run here."""
    classes = {
        name: one
        for name, one in vars(module).items()
        if isinstance(one, type)
        and one.__module__ == module.__name__
        and (hasattr(one, "preprocess") or hasattr(one, "postprocess"))
    }
    file = Path(module.__file__ or "").name
    if entry in classes:
        found = classes[entry]
    elif len(classes) == 1:
        found = next(iter(classes.values()))
    else:
        raise ConfigError(
            f"handler {file} has {len(classes)} classes with preprocess or postprocess, expected "
            "one: a function that does everything itself is not supported"
        )
    for name in ("inference", "handle"):
        own = getattr(found, name, None)
        if own is not None and own is not getattr(base, name):
            raise ConfigError(f"handler {file}: {found.__name__}.{name} {_OWN_INFERENCE}")
    for name in ("preprocess", "postprocess"):
        if not hasattr(found, name):
            raise ConfigError(f"handler {file}: {found.__name__} has no {name}: use BaseHandler")
    return found
