"""`AsyncClient`: the same client for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from pyserve.client.async_stream import AsyncStream, AsyncSubmit, look_at
from pyserve.client.core import (
    DEFAULT_TIMEOUT_S,
    Core,
    File,
    answered_like,
    called_with,
    make_core,
)
from pyserve.client.exchange import AsyncTransport, Operation
from pyserve.client.metadata import IndexEntry, ModelMetadata, ModelStatistics, ServerMetadata
from pyserve.client.options import Compression
from pyserve.client.results import InferResult
from pyserve.client.retries import Deadline
from pyserve.client.steps import Wish, direct_request, version_text
from pyserve.client.values import Inputs
from pyserve.errors import PyserveError

T = TypeVar("T")


class AsyncClient:
    """A model server, for asyncio; belongs to the event loop that makes its first call.

        async with AsyncClient("http://127.0.0.1:8000") as client:
            y = await client.model("digits")(x)

    The options are those of `Client`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        timeout: float | None = DEFAULT_TIMEOUT_S,
        retries: int = 3,
        connect_timeout: float = 5.0,
        max_connections: int = 32,
        compression: Compression | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        ca_file: File | None = None,
        cert_file: File | None = None,
        key_file: File | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._core: Core = make_core(
            url,
            timeout=timeout,
            retries=retries,
            connect_timeout=connect_timeout,
            max_connections=max_connections,
            compression=compression,
            headers=headers,
            token=token,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            clock=clock,
        )
        self._sleep = sleep
        self._steps = self._core.steps
        self._transport: AsyncTransport
        if self._core.options.address.protocol == "grpc":
            from pyserve.client.grpc_async import GrpcAsync

            self._transport = GrpcAsync(self._core.options)
        else:
            from pyserve.client.http_async import HttpAsync

            self._transport = HttpAsync(self._core.options)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._core.options.address.url

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        id: str | None = None,  # noqa: A002
        priority: int | None = None,
        parameters: Mapping[str, object] | None = None,
        classification: int | None = None,
    ) -> InferResult:
        """Run one request, as `Client.infer` does; cancelling it takes it out of the queue."""
        wish = Wish(model, inputs, version, outputs, id, priority, parameters, classification)
        return await self._infer(wish, timeout)

    def model(self, name: str, version: str | int | None = None) -> AsyncModelHandle:
        """Return a model of the server as something to call and await."""
        return AsyncModelHandle(self, name, version)

    @overload
    def stream(
        self,
        model: str,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        version: str | int | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int | None = None,
        parameters: Mapping[str, object] | None = None,
        max_in_flight: int = 16,
        return_errors: Literal[False] = False,
    ) -> AsyncStream[InferResult]: ...

    @overload
    def stream(
        self,
        model: str,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        version: str | int | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int | None = None,
        parameters: Mapping[str, object] | None = None,
        max_in_flight: int = 16,
        return_errors: Literal[True],
    ) -> AsyncStream[InferResult | PyserveError]: ...

    def stream(
        self,
        model: str,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        version: str | int | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int | None = None,
        parameters: Mapping[str, object] | None = None,
        max_in_flight: int = 16,
        return_errors: bool = False,
    ) -> AsyncStream[Any]:
        """Run a request for each of `inputs`; `async for` yields the results in their order.

        At most `max_in_flight` are under way. A request's error is raised in its turn, and the
        next one's result comes after it; with `return_errors` it is yielded instead.
        """
        wish = Wish(model, None, version, outputs, None, priority, parameters, None)
        submit: AsyncSubmit
        if self._core.options.address.protocol == "grpc":
            submit = self._open_stream(wish, timeout)
        else:
            submit = _Tasks(lambda one: self._infer(wish._replace(inputs=one), timeout))
        return AsyncStream(inputs, submit, max_in_flight, return_errors=return_errors)

    async def live(self, *, timeout: float | None = None) -> bool:
        """Whether the server's process answers; never raises for a server that is not there."""
        return await self._run(self._steps.live(), timeout, retries=False)

    async def ready(
        self,
        model: str | None = None,
        version: str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> bool:
        """Whether the server, or one model, can be asked now; never waits for it."""
        return await self._run(self._steps.ready(model, version), timeout, retries=False)

    async def server_metadata(self, *, timeout: float | None = None) -> ServerMetadata:
        """Return name, version and extensions of the server."""
        return await self._ask(self._core.dialect.server_metadata(), timeout)

    @overload
    async def metadata(
        self, model: None = None, *, timeout: float | None = None
    ) -> ServerMetadata: ...

    @overload
    async def metadata(
        self, model: str, version: str | int | None = None, *, timeout: float | None = None
    ) -> ModelMetadata: ...

    async def metadata(
        self,
        model: str | None = None,
        version: str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> ServerMetadata | ModelMetadata:
        """Return what a model takes and gives; without a model, who the server is."""
        if model is None:
            return await self.server_metadata(timeout=timeout)
        operation = self._core.dialect.model_metadata(model, version_text(version))
        return await self._ask(operation, timeout)

    async def config(
        self, model: str, version: str | int | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a model's configuration in the words of Triton's ModelConfig."""
        return await self._ask(self._core.dialect.config(model, version_text(version)), timeout)

    async def statistics(
        self,
        model: str | None = None,
        version: str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> list[ModelStatistics]:
        """Return what each live version has done, of one model or of all."""
        operation = self._core.dialect.statistics(model, version_text(version))
        return await self._ask(operation, timeout)

    async def index(
        self, *, ready_only: bool = False, timeout: float | None = None
    ) -> list[IndexEntry]:
        """Return every model of the repository with the state of each version."""
        return await self._ask(self._core.dialect.index(ready_only), timeout)

    async def load(
        self,
        model: str,
        config: Mapping[str, object] | None = None,
        *,
        timeout: float | None = float("inf"),
    ) -> None:
        """Load a model, or load it again; returns when it is ready. `config` in Triton's words."""
        await self._ask(self._core.dialect.load(model, config), timeout)

    async def unload(self, model: str, *, timeout: float | None = float("inf")) -> None:
        """Take a model out of service; returns when its last request is done."""
        await self._ask(self._core.dialect.unload(model), timeout)

    async def metrics(self, *, timeout: float | None = None) -> str:
        """Return the server's metrics as Prometheus' text; over HTTP only."""
        return await self._ask(self._core.dialect.metrics(), timeout)

    def _infer(self, wish: Wish, timeout: float | None) -> Coroutine[Any, Any, InferResult]:
        request = direct_request(wish)
        if request is None:
            return self._run(self._steps.infer(wish), timeout)
        return self._ask(self._core.dialect.infer(request), timeout)

    def _ask(self, operation: Operation[T], timeout: float | None) -> Coroutine[Any, Any, T]:
        return self._send(operation, self._core.deadline(timeout), retries=True)

    async def _run(
        self,
        steps: Generator[Operation[Any], Any, T],
        timeout: float | None,
        *,
        retries: bool = True,
    ) -> T:
        """Take steps one by one until they return."""
        deadline = self._core.deadline(timeout)
        try:
            operation = next(steps)
            while True:
                try:
                    result = await self._send(operation, deadline, retries=retries)
                except PyserveError as error:
                    operation = steps.throw(error)
                else:
                    operation = steps.send(result)
        except StopIteration as done:
            answer: T = done.value
            return answer

    async def _send(self, operation: Operation[T], deadline: Deadline, *, retries: bool) -> T:
        """Ask, and ask again as often as is worth it."""
        attempt = 0
        while True:
            left_s = deadline.remaining_s()
            try:
                call = operation.encode(deadline.told_s(left_s))
                return operation.decode(await self._transport.send(call, left_s))
            except PyserveError as error:
                pause_s = self._core.retries.pause_s(
                    error, attempt, deadline.left_s(), repeatable=operation.repeatable
                )
                if not retries or pause_s is None:
                    raise
            await self._sleep(pause_s)
            attempt += 1

    def _open_stream(self, wish: Wish, timeout: float | None) -> AsyncSubmit:
        from pyserve.client.grpc_async import GrpcAsync
        from pyserve.client.grpc_async_stream import GrpcAsyncStream
        from pyserve.client.grpc_dialect import GrpcDialect

        transport, dialect = self._transport, self._core.dialect
        assert isinstance(transport, GrpcAsync)
        assert isinstance(dialect, GrpcDialect)
        return GrpcAsyncStream(
            transport,
            dialect,
            prepare=lambda one: self._run(self._steps.request(wish._replace(inputs=one)), timeout),
            alone=lambda one, deadline: self._send(dialect.infer(one), deadline, retries=True),
            deadline=lambda: self._core.deadline(timeout),
        )


class _Tasks:
    """Requests of a stream over HTTP: each a task."""

    def __init__(self, infer: Callable[[Inputs], Coroutine[Any, Any, InferResult]]) -> None:
        self._infer = infer
        self._tasks: set[asyncio.Future[InferResult]] = set()

    async def __call__(self, inputs: Inputs) -> asyncio.Future[InferResult]:
        task = asyncio.create_task(self._infer(inputs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(look_at)
        return task

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


class AsyncModelHandle:
    """One model of a server, to call and await; see `ModelHandle`."""

    def __init__(self, client: AsyncClient, name: str, version: str | int | None) -> None:
        self._client = client
        self.name = name
        self.version = version

    async def __call__(self, *values: Any, timeout: float | None = None, **named: Any) -> Any:
        """Run the model on inputs in its order, or by name (in a dict where not keywords)."""
        inputs = called_with(values, named)
        return answered_like(inputs, await self.infer(inputs, timeout=timeout))

    async def infer(self, inputs: Inputs, **options: Any) -> InferResult:
        """Run the model; options are those of `AsyncClient.infer`."""
        return await self._client.infer(self.name, inputs, version=self.version, **options)

    async def metadata(self) -> ModelMetadata:
        """Return what the model takes and gives."""
        return await self._client.metadata(self.name, self.version)

    async def ready(self) -> bool:
        """Whether the model can be asked now."""
        return await self._client.ready(self.name, self.version)
