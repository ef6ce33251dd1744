"""Triton's system shared memory extension over gRPC; off unless the server was started with it.

CUDA's is not there: its methods are not implemented.
"""

from __future__ import annotations

from typing import Any

from pyserve.errors import PermissionDenied
from pyserve.grpc.calls import Context, Unary
from pyserve.grpc.management import Management
from pyserve.protos import message
from pyserve.service import Service
from pyserve.shared_memory import SharedMemory


class SharedMemoryApi:
    """SystemSharedMemoryStatus, SystemSharedMemoryRegister and SystemSharedMemoryUnregister."""

    def __init__(self, service: Service, management: Management) -> None:
        self._service = service
        self._management = management

    @property
    def unary(self) -> dict[str, Unary]:
        """Handlers of messages."""
        return {
            "SystemSharedMemoryStatus": self.status,
            "SystemSharedMemoryRegister": self.register,
            "SystemSharedMemoryUnregister": self.unregister,
        }

    async def status(self, request: Any, context: Context) -> Any:
        """Every region that is registered, or the one named: name, key, offset and size."""
        answer = message("inference.SystemSharedMemoryStatusResponse")()
        memory = self._service.shared_memory
        for one in [] if memory is None else memory.status(request.name or None):
            region = answer.regions[one.name]
            region.name, region.key = one.name, one.key
            region.offset, region.byte_size = one.offset, one.byte_size
        return answer

    async def register(self, request: Any, context: Context) -> Any:
        """Give a stretch of a shared memory object a name that requests may use."""
        memory = self._guarded(context)
        memory.register(request.name, request.key, request.offset, request.byte_size)
        return message("inference.SystemSharedMemoryRegisterResponse")()

    async def unregister(self, request: Any, context: Context) -> Any:
        """Forget a region, or all of them; the objects stay their owners'."""
        memory = self._guarded(context)
        if request.name:
            memory.unregister(request.name)
        else:
            memory.unregister_all()
        return message("inference.SystemSharedMemoryUnregisterResponse")()

    def _guarded(self, context: Context) -> SharedMemory:
        self._management.check(context, models=False)
        memory = self._service.shared_memory
        if memory is None:
            raise PermissionDenied(
                "system shared memory is off: start the server with --shared-memory"
            )
        return memory
