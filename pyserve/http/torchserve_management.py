"""TorchServe's management API: `/models`, for what is registered, and for changing it."""

from __future__ import annotations

from urllib.parse import parse_qsl

import msgspec
from aiohttp import hdrs, web

from pyserve.errors import InvalidInput
from pyserve.http.answers import Answer
from pyserve.http.bodies import read_body
from pyserve.http.forms import read_fields
from pyserve.http.management import Management
from pyserve.http.openapi import document
from pyserve.http.routing import Params, Router
from pyserve.http.torchserve import add, flag, told
from pyserve.torchserve.store import Register, Said, Store

_MAX_BODY_BYTES = 64 << 10
_MAX_PARAMETERS = 64


class TorchServeManagementApi:
    """The routes of TorchServe's management port."""

    def __init__(self, store: Store, management: Management, *, version: str) -> None:
        self._store = store
        self._catalog = store.catalog
        self._management = management
        self._version = version
        self._router = Router()

    def add_routes(self, router: Router, *, descriptions: bool = False) -> None:
        """Add this API's routes; with `descriptions` those that the inference API has, too."""
        self._router = router
        if descriptions:
            add(router, "GET", "/api-description", self.describe_api)
            add(router, "OPTIONS", "/", self.describe_api)
        add(router, "GET", "/models", self.list_models)
        add(router, "POST", "/models", self.register)
        for base in ("/models/{model}", "/models/{model}/{version}"):
            add(router, "GET", base, self.describe)
            add(router, "PUT", base, self.scale)
            add(router, "DELETE", base, self.unregister)
        add(router, "PUT", "/models/{model}/{version}/set-default", self.set_default)

    async def describe_api(self, request: web.BaseRequest, params: Params) -> Answer:
        """The routes of this port, as OpenAPI 3.1."""
        return told(document(self._router.routes, version=self._version))

    async def list_models(self, request: web.BaseRequest, params: Params) -> Answer:
        """A page of the models that are registered or served."""
        asked = _query(request)
        page = await self._catalog.page(_number(asked, "limit"), _number(asked, "next_page_token"))
        answer: dict[str, object] = {
            "models": [{"modelName": name, "modelUrl": url} for name, url in page.models]
        }
        if page.next_page is not None:
            answer = {"nextPageToken": str(page.next_page), **answer}
        return told(answer)

    async def describe(self, request: web.BaseRequest, params: Params) -> Answer:
        """What one version, or each version (`all`) of a model is and does."""
        customized = flag(_query(request).get("customized"))
        return told(
            self._catalog.describe(params["model"], params.get("version"), customized=customized)
        )

    async def register(self, request: web.BaseRequest, params: Params) -> Answer:
        """Register an archive of the model store, or from an allowed URL."""
        self._management.check(request)
        asked = await _parameters(request)
        return _said(
            await self._store.register(
                Register(
                    url=asked.get("url") or asked.get("model_url", ""),
                    model_name=asked.get("model_name", ""),
                    handler=asked.get("handler", ""),
                    runtime=asked.get("runtime", ""),
                    batch_size=_number(asked, "batch_size"),
                    max_batch_delay=_number(asked, "max_batch_delay"),
                    response_timeout=_number(asked, "response_timeout"),
                    initial_workers=_number(asked, "initial_workers"),
                    synchronous=flag(asked.get("synchronous")),
                )
            )
        )

    async def scale(self, request: web.BaseRequest, params: Params) -> Answer:
        """Give a model as many instances as `min_worker` says."""
        self._management.check(request)
        asked = _query(request)
        return _said(
            await self._store.scale(
                params["model"],
                params.get("version") or asked.get("model_version"),
                minimum=_number(asked, "min_worker"),
                maximum=_number(asked, "max_worker"),
                synchronous=flag(asked.get("synchronous")),
            )
        )

    async def set_default(self, request: web.BaseRequest, params: Params) -> Answer:
        """Let a version answer the requests that name none."""
        self._management.check(request)
        return _said(await self._store.set_default(params["model"], params["version"]))

    async def unregister(self, request: web.BaseRequest, params: Params) -> Answer:
        """Forget a version; answers when its last request is done."""
        self._management.check(request)
        return _said(await self._store.unregister(params["model"], params.get("version")))


def _said(said: Said) -> Answer:
    return told({"status": said.status}, said.code)


def _query(request: web.BaseRequest) -> dict[str, str]:
    """Return the parameters in the query; of equal ones the last counts."""
    try:
        pairs = parse_qsl(
            request.rel_url.raw_query_string,
            keep_blank_values=True,
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError:
        raise InvalidInput(f"the query has more than {_MAX_PARAMETERS} parameters") from None
    return dict(pairs)


async def _parameters(request: web.BaseRequest) -> dict[str, str]:
    """Return parameters from the query, and those of a JSON or form body over them."""
    asked = _query(request)
    body = await read_body(request, _MAX_BODY_BYTES)
    content_type = request.headers.get(hdrs.CONTENT_TYPE, "")
    if not body.strip():
        return asked
    if content_type.partition(";")[0].strip().lower() == "application/json":
        return asked | _from_json(body)
    fields = await read_fields(body, content_type)
    try:
        return asked | {name: field.data.decode() for name, field in fields.items()}
    except UnicodeDecodeError:
        raise InvalidInput("the form is no text") from None


def _from_json(body: bytes) -> dict[str, str]:
    try:
        value = msgspec.json.decode(body, type=dict[str, str | int | float | bool | None])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the body is not what was expected: {error}") from None
    except RecursionError:
        raise InvalidInput("the body is JSON that is nested too deep") from None
    return {name: _text(one) for name, one in value.items() if one is not None}


def _text(value: str | float | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(asked: dict[str, str], name: str) -> int | None:
    """Return a parameter as a number; what is none is not there, as TorchServe has it."""
    text = asked.get(name, "").strip()
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
