"""`/openapi.json`: every route of the server, described for people and for tools.

The document is made from the router itself, so it cannot miss a route: paths, methods and
parameters are the router's, summaries are the handlers' docstrings.  What goes in and out stands
in `openapi_operations`, in the words of `openapi_schemas`; a route without a row there is listed
with what can be told without one, and a test names it.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable
from http import HTTPStatus

import msgspec
from aiohttp import web

from pyserve.http.answers import Answer
from pyserve.http.compression import compressed
from pyserve.http.openapi_operation import Operation
from pyserve.http.openapi_operations import ERRORS, OPERATIONS, TAGS, UNKNOWN
from pyserve.http.openapi_schemas import SCHEMAS, STRING, Schema, ref
from pyserve.http.routing import Params, Route, Router

_PARAMETER = re.compile(r"\{(\w+)\}")
_TOKEN = "management_token"

_DESCRIPTION = """\
Serves PyTorch models by the Open Inference Protocol v2 (KServe, Triton's extensions) and by
TorchServe's API. Calls that change what is served need the management token where the server has
one, and are refused on listeners that other machines can reach where it has none."""


class OpenApi:
    """`/openapi.json`."""

    def __init__(self, *, version: str) -> None:
        self._version = version
        self._body = b""

    def add_routes(self, router: Router) -> None:
        """Add the route, and describe all that the router has by now: call it last."""
        router.add("GET", "/openapi.json", self.openapi)
        self._body = msgspec.json.encode(document(router.routes, version=self._version))

    async def openapi(self, request: web.BaseRequest, params: Params) -> Answer:
        """This document: every route of the server, as OpenAPI 3.1."""
        return await compressed(request, Answer(200, self._body))


def document(routes: Iterable[Route], *, version: str) -> dict[str, object]:
    """Return the OpenAPI document of `routes`."""
    paths: dict[str, dict[str, object]] = {}
    used = set()
    for route in without_twins(routes):
        operation = OPERATIONS.get(row_of(route), UNKNOWN)
        used.add(operation.tag)
        paths.setdefault(route.pattern, {})[route.method.lower()] = _describe(route, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pyserve",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag, "description": text} for tag, text in TAGS.items() if tag in used],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                _TOKEN: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "the server's --management-token",
                }
            },
        },
    }


def without_twins(routes: Iterable[Route]) -> list[Route]:
    """Return the routes but those that differ from another one in a slash at the end alone."""
    listed = list(routes)
    known = {(one.method, one.pattern, one.handler) for one in listed}
    return [
        one
        for one in listed
        if one.pattern == "/"
        or (one.method, one.pattern.removesuffix("/"), one.handler) not in known
        or not one.pattern.endswith("/")
    ]


def row_of(route: Route) -> str:
    """Return the name of a route's row in OPERATIONS: that of the path without its version."""
    own = f"{route.method} {route.pattern.rstrip('/') or '/'}"
    if own in OPERATIONS:
        return own
    return re.sub(r"(/versions)?/\{version\}", "", own)


def summary(route: Route) -> str:
    """Return the first line of what the handler says about itself, without the full stop."""
    handler = route.handler
    while isinstance(handler, functools.partial):
        handler = handler.func
    text = inspect.getdoc(handler) or ""
    return " ".join(text.partition("\n\n")[0].split()).removesuffix(".")


def _describe(route: Route, operation: Operation) -> dict[str, object]:
    described: dict[str, object] = {
        "operationId": _operation_id(route),
        "tags": [operation.tag],
        "summary": summary(route),
    }
    if operation.text:
        described["description"] = operation.text
    parameters: list[dict[str, object]] = [
        {"name": name, "in": "path", "required": True, "schema": {**STRING, "minLength": 1}}
        for name in _PARAMETER.findall(route.pattern)
    ]
    parameters += [
        {"name": one.name, "in": one.where, "description": one.text, "schema": one.schema}
        for one in operation.parameters
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            "content": _content(operation.body),
            "required": operation.body_required,
        }
    described["responses"] = _responses(operation)
    if operation.changes:
        # The token, or none: without one the server looks at where a request comes from.
        described["security"] = [{_TOKEN: []}, {}]
    return described


def _responses(operation: Operation) -> dict[str, object]:
    responses: dict[str, object] = {}
    for status, content in operation.answers.items():
        responses[str(status)] = {"description": HTTPStatus(status).phrase} | (
            {"content": _content(content)} if content else {}
        )
    # 400 for what is no HTTP, and 500 for a fault of the server's own, are everybody's.
    failures = {400, 500, *operation.errors}
    if operation.changes:
        failures |= {401, 403}
    error = {"application/json": {"schema": ref(operation.error)}}
    for status in sorted(failures - set(operation.answers)):
        response: dict[str, object] = {"description": ERRORS[status], "content": error}
        if status == 429:
            response["headers"] = {
                "Retry-After": {"description": "seconds", "schema": {"type": "integer"}}
            }
        responses[str(status)] = response
    return responses


def _content(content: dict[str, Schema]) -> dict[str, object]:
    return {media: {"schema": schema} for media, schema in content.items()}


def _operation_id(route: Route) -> str:
    words = re.sub(r"\W+", "_", route.pattern).strip("_")
    return f"{route.method.lower()}_{words or 'root'}"
