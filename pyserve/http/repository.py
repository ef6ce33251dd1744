"""Triton's model repository extension: what there is, and loading and unloading by name."""

from typing import TypeVar

import msgspec
from aiohttp import web

from pyserve.errors import InvalidInput
from pyserve.http.answers import Answer, json_answer
from pyserve.http.bodies import read_body
from pyserve.http.management import Management
from pyserve.http.routing import Params, Router
from pyserve.registry import ModelIndexEntry
from pyserve.service import Service

# The bodies of these calls are a few words; Triton's clients may send model files, which are
# refused, so there is no use in reading more.
_MAX_BODY_BYTES = 1024 * 1024

_T = TypeVar("_T")


class _IndexRequest(msgspec.Struct):
    ready: bool = False


class _ChangeRequest(msgspec.Struct):
    parameters: dict[str, object] = {}


class RepositoryApi:
    """`/v2/repository/...`."""

    def __init__(self, service: Service, management: Management) -> None:
        self._service = service
        self._management = management

    def add_routes(self, router: Router) -> None:
        """Add this API's routes."""
        router.add("POST", "/v2/repository/index", self.index)
        router.add("POST", "/v2/repository/models/{model}/load", self.load)
        router.add("POST", "/v2/repository/models/{model}/unload", self.unload)

    async def index(self, request: web.BaseRequest, params: Params) -> Answer:
        """Every model of the repositories with the state of each version, as a bare array."""
        wanted = await _decode(request, _IndexRequest)
        entries = await self._service.index()
        return json_answer(
            [_entry(one) for one in entries if one.state == "READY" or not wanted.ready]
        )

    async def load(self, request: web.BaseRequest, params: Params) -> Answer:
        """Load a model, or load it again from its files; answers when it is ready or has failed."""
        self._management.check(request)
        change = await _decode(request, _ChangeRequest)
        if change.parameters:
            names = ", ".join(f'"{name[:40]}"' for name in list(change.parameters)[:4])
            raise InvalidInput(
                f"a load request takes no parameters here, got {names}: "
                "put the files into the model repository and load it by name"
            )
        await self._service.load(params["model"])
        return json_answer({})

    async def unload(self, request: web.BaseRequest, params: Params) -> Answer:
        """Take a model out of service; answers when its last request is done."""
        self._management.check(request)
        await _decode(request, _ChangeRequest)
        await self._service.unload(params["model"])
        return json_answer({})


async def _decode(request: web.BaseRequest, kind: type[_T]) -> _T:
    """Return the body as `kind`; clients send no body, an empty one, or JSON."""
    body = await read_body(request, _MAX_BODY_BYTES)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the body is not what was expected: {error}") from None
    except RecursionError:
        raise InvalidInput("the body is JSON that is nested too deep") from None


def _entry(one: ModelIndexEntry) -> dict[str, str]:
    entry = {"name": one.name}
    if one.version:
        entry["version"] = one.version
    entry["state"] = one.state
    entry["reason"] = one.reason
    return entry
