"""Triton's model repository extension over gRPC: what there is, and loading and unloading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyserve.grpc.calls import Context, Unary
from pyserve.grpc.management import Management
from pyserve.protos import message
from pyserve.service import Service
from pyserve.triton_config import check_unload, load_changes


class RepositoryApi:
    """RepositoryIndex, RepositoryModelLoad and RepositoryModelUnload."""

    def __init__(self, service: Service, management: Management) -> None:
        self._service = service
        self._management = management

    @property
    def unary(self) -> dict[str, Unary]:
        """Handlers of messages."""
        return {
            "RepositoryIndex": self.index,
            "RepositoryModelLoad": self.load,
            "RepositoryModelUnload": self.unload,
        }

    async def index(self, request: Any, context: Context) -> Any:
        """Every model of the repositories with the state of each version."""
        answer = message("inference.RepositoryIndexResponse")()
        for one in await self._service.index():
            if one.state == "READY" or not request.ready:
                answer.models.add(
                    name=one.name, version=one.version, state=one.state, reason=one.reason
                )
        return answer

    async def load(self, request: Any, context: Context) -> Any:
        """Load a model, or load it again from its files; answers when it is ready or has failed."""
        self._management.check(context)
        await self._service.load(request.model_name, load_changes(_plain(request.parameters)))
        return message("inference.RepositoryModelLoadResponse")()

    async def unload(self, request: Any, context: Context) -> Any:
        """Take a model out of service; answers when its last request is done."""
        self._management.check(context)
        check_unload(_plain(request.parameters))
        await self._service.unload(request.model_name)
        return message("inference.RepositoryModelUnloadResponse")()


def _plain(parameters: Mapping[str, Any]) -> dict[str, object]:
    """Return parameters as the REST API has them; None for one without a value."""
    plain: dict[str, object] = {}
    for name, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        plain[name] = None if choice is None else getattr(value, choice)
    return plain
