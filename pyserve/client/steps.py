"""What each method of a client does, said once for all four kinds of client.

A method here is a generator: it yields one operation after the other, is sent their results, and
returns its own. It sends nothing, waits for nothing, and so knows neither threads nor asyncio.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from pyserve.client.exchange import Dialect, Operation, Request
from pyserve.client.metadata import ModelMetadata
from pyserve.client.results import InferResult
from pyserve.client.values import Inputs, as_they_are, bind
from pyserve.errors import InvalidInput, ModelNotFound, Unavailable
from pyserve.messages import InputTensor
from pyserve.scheduling import priority_of

T = TypeVar("T")
Steps: TypeAlias = Generator[Operation[Any], Any, T]

# A client that asks for more models than this fetches their metadata again.
_REMEMBERED_MODELS = 1024


class Wish(NamedTuple):
    """What a caller asks of one inference, as it was written."""

    model: str
    inputs: Inputs
    version: str | int | None = None
    outputs: Sequence[str] | None = None
    id: str | None = None
    priority: int | None = None
    parameters: Mapping[str, object] | None = None
    classification: int | None = None


class StepsOf:
    """The steps of one client; remembers the metadata of models that it had to ask for."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._metadata: dict[tuple[str, str | None], ModelMetadata] = {}

    def live(self) -> Steps[bool]:
        """Whether the process answers; where none does, that is an answer too."""
        try:
            return bool((yield self.dialect.live()))
        except Unavailable:
            return False

    def ready(self, model: str | None, version: str | int | None) -> Steps[bool]:
        """Whether the server or a model can be asked."""
        try:
            return bool((yield self.dialect.ready(model, version_text(version))))
        except (Unavailable, ModelNotFound):
            return False

    def ask(self, operation: Operation[T]) -> Steps[T]:
        """One operation is all there is to it."""
        result: T = yield operation
        return result

    def infer(self, wish: Wish) -> Steps[InferResult]:
        """Run a request whose names or types the model's metadata has to tell.

        Where that was fetched some time ago, and the server refuses the request, it is fetched
        again, and so is the answer if the model has changed.
        """
        key = (wish.model, version_text(wish.version))
        known = self._metadata.get(key)
        result: InferResult
        if known is not None:
            try:
                result = yield self.dialect.infer(_bound(wish, known))
                return result
            except InvalidInput:
                if (yield from self._learn(key)) == known:
                    raise
        else:
            yield from self._learn(key)
        result = yield self.dialect.infer(_bound(wish, self._metadata[key]))
        return result

    def request(self, wish: Wish) -> Steps[Request]:
        """What `infer` sends, for who sends it along a stream."""
        direct = direct_request(wish)
        if direct is not None:
            return direct
        key = (wish.model, version_text(wish.version))
        known = self._metadata.get(key)
        if known is None:
            known = yield from self._learn(key)
        return _bound(wish, known)

    def _learn(self, key: tuple[str, str | None]) -> Steps[ModelMetadata]:
        metadata: ModelMetadata = yield self.dialect.model_metadata(*key)
        if len(self._metadata) >= _REMEMBERED_MODELS:
            self._metadata.clear()
        self._metadata[key] = metadata
        return metadata


def direct_request(wish: Wish) -> Request | None:
    """Return the request that a wish is by itself; None where the model's metadata is needed."""
    tensors = as_they_are(wish.inputs)
    if tensors is None or (wish.outputs is None and wish.classification):
        return None
    return _request(wish, tensors, wish.outputs)


def _bound(wish: Wish, metadata: ModelMetadata) -> Request:
    outputs = wish.outputs
    if outputs is None and wish.classification:
        outputs = [one.name for one in metadata.outputs]
    return _request(wish, bind(wish.inputs, metadata), outputs)


def _request(wish: Wish, tensors: list[InputTensor], outputs: Sequence[str] | None) -> Request:
    if isinstance(outputs, str):
        raise InvalidInput(f'outputs is "{outputs[:64]}", expected a list of names')
    return Request(
        wish.model,
        version_text(wish.version),
        tensors,
        None if outputs is None else tuple(outputs),
        wish.id or "",
        priority_of(wish.priority),
        wish.parameters,
        wish.classification or 0,
    )


def version_text(version: str | int | None) -> str | None:
    """Return a version as it stands in a path; numbers are taken too."""
    return None if version is None else str(version)
