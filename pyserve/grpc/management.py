"""Who may change what is served over gRPC: `pyserve.guard`, asked with a call's metadata."""

from __future__ import annotations

from pyserve.grpc.calls import Context
from pyserve.guard import Guard


class Management:
    """The guard before every handler that changes state."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def check(self, context: Context, *, models: bool = True) -> None:
        """Raise UNAUTHENTICATED's or PERMISSION_DENIED's error unless the call may go on.

        models: it changes which models are served.
        """
        metadata = dict(context.invocation_metadata())
        authorization = metadata.get("authorization", "")
        self._guard.check(
            authorization if isinstance(authorization, str) else "",
            from_page="origin" in metadata,
            models=models,
        )
