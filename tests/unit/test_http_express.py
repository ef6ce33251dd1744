"""What the express lane relies on, which paths are its, and what it says of an error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import pytest
from aiohttp.web import BaseRequest

from pyserve.errors import INTERNAL, InvalidInput, ModelFailed, QueueFull
from pyserve.http import express
from pyserve.http.answers import Answer, json_answer
from pyserve.http.app import App
from pyserve.http.express import ExpressLane, supported
from pyserve.http.routing import Params, Router
from pyserve.registry import Registry
from pyserve.service import Service


class NoModels:
    def watch(self, changed: Callable[[], None]) -> None:
        """Nothing ever changes."""


async def infer(request: BaseRequest, params: Params) -> Answer:
    return json_answer(dict(params))


async def other(request: BaseRequest, params: Params) -> Answer:
    return json_answer({})


@pytest.fixture
def lane() -> ExpressLane:
    router = Router()
    for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        router.add("POST", f"{base}/infer", infer)
        router.add("GET", base, other)
    router.add("POST", "/v2/repository/index", other)
    service = Service(cast(Registry, NoModels()))
    return ExpressLane(App(router), service, router, infer=infer, max_body_bytes=100)


def test_the_installed_aiohttp_has_all_that_the_lane_relies_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert supported()
    assert not caplog.records


def test_another_aiohttp_is_told_of_and_not_relied_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(express, "_INTERNALS", (*express._INTERNALS, "_of_old", "_and_gone"))
    with caplog.at_level(logging.WARNING):
        assert not supported()
    (record,) = caplog.records
    assert "no _and_gone, _of_old" in record.getMessage()
    assert "plain lane" in record.getMessage()


def test_an_inference_path_says_model_and_version(lane: ExpressLane) -> None:
    found = lane.find("/v2/models/a.b/infer")
    assert found is not None
    assert (found.model, found.version) == ("a.b", None)
    assert found.route.pattern == "/v2/models/{model}/infer"
    found = lane.find("/v2/models/a/versions/12/infer")
    assert found is not None
    assert (found.model, found.version) == ("a", "12")
    assert found.route.pattern == "/v2/models/{model}/versions/{version}/infer"


@pytest.mark.parametrize(
    "path",
    ["/", "/v2/models/a", "/v2/models/a/infer/", "/v2/repository/index", "/v2/models//infer", "/x"],
)
def test_no_other_path_is_for_the_lane(lane: ExpressLane, path: str) -> None:
    assert lane.find(path) is None


def test_paths_are_remembered_and_bounded(lane: ExpressLane) -> None:
    assert lane.find("/v2/models/a/infer") is lane.find("/v2/models/a/infer")
    for number in range(5000):
        lane.find(f"/v2/models/m{number}/infer")
    assert lane.find.cache_info().currsize <= 1024


def test_an_error_is_answered_as_the_plain_lane_does(
    lane: ExpressLane, caplog: pytest.LogCaptureFixture
) -> None:
    answer = lane.answer(InvalidInput("wrong"), "m", "3", "7")
    assert (answer.status, answer.body) == (400, b'{"error":"wrong"}')
    answer = lane.answer(QueueFull("full", retry_after_s=1.5), "m", "3", "7")
    assert answer.status == 429
    assert b"Retry-After: 2\r\n" in answer.head(b"")
    answer = lane.answer(ModelFailed("it broke"), "m", "3", "7")
    assert answer.body == b'{"error":"model \\"m\\" version 3 request \\"7\\": it broke"}'
    assert not caplog.records


def test_a_fault_tells_the_log_and_not_the_client(
    lane: ExpressLane, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = lane.answer(RuntimeError("secret at /home/me"), "m", "3", "7")
    assert answer.status == 500
    assert INTERNAL.encode() in answer.body
    assert b"secret" not in answer.body
    assert "secret at /home/me" in caplog.text
    assert 'model "m", request "7"' in caplog.text
