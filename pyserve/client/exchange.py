"""The seam between what a call means and how it travels.

An `Operation` is one question and how to read its answer. A `Dialect` makes them (one for HTTP, one
for gRPC), a transport sends them (blocking or asyncio), and neither knows the other's business:
what passes between them is a call and a reply of their own kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from pyserve.client.metadata import IndexEntry, ModelMetadata, ModelStatistics, ServerMetadata
from pyserve.client.results import InferResult
from pyserve.errors import Unavailable
from pyserve.messages import InputTensor

T = TypeVar("T")


class Operation(NamedTuple, Generic[T]):
    """One question.

    encode: makes the call, given the seconds that the server is told are left for it.
    decode: returns what the reply says, or raises it.
    repeatable: asking twice does no harm.
    """

    encode: Callable[[float], Any]
    decode: Callable[[Any], T]
    repeatable: bool = True


class Request(NamedTuple):
    """One inference, before it is encoded."""

    model: str
    version: str | None
    inputs: list[InputTensor]
    outputs: tuple[str, ...] | None
    id: str
    priority: int
    parameters: Mapping[str, object] | None
    classification: int


class Dialect(Protocol):
    """What can be asked, in one protocol; `version` None is the server's choice."""

    def live(self) -> Operation[bool]:
        """Whether the process answers."""

    def ready(self, model: str | None, version: str | None) -> Operation[bool]:
        """Whether the server, or a model, can be asked."""

    def server_metadata(self) -> Operation[ServerMetadata]:
        """Who answers."""

    def model_metadata(self, model: str, version: str | None) -> Operation[ModelMetadata]:
        """What a model takes and gives."""

    def config(self, model: str, version: str | None) -> Operation[dict[str, Any]]:
        """A model's configuration in Triton's words."""

    def statistics(
        self, model: str | None, version: str | None
    ) -> Operation[list[ModelStatistics]]:
        """What live versions have done."""

    def index(self, ready_only: bool) -> Operation[list[IndexEntry]]:
        """All models of the repository."""

    def load(self, model: str, config: Mapping[str, object] | None) -> Operation[None]:
        """Load a model."""

    def unload(self, model: str) -> Operation[None]:
        """Unload a model."""

    def metrics(self) -> Operation[str]:
        """Prometheus' text."""

    def infer(self, request: Request) -> Operation[InferResult]:
        """Run a request."""


class Transport(Protocol):
    """Sends calls and waits; any number of threads at once."""

    def send(self, call: Any, timeout_s: float) -> Any:
        """Return the reply; raises NoAnswer, or DeadlineExceeded after `timeout_s`."""

    def close(self) -> None:
        """Close all connections."""


class AsyncTransport(Protocol):
    """The same for one event loop."""

    async def send(self, call: Any, timeout_s: float) -> Any:
        """Return the reply; raises NoAnswer, or DeadlineExceeded after `timeout_s`."""

    async def close(self) -> None:
        """Close all connections."""


def not_a_model_server(url: str) -> Unavailable:
    """Return the error for an answer that is none of the protocol's."""
    return Unavailable(f"{url} answers, but not as a model server does")
