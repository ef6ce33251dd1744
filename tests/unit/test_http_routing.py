"""Paths to handlers."""

import pytest
from aiohttp.web import BaseRequest

from pyserve.http.answers import Answer
from pyserve.http.routing import NoRoute, Params, Router


async def handler(request: BaseRequest, params: Params) -> Answer:
    raise AssertionError("not called")


@pytest.fixture
def router() -> Router:
    router = Router()
    router.add("GET", "/v2", handler)
    router.add("GET", "/v2/models/stats", handler)
    router.add("GET", "/v2/models/{model}", handler)
    router.add("POST", "/v2/models/{model}/infer", handler)
    router.add("POST", "/v2/models/{model}/versions/{version}/infer", handler)
    return router


@pytest.mark.parametrize(
    ("method", "path", "pattern", "params"),
    [
        ("GET", "/v2", "/v2", {}),
        ("GET", "/v2/models/stats", "/v2/models/stats", {}),
        ("GET", "/v2/models/mlp", "/v2/models/{model}", {"model": "mlp"}),
        ("HEAD", "/v2/models/mlp", "/v2/models/{model}", {"model": "mlp"}),
        ("POST", "/v2/models/infer/infer", "/v2/models/{model}/infer", {"model": "infer"}),
        ("POST", "/v2/models/a%2Fb/infer", "/v2/models/{model}/infer", {"model": "a/b"}),
        ("POST", "/v2/models/.../infer", "/v2/models/{model}/infer", {"model": "..."}),
        ("POST", "/v2/models/%7B%7D/infer", "/v2/models/{model}/infer", {"model": "{}"}),
        ("POST", "/v2/models/{}/infer", "/v2/models/{model}/infer", {"model": "{}"}),
        (
            "POST",
            "/v2/models/mlp/versions/2/infer",
            "/v2/models/{model}/versions/{version}/infer",
            {"model": "mlp", "version": "2"},
        ),
    ],
)
def test_a_path_finds_its_route(
    router: Router, method: str, path: str, pattern: str, params: dict[str, str]
) -> None:
    match = router.resolve(method, path)
    assert (match.route.pattern, match.params) == (pattern, params)


@pytest.mark.parametrize(
    "path",
    ["", "/", "v2", "*", "/v2/", "//v2", "/v2/models", "/v2/models/", "/v2/models//infer", "/v3"],
)
def test_an_unknown_path_is_found_nowhere(router: Router, path: str) -> None:
    with pytest.raises(NoRoute) as caught:
        router.resolve("GET", path)
    assert caught.value.allowed == ()


def test_a_wrong_method_learns_the_right_ones(router: Router) -> None:
    with pytest.raises(NoRoute) as caught:
        router.resolve("DELETE", "/v2")
    assert caught.value.allowed == ("GET", "HEAD")
    with pytest.raises(NoRoute) as caught:
        router.resolve("HEAD", "/v2/models/mlp/infer")
    assert caught.value.allowed == ("POST",)


def test_two_handlers_for_one_route_are_refused(router: Router) -> None:
    with pytest.raises(ValueError, match="two handlers"):
        router.add("GET", "/v2/models/{other}", handler)
