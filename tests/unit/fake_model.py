"""A model without a core behind it, and repositories of empty files, for tests of the registry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pyserve.config import ModelConfig
from pyserve.errors import LoadFailed

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pyserve.model import Model
    from pyserve.registry import Registry

# Far longer than anything here takes: a test that waits so long has failed.
LIMIT_S = 20.0


class FakeModel:
    """Counts what the registry does with it; `content` is what its file held when opened."""

    def __init__(self, name: str, version: str, content: str, config: ModelConfig) -> None:
        self.name = name
        self.version = version
        self.content = content
        self.config = config
        self.drained = 0
        self.failure = ""
        self.closed = threading.Event()

    def drain(self, timeout_s: float | None) -> bool:
        assert not self.closed.is_set(), "drained after it was closed"
        self.drained += 1
        return True

    def close(self) -> None:
        self.closed.set()

    def stats(self) -> str:
        return f"stats of {self.name} {self.version}"


class Opener:
    """Stands in for `open_model`: a file that says "broken" fails, one that says "bug" raises.

    before: called in the loader's thread before each opening, to hold it up.
    """

    def __init__(self, before: Callable[[str, str], None] = lambda name, version: None) -> None:
        self.before = before
        self.opened: list[FakeModel] = []

    def __call__(self, path: Path, *, name: str, version: str, config: ModelConfig) -> Model:
        self.before(name, version)
        content = path.read_text()
        if content == "broken":
            raise LoadFailed(f"{path} is not a TorchScript archive")
        if content == "bug":
            raise RuntimeError(f"{path} tripped\nover two lines")
        model = FakeModel(name, version, content, config)
        self.opened.append(model)
        return cast("Model", model)


def put(repository: Path, name: str, version: int | str = 1, content: str = "good") -> Path:
    """Write REPO/NAME/VERSION/model.pt; a changed content of equal length is a changed file."""
    path = repository / name / str(version) / "model.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    # A new file with a new inode, as a deployment makes: time stamps may be too coarse to tell.
    scratch = path.with_suffix(".new")
    scratch.write_text(content)
    scratch.rename(path)
    return path


def configure(repository: Path, name: str, text: str) -> None:
    """Write REPO/NAME/config.yaml."""
    path = repository / name / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def content(registry: Registry, name: str = "m", version: str | None = None) -> str:
    """What the file of the version that answers held when it was loaded."""
    with registry.lease(name, version) as model:
        return cast("FakeModel", model).content


def index(registry: Registry) -> list[tuple[str, str, str, str]]:
    return [(one.name, one.version, one.state, one.reason) for one in registry.index()]


def wait(future: Future[object]) -> object:
    return future.result(LIMIT_S)
