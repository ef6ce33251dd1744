"""Triton's model repository extension: what there is, and loading and unloading by name."""

import msgspec
from aiohttp import web

from pyserve.http.answers import Answer, json_answer
from pyserve.http.json_bodies import decode_body
from pyserve.http.management import Management
from pyserve.http.routing import Params, Router
from pyserve.registry import ModelIndexEntry
from pyserve.service import Service
from pyserve.triton_config import check_unload, load_changes

# The bodies of these calls are a few words; Triton's clients may send model files, which are
# refused, so there is no use in reading more.
_MAX_BODY_BYTES = 1024 * 1024


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
        wanted = await decode_body(request, _MAX_BODY_BYTES, _IndexRequest)
        entries = await self._service.index()
        return json_answer(
            [_entry(one) for one in entries if one.state == "READY" or not wanted.ready]
        )

    async def load(self, request: web.BaseRequest, params: Params) -> Answer:
        """Load a model, or load it again from its files; answers when it is ready or has failed."""
        self._management.check(request)
        change = await decode_body(request, _MAX_BODY_BYTES, _ChangeRequest)
        await self._service.load(params["model"], load_changes(change.parameters))
        return json_answer({})

    async def unload(self, request: web.BaseRequest, params: Params) -> Answer:
        """Take a model out of service; answers when its last request is done."""
        self._management.check(request)
        change = await decode_body(request, _MAX_BODY_BYTES, _ChangeRequest)
        check_unload(change.parameters)
        await self._service.unload(params["model"])
        return json_answer({})


def _entry(one: ModelIndexEntry) -> dict[str, str]:
    entry = {"name": one.name}
    if one.version:
        entry["version"] = one.version
    entry["state"] = one.state
    entry["reason"] = one.reason
    return entry
