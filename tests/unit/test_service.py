"""The service over a registry of fakes: what every protocol gets."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pyserve.errors import ModelFailed, ModelNotFound, Unavailable
from pyserve.messages import (
    Completed,
    InferRequest,
    InputTensor,
    OutputTensor,
    RequestedOutput,
    Timing,
)
from pyserve.registry import ModelIndexEntry, Registry
from pyserve.service import Service

TIMING = Timing(1, 2, 3, 4, 5)
INPUT = InputTensor("x", "FP32", (1, 1), bytes(4))
OUTPUT = OutputTensor("y", "FP32", (1, 1), bytes(4))


class FakeModel:
    name = "m"
    version = "3"
    processor = None

    def __init__(self) -> None:
        self.leases = 0
        self.error: Exception | None = None
        self.asked: dict[str, Any] = {}

    def __enter__(self) -> FakeModel:
        self.leases += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.leases -= 1

    async def infer_tensors(self, inputs: list[InputTensor], **options: Any) -> Completed:
        assert self.leases == 1
        self.asked = {"inputs": inputs, **options}
        if self.error is not None:
            raise self.error
        return Completed([OUTPUT], TIMING)

    def stats(self) -> str:
        return "stats"


class FakeRegistry:
    def __init__(self) -> None:
        self.model = FakeModel()
        self.entries: list[ModelIndexEntry] = []
        self.is_ready = True

    def lease(self, name: str, version: str | None = None) -> FakeModel:
        if name != "m" or version not in (None, "3"):
            raise ModelNotFound("no such model")
        return self.model

    get = lease

    def names(self) -> list[str]:
        return ["m", "just gone"]

    def versions(self, name: str) -> list[str]:
        return ["3"] if name == "m" else []

    def ready(self) -> bool:
        return self.is_ready

    def index(self) -> list[ModelIndexEntry]:
        return self.entries


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def service(registry: FakeRegistry) -> Service:
    return Service(cast(Registry, registry))


def request(**changes: Any) -> InferRequest:
    return InferRequest(**{"model": "m", "version": None, "inputs": [INPUT]} | changes)


async def test_a_request_runs_under_a_lease(service: Service, registry: FakeRegistry) -> None:
    outputs = [RequestedOutput("y", False)]
    response = await service.infer(request(id="7", deadline_ns=9, priority=1, outputs=outputs))
    assert (response.model, response.version, response.id) == ("m", "3", "7")
    assert response.outputs == [OUTPUT]
    assert response.timing == TIMING
    asked = {"inputs": [INPUT], "deadline_ns": 9, "priority": 1, "outputs": ["y"]}
    assert registry.model.asked == asked
    assert registry.model.leases == 0


async def test_without_requested_outputs_all_are_asked_for(
    service: Service, registry: FakeRegistry
) -> None:
    await service.infer(request())
    assert registry.model.asked["outputs"] is None


async def test_a_failure_names_model_version_and_request(
    service: Service, registry: FakeRegistry
) -> None:
    registry.model.error = ModelFailed("it broke")
    with pytest.raises(ModelFailed, match=r'^model "m" version 3 request "7": it broke$'):
        await service.infer(request(id="7"))
    with pytest.raises(ModelFailed, match=r'^model "m" version 3: it broke$'):
        await service.infer(request())
    assert registry.model.leases == 0


def test_statistics_skip_what_was_unloaded_meanwhile(service: Service) -> None:
    assert [(one.name, one.version) for one in service.all_stats()] == [("m", "3")]
    with pytest.raises(ModelNotFound):
        service.stats("just gone")


def test_readiness_says_what_it_waits_for(service: Service, registry: FakeRegistry) -> None:
    assert service.why_not_ready() == ""
    registry.is_ready = False
    assert service.why_not_ready() == "starting"
    registry.entries = [ModelIndexEntry("a", "1", "LOADING"), ModelIndexEntry("b", "1", "READY")]
    assert service.why_not_ready() == "loading: a"
    registry.entries = [ModelIndexEntry("a", "1", "UNAVAILABLE", "damaged")]
    assert service.why_not_ready() == "no model is loaded; failed: a"


def test_from_the_drain_on_nothing_is_ready_or_admitted(service: Service) -> None:
    service.refuse_while_draining()
    service.start_draining()
    assert "shutting down" in service.why_not_ready()
    with pytest.raises(Unavailable, match="shutting down"):
        service.refuse_while_draining()
