"""The OpenAPI document: valid, of every route, and true to what each route says of itself."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_server import get, serving
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

from pyserve.config import ServerConfig
from pyserve.engine import open_model
from pyserve.http.answers import Answer, json_answer
from pyserve.http.app import App
from pyserve.http.assemble import build_app
from pyserve.http.openapi import document, row_of, summary
from pyserve.http.openapi_operations import ERRORS, OPERATIONS, TAGS
from pyserve.http.openapi_schemas import SCHEMAS
from pyserve.http.routing import Params, Route, Router
from pyserve.http.torchserve import refuse
from pyserve.registry import Registry
from pyserve.repository import Repository
from pyserve.service import Service
from pyserve.torchserve.store import Store

EVERYTHING: dict[str, Any] = {"shared_memory": True, "management_token": "secret"}
"""Options that add routes, and a token that guards those that change something."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The whole HTTP front end, over an empty repository."""
    folder = str(tmp_path_factory.mktemp("models"))
    registry = Registry(Repository([folder]), open_model=open_model)
    config = ServerConfig(model_repository=(folder,), **EVERYTHING)
    service = Service(registry)
    app, _ = build_app(service, config, version="1.2.3", store=Store(service, None))
    yield app
    registry.close(1.0)


@pytest.fixture(scope="module")
def routes(app: App) -> tuple[Route, ...]:
    return app._router.routes


@pytest.fixture(scope="module")
def described(routes: tuple[Route, ...]) -> dict[str, Any]:
    """The document as a client reads it."""
    return dict(json.loads(json.dumps(document(routes, version="1.2.3"))))


def operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


# What TorchServe's clients read there.
UNHEALTHY = ("GET /ping", "503", "TorchServeStatus")


async def one(request: object, params: Params) -> Answer:
    """One thing. And more of it.

    Not in the summary.
    """
    return json_answer({})


def test_every_route_is_described(routes: tuple[Route, ...]) -> None:
    missing = [
        f"{route.method} {route.pattern}" for route in routes if row_of(route) not in OPERATIONS
    ]
    assert not missing, (
        f"{missing} have no row in OPERATIONS of pyserve/http/openapi_operations.py: add what goes "
        "in (parameters, body), what comes out (answers by status) and the errors beside 400 and "
        "500"
    )


def test_every_route_has_a_summary_from_its_handler(routes: tuple[Route, ...]) -> None:
    dumb = [f"{one.method} {one.pattern}" for one in routes if len(summary(one)) < 10]
    assert not dumb, f"the handlers of {dumb} need a docstring: its first line is the summary"


def test_no_row_is_left_over(routes: tuple[Route, ...]) -> None:
    stale = set(OPERATIONS) - {row_of(route) for route in routes}
    assert not stale, f"OPERATIONS describes {stale}, which no router has"


def test_every_method_of_every_path_is_in_the_document(
    routes: tuple[Route, ...], described: dict[str, Any]
) -> None:
    listed = {key for key, _ in operations(described)}
    # A path that may end in a slash is listed without it.
    assert listed == {f"{one.method} {one.pattern.rstrip('/') or '/'}" for one in routes}
    assert "POST /v2/models/{model}/infer" in listed


def test_it_is_valid_openapi(described: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(described).validate()


def test_it_is_valid_openapi_3_0_with_another_number_as_swagger_ui_needs_it(
    described: dict[str, Any],
) -> None:
    changed = json.loads(json.dumps(described)) | {"openapi": "3.0.3"}
    del changed["info"]["license"]["identifier"]
    OpenAPIV30SpecValidator(changed).validate()


def test_operation_ids_are_unique_words(described: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(described)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]\w+", name) for name in names)


def test_each_operation_has_a_known_tag_and_tags_are_explained(described: dict[str, Any]) -> None:
    used = {tag for _, operation in operations(described) for tag in operation["tags"]}
    assert used == {tag["name"] for tag in described["tags"]}
    assert used <= set(TAGS) - {"other"}


def test_every_placeholder_of_a_path_is_a_parameter(described: dict[str, Any]) -> None:
    for key, operation in operations(described):
        declared = {
            parameter["name"]
            for parameter in operation.get("parameters", ())
            if parameter["in"] == "path"
        }
        assert declared == set(re.findall(r"{(\w+)}", key)), key


def test_errors_have_the_one_form_of_their_api(
    routes: tuple[Route, ...], described: dict[str, Any]
) -> None:
    torchserve = {f"{one.method} {one.pattern}" for one in routes if one.refusal is refuse}
    assert "POST /predictions/{model}" in torchserve
    for key, operation in operations(described):
        responses = operation["responses"]
        assert {"400", "500"} <= set(responses), key
        expected = "TorchServeError" if key in torchserve else "Error"
        for status in set(responses) & {str(status) for status in ERRORS}:
            schema = responses[status]["content"]["application/json"]["schema"]
            name = schema["$ref"].rpartition("/")[2]
            assert name == expected or (key, status, name) == UNHEALTHY, key


def test_no_schema_is_unused(described: dict[str, Any]) -> None:
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(described)))
    assert used == set(SCHEMAS)


async def test_exactly_the_routes_that_ask_for_the_token_say_so(
    app: App, described: dict[str, Any]
) -> None:
    guarded = {key for key, operation in operations(described) if "security" in operation}
    asking = set()
    async with serving(app) as connect:
        peer = await connect()
        for key, _ in operations(described):
            method, path = re.sub(r"{\w+}", "1", key).split()
            await peer.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode())
            reply = await peer.ask(b"Content-Length: 0\r\n\r\n")
            if reply.status == 401:
                asking.add(key)
    assert guarded == asking
    assert "POST /v2/repository/models/{model}/load" in guarded
    assert described["components"]["securitySchemes"]["management_token"]["scheme"] == "bearer"


def test_what_needs_the_token_may_be_refused_for_the_lack_of_it(described: dict[str, Any]) -> None:
    for key, operation in operations(described):
        assert ("401" in operation["responses"]) == ("security" in operation), key


def test_the_version_is_the_servers(described: dict[str, Any]) -> None:
    assert described["openapi"] == "3.1.0"
    assert described["info"]["version"] == "1.2.3"


def test_a_route_that_nobody_described_is_listed_all_the_same() -> None:
    router = Router()
    router.add("PUT", "/odd/{name}", one)
    described = document(router.routes, version="0")
    OpenAPIV31SpecValidator(json.loads(json.dumps(described))).validate()
    operation = described["paths"]["/odd/{name}"]["put"]  # type: ignore[index]
    assert operation["summary"] == "One thing. And more of it"
    assert operation["operationId"] == "put_odd_name"
    assert operation["tags"] == ["other"]


async def test_the_server_sends_it(app: App, described: dict[str, Any]) -> None:
    async with serving(app) as connect:
        reply = await (await connect()).ask(get("/openapi.json"))
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert json.loads(reply.body) == described


async def test_the_page_names_only_files_that_are_served(app: App) -> None:
    async with serving(app) as connect:
        page = await (await connect()).ask(get("/docs"))
        names = re.findall(r'(?:src|href)="(.*?)"', page.body.decode())
        replies = {name: await (await connect()).ask(get(f"/{name}")) for name in names}
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    types = {name: reply.headers["content-type"] for name, reply in replies.items()}
    assert types == {
        "docs/favicon-32x32.png": "image/png",
        "docs/swagger-ui.css": "text/css; charset=utf-8",
        "docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
        "docs/start.js": "text/javascript; charset=utf-8",
    }
    assert all(reply.status == 200 for reply in replies.values())
    assert replies["docs/favicon-32x32.png"].body.startswith(b"\x89PNG")
    assert b"SwaggerUIBundle" in replies["docs/swagger-ui-bundle.js"].body
    assert all("max-age" in reply.headers["cache-control"] for reply in replies.values())


@pytest.mark.parametrize(
    "name",
    ["index.html", "..%2f__init__.py", "%2e%2e%2f..%2f__init__.py", "swagger-ui.css%00", "%"],
)
async def test_no_other_file_of_the_package_is_served(app: App, name: str) -> None:
    async with serving(app) as connect:
        reply = await (await connect()).ask(get(f"/docs/{name}"))
    assert reply.status == 404
    assert "swagger-ui.css" in reply.error


@pytest.mark.parametrize("path", ["/docs", "/docs/swagger-ui.css"])
async def test_without_the_package_the_answer_says_what_to_install(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyserve.http import docs_ui

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(docs_ui, "import_module", missing)
    router = Router()
    docs_ui.DocsUi().add_routes(router)
    async with serving(App(router)) as connect:
        reply = await (await connect()).ask(get(path))
    assert reply.status == 404
    assert "pip install 'pyserve[docs]'" in reply.error


def test_no_file_imports_the_documentation_package_at_start() -> None:
    """It is imported by who looks at /docs, in a thread."""
    assert importlib.util.find_spec("swagger_ui_bundle") is not None
    for path in Path(document.__code__.co_filename).parent.glob("*.py"):
        assert not re.search(r"^\s*(import|from) swagger", path.read_text(), re.MULTILINE), path
