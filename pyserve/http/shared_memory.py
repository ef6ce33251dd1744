"""Triton's shared memory extensions: regions that clients on this machine register by name.

System shared memory is off unless the server was started with it.  CUDA's is not there at all, and
is answered so: nothing is registered, and nothing can be.
"""

from typing import Annotated

import msgspec
from aiohttp import web

from pyserve.errors import InvalidInput, PermissionDenied
from pyserve.http.answers import Answer, json_answer
from pyserve.http.json_bodies import decode_body
from pyserve.http.management import Management
from pyserve.http.routing import Params, Router
from pyserve.service import Service
from pyserve.shared_memory import SharedMemory

_MAX_BODY_BYTES = 64 * 1024


class _Registration(msgspec.Struct):
    key: str
    byte_size: Annotated[int, msgspec.Meta(ge=0)]
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0


class SharedMemoryApi:
    """`/v2/systemsharedmemory/...` and `/v2/cudasharedmemory/...`."""

    def __init__(self, service: Service, management: Management) -> None:
        self._service = service
        self._management = management

    def add_routes(self, router: Router) -> None:
        """Add this API's routes."""
        for kind, status, register, unregister in (
            ("system", self.status, self.register, self.unregister),
            ("cuda", self.cuda_status, self.cuda_register, self.cuda_unregister),
        ):
            base = f"/v2/{kind}sharedmemory"
            region = f"{base}/region/{{region}}"
            router.add("GET", f"{base}/status", status)
            router.add("GET", base, status)
            router.add("GET", f"{region}/status", status)
            router.add("POST", f"{region}/register", register)
            router.add("POST", f"{region}/unregister", unregister)
            router.add("POST", f"{base}/unregister", unregister)

    async def status(self, request: web.BaseRequest, params: Params) -> Answer:
        """Every region that is registered, or the one named: name, key, offset and size."""
        memory = self._service.shared_memory
        found = [] if memory is None else memory.status(params.get("region"))
        return json_answer([one._asdict() for one in found])

    async def register(self, request: web.BaseRequest, params: Params) -> Answer:
        """Give a stretch of a shared memory object a name that requests may use."""
        memory = self._guarded(request)
        wanted = await decode_body(request, _MAX_BODY_BYTES, _Registration)
        memory.register(params["region"], wanted.key, wanted.offset, wanted.byte_size)
        return json_answer({})

    async def unregister(self, request: web.BaseRequest, params: Params) -> Answer:
        """Forget a region, or all of them; the objects stay their owners'."""
        memory = self._guarded(request)
        if "region" in params:
            memory.unregister(params["region"])
        else:
            memory.unregister_all()
        return json_answer({})

    async def cuda_status(self, request: web.BaseRequest, params: Params) -> Answer:
        """No region of CUDA memory is ever registered here."""
        if "region" in params:
            raise _no_cuda()
        return json_answer([])

    async def cuda_register(self, request: web.BaseRequest, params: Params) -> Answer:
        """Refused: this server takes no CUDA memory from other processes."""
        raise _no_cuda()

    async def cuda_unregister(self, request: web.BaseRequest, params: Params) -> Answer:
        """Nothing is registered, so there is nothing left to be done."""
        return json_answer({})

    def _guarded(self, request: web.BaseRequest) -> SharedMemory:
        self._management.check(request, models=False)
        memory = self._service.shared_memory
        if memory is None:
            raise PermissionDenied(
                "system shared memory is off: start the server with --shared-memory"
            )
        return memory


def _no_cuda() -> InvalidInput:
    return InvalidInput("CUDA shared memory is not supported: use system shared memory")
