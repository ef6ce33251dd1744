"""One model repository and one server for all integration tests of a run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_models import build_repository
from server_process import FLAGS, Server, start

import models


@pytest.fixture(scope="session")
def model_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that answer, fail, wait and mix; see served_models.py."""
    return build_repository(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def lane() -> str:
    """The lane that requests take as far as they can; `both_lanes` runs a test once with each."""
    return "express"


@pytest.fixture(scope="module")
def server(
    lane: str, model_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of the test module's own, with all models loaded; it must end cleanly."""
    log = tmp_path_factory.mktemp("server") / "log"
    with start(log, "--model-repository", str(model_repository), f"--{FLAGS[lane]}") as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in log.read_text()


@pytest.fixture(scope="session")
def affine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the zoo's smallest model."""
    return models.build("affine", tmp_path_factory.mktemp("affine"))
