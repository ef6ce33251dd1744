"""The in-process engine: `pyserve.load` for one model, `Engine` for a repository of them.

Thin on purpose: the registry finds and swaps versions, `model.py` runs them.  No protocol is
known here, and the server is built from the same `open_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from pyserve.class_labels import read_class_labels
from pyserve.config import ModelConfig, apply_options, apply_settings
from pyserve.errors import ConfigError, LoadFailed
from pyserve.loader import OpenModel
from pyserve.messages import VersionStats
from pyserve.registry import ModelIndexEntry, Progress, Registry
from pyserve.repository import (
    ModelEntry,
    Repository,
    entry_for_file,
    entry_for_folder,
    platform_of,
)
from pyserve.signature import TensorSpec, read_signature

if TYPE_CHECKING:
    from types import TracebackType

    from pyserve.model import Model


class Options(TypedDict, total=False):
    """Keyword options of `load` and `Engine`; docs/configuration.md says what each means."""

    platform: Literal["torchscript", "aotinductor"]
    device: str
    inputs: Sequence[TensorSpec | Mapping[str, object]]
    outputs: Sequence[TensorSpec | Mapping[str, object]]
    max_batch_size: int
    allowed_batch_sizes: Sequence[int]
    batch_invariant: bool
    max_queue_delay_us: int | None
    lengths: Mapping[str, object]
    instances: int
    threads: int
    queue_capacity: int
    timeout_ms: int
    default_priority: int
    warmup: bool
    cuda_graphs: bool


def open_model(path: Path, *, name: str, version: str, config: ModelConfig) -> Model:
    """Open one version as it is served: with its signature, proven, warmed and ready.

    Blocks.  Raises LoadFailed for a file that cannot be served, ConfigError for a
    configuration that does not fit the model.
    """
    # Here and not above: the core brings the torch libraries along, and scanning needs none.
    from pyserve.model import load_model

    signature = read_signature(path) if platform_of(path, config) == "torchscript" else None
    return load_model(path, name=name, version=version, config=config, signature=signature)


def open_served_model(
    path: Path, *, name: str, version: str, config: ModelConfig, allow_handlers: bool = False
) -> Model:
    """Open a version as a server does, with the processing that its configuration declares.

    Callers in this process have tensors, and need none.  allow_handlers: whether Python code that
    the model brings along may run.  Blocks, and raises as `open_model`.
    """
    folders = model_folders(path, version)
    labels = read_class_labels(config.class_labels, folders)
    model = open_model(path, name=name, version=version, config=config)
    model.class_labels = labels
    if not (config.preprocess or config.postprocess or config.processor):
        return model
    from pyserve.processing.processor import make_processor

    try:
        model.processor = make_processor(model, config, folders, allow_handlers)
    except BaseException:
        model.close()
        raise
    return model


def model_folders(path: Path, version: str) -> tuple[Path, ...]:
    """Return where files that belong to a model file may lie, the nearest first.

    Its own folder, and the model's where the repository has one for each version.
    """
    folder = path.parent
    if folder.name == version:
        return (folder, folder.parent)
    return (folder,)


def load(path: str | Path, *, name: str | None = None, **options: Unpack[Options]) -> Model:
    """Load one model into this process and return it ready to be called.

    `path` is a model file, or a model's folder with versions and `config.yaml`, of which the
    highest version that its policy picks is loaded.  Options win over the folder's file:
    `load("model.pt", max_batch_size=32)`.  Raises LoadFailed or ConfigError.
    """
    path = Path(path)
    entry = (entry_for_folder if path.is_dir() else entry_for_file)(path, name=name)
    if entry.error:
        raise ConfigError(f"{path}: {entry.error}")
    config = apply_options(entry.config, options, source="pyserve.load")
    picks = config.versions.choose(entry.versions)
    if not picks:
        raise LoadFailed(f"{path}: {_why_nothing(entry)}")
    version = picks[-1]
    return open_model(entry.versions[version], name=entry.name, version=str(version), config=config)


class Engine:
    """Several models and versions of one or more repositories, in this process.

        with pyserve.Engine("repo/", max_batch_size=32) as engine:
            y = engine["digits"](x)

    Loads every model, or those in `models`, and returns when all are ready.  A model that
    fails is told in `index()` and in the error for who asks for it; the others serve.  Raises
    LoadFailed when none could be loaded, ConfigError for a repository that cannot be read.

    files: single model files to serve as well.
    settings: texts as for `--set`; they win over the keyword options, which win over files.
    progress: called after each model with name, number done, number of all, and its error.
    drain_timeout_s: how long versions on their way out may finish their requests.
    """

    def __init__(
        self,
        repository: str | Path | Iterable[str | Path] = (),
        *,
        files: Iterable[str | Path] = (),
        models: Iterable[str] | None = None,
        settings: Iterable[str] = (),
        progress: Progress | None = None,
        drain_timeout_s: float | None = 30.0,
        open_model: OpenModel = open_model,
        **options: Unpack[Options],
    ) -> None:
        directories = [repository] if isinstance(repository, str | Path) else list(repository)
        self._registry = Registry(
            Repository(directories, files=files, configure=_configure(options, tuple(settings))),
            open_model=open_model,
            drain_timeout_s=drain_timeout_s,
        )
        try:
            errors = self._registry.load_all(models, progress=progress).result()
            if errors and all(errors.values()):
                shown = "; ".join(list(errors.values())[:3])
                raise LoadFailed(f"no model could be loaded: {shown}")
        except BaseException:
            self._registry.close(0.0)
            raise

    def __getitem__(self, name: str) -> Model:
        return self.model(name)

    def __contains__(self, name: str) -> bool:
        return name in self._registry.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def model(self, name: str, version: int | str | None = None) -> Model:
        """Return a live model; `version` is a number or a label, None the highest version.

        The model stays usable until it is unloaded or replaced by a reload; then calls on it
        raise Unavailable.  Raises ModelNotFound or Unavailable, with the reason.
        """
        return self._registry.get(name, None if version is None else str(version))

    def names(self) -> list[str]:
        """Return the names of the models that serve, sorted."""
        return self._registry.names()

    def versions(self, name: str) -> list[str]:
        """Return the versions of `name` that serve, lowest first."""
        return self._registry.versions(name)

    def index(self) -> list[ModelIndexEntry]:
        """Return every model known with its state, and why it is not served."""
        return self._registry.index()

    def stats(self) -> dict[str, dict[str, VersionStats]]:
        """Return the statistics of every live version, by name and version."""
        found: dict[str, dict[str, VersionStats]] = {}
        for model in self._registry.live():
            found.setdefault(model.name, {})[model.version] = model.stats()
        return found

    def load(self, name: str) -> tuple[str, ...]:
        """Load or reload a model from the repository; returns the versions that serve then.

        Blocks.  What served before serves on if this fails.
        """
        return self._registry.load(name).result()

    def unload(self, name: str) -> None:
        """Unload a model; blocks until its last request has ended."""
        self._registry.unload(name).result()

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish what is in flight and close every model; False if requests were cut off.

        `timeout_s` defaults to the drain timeout.  May be called again.
        """
        return self._registry.close(timeout_s)


def _configure(
    options: Options, settings: tuple[str, ...]
) -> Callable[[str, ModelConfig], ModelConfig]:
    # Once here, so that a slip is the caller's error and not one of every model.
    apply_options(ModelConfig(), options, source="pyserve.Engine")
    apply_settings(ModelConfig(), settings, "")

    def configure(name: str, config: ModelConfig) -> ModelConfig:
        config = apply_options(config, options, source="pyserve.Engine")
        return apply_settings(config, settings, name)

    return configure


def _why_nothing(entry: ModelEntry) -> str:
    reasons = [f"version {one}: {why}" for one, why in sorted(entry.problems.items())]
    return "; ".join(reasons) or "no version to load, expected VERSION/model.pt"


__all__ = ["Engine", "Options", "load", "open_model", "open_served_model"]
