"""`Client`: for scripts and threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from pyserve.client.core import (
    DEFAULT_TIMEOUT_S,
    Core,
    File,
    answered_like,
    called_with,
    make_core,
)
from pyserve.client.exchange import Operation, Transport
from pyserve.client.metadata import IndexEntry, ModelMetadata, ModelStatistics, ServerMetadata
from pyserve.client.options import Compression
from pyserve.client.results import InferResult
from pyserve.client.retries import Deadline
from pyserve.client.steps import Wish, direct_request, version_text
from pyserve.client.stream import Stream, Submit
from pyserve.client.values import Inputs
from pyserve.errors import PyserveError

T = TypeVar("T")


class Client:
    """A model server, for code that blocks; any number of threads may share one.

        client = Client("http://127.0.0.1:8000")     # also https://, grpc://, grpcs://
        y = client.model("digits")(x)

    timeout: seconds for each call with all its retries; None for no end. retries: how often a
    request that was refused for now (429, 503), or got no answer, is sent again. max_connections:
    open at once (HTTP). compression: of requests, and of answers where the server does. token: sent
    as `Authorization: Bearer`. ca_file: whom to trust beside https:// and grpcs://, PEM; cert_file,
    key_file: who we are. clock and sleep are for tests.
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
        sleep: Callable[[float], None] = time.sleep,
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
        self._transport: Transport
        if self._core.options.address.protocol == "grpc":
            from pyserve.client.grpc_sync import GrpcSync

            self._transport = GrpcSync(self._core.options)
        else:
            from pyserve.client.http_sync import HttpSync

            self._transport = HttpSync(self._core.options)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._core.options.address.url

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def infer(
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
        """Run one request.

        inputs: a dict of names to values; or one value; or several in a tuple, in the model's
        order. outputs: only these. timeout: seconds for all of it; the server does not start what
        is late. priority: 1 (high), 2 or 3 (low); 0 or None is the model's default.
        classification: not the values, but the so many largest of each row.
        """
        wish = Wish(model, inputs, version, outputs, id, priority, parameters, classification)
        return self._infer(wish, timeout)

    def model(self, name: str, version: str | int | None = None) -> ModelHandle:
        """Return a model of the server as something to call."""
        return ModelHandle(self, name, version)

    @overload
    def stream(
        self,
        model: str,
        inputs: Iterable[Inputs],
        *,
        version: str | int | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int | None = None,
        parameters: Mapping[str, object] | None = None,
        max_in_flight: int = 16,
        return_errors: Literal[False] = False,
    ) -> Stream[InferResult]: ...

    @overload
    def stream(
        self,
        model: str,
        inputs: Iterable[Inputs],
        *,
        version: str | int | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int | None = None,
        parameters: Mapping[str, object] | None = None,
        max_in_flight: int = 16,
        return_errors: Literal[True],
    ) -> Stream[InferResult | PyserveError]: ...

    def stream(
        self,
        model: str,
        inputs: Iterable[Inputs],
        *,
        version: str | int | None = None,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
        priority: int | None = None,
        parameters: Mapping[str, object] | None = None,
        max_in_flight: int = 16,
        return_errors: bool = False,
    ) -> Stream[Any]:
        """Run a request for each of `inputs`; iterate over the results, which keep their order.

        At most `max_in_flight` are under way. A request's error is raised in its turn, and the
        next one's result comes after it; with `return_errors` it is yielded instead. `inputs` is
        iterated in a thread of its own, so that a slow source holds up no result.
        """
        wish = Wish(model, None, version, outputs, None, priority, parameters, None)
        submit: Submit
        if self._core.options.address.protocol == "grpc":
            submit = self._open_stream(wish, timeout)
        else:
            submit = _Threads(
                lambda one: self._infer(wish._replace(inputs=one), timeout),
                max_in_flight,
            )
        return Stream(inputs, submit, max_in_flight, return_errors=return_errors)

    def live(self, *, timeout: float | None = None) -> bool:
        """Whether the server's process answers; never raises for a server that is not there."""
        return self._run(self._steps.live(), timeout, retries=False)

    def ready(
        self,
        model: str | None = None,
        version: str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> bool:
        """Whether the server, or one model, can be asked now; never waits for it."""
        return self._run(self._steps.ready(model, version), timeout, retries=False)

    def server_metadata(self, *, timeout: float | None = None) -> ServerMetadata:
        """Return name, version and extensions of the server."""
        return self._ask(self._core.dialect.server_metadata(), timeout)

    @overload
    def metadata(self, model: None = None, *, timeout: float | None = None) -> ServerMetadata: ...

    @overload
    def metadata(
        self, model: str, version: str | int | None = None, *, timeout: float | None = None
    ) -> ModelMetadata: ...

    def metadata(
        self,
        model: str | None = None,
        version: str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> ServerMetadata | ModelMetadata:
        """Return what a model takes and gives; without a model, who the server is."""
        if model is None:
            return self.server_metadata(timeout=timeout)
        operation = self._core.dialect.model_metadata(model, version_text(version))
        return self._ask(operation, timeout)

    def config(
        self, model: str, version: str | int | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a model's configuration in the words of Triton's ModelConfig."""
        return self._ask(self._core.dialect.config(model, version_text(version)), timeout)

    def statistics(
        self,
        model: str | None = None,
        version: str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> list[ModelStatistics]:
        """Return what each live version has done, of one model or of all."""
        return self._ask(self._core.dialect.statistics(model, version_text(version)), timeout)

    def index(self, *, ready_only: bool = False, timeout: float | None = None) -> list[IndexEntry]:
        """Return every model of the repository with the state of each version."""
        return self._ask(self._core.dialect.index(ready_only), timeout)

    def load(
        self,
        model: str,
        config: Mapping[str, object] | None = None,
        *,
        timeout: float | None = float("inf"),
    ) -> None:
        """Load a model, or load it again; returns when it is ready. `config` in Triton's words."""
        self._ask(self._core.dialect.load(model, config), timeout)

    def unload(self, model: str, *, timeout: float | None = float("inf")) -> None:
        """Take a model out of service; returns when its last request is done."""
        self._ask(self._core.dialect.unload(model), timeout)

    def metrics(self, *, timeout: float | None = None) -> str:
        """Return the server's metrics as Prometheus' text; over HTTP only."""
        return self._ask(self._core.dialect.metrics(), timeout)

    def _infer(self, wish: Wish, timeout: float | None) -> InferResult:
        request = direct_request(wish)
        if request is None:
            return self._run(self._steps.infer(wish), timeout)
        return self._ask(self._core.dialect.infer(request), timeout)

    def _ask(self, operation: Operation[T], timeout: float | None) -> T:
        return self._send(operation, self._core.deadline(timeout), retries=True)

    def _run(
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
                    result = self._send(operation, deadline, retries=retries)
                except PyserveError as error:
                    operation = steps.throw(error)
                else:
                    operation = steps.send(result)
        except StopIteration as done:
            answer: T = done.value
            return answer

    def _send(self, operation: Operation[T], deadline: Deadline, *, retries: bool) -> T:
        """Ask, and ask again as often as is worth it."""
        attempt = 0
        while True:
            left_s = deadline.remaining_s()
            try:
                call = operation.encode(deadline.told_s(left_s))
                return operation.decode(self._transport.send(call, left_s))
            except PyserveError as error:
                pause_s = self._core.retries.pause_s(
                    error, attempt, deadline.left_s(), repeatable=operation.repeatable
                )
                if not retries or pause_s is None:
                    raise
            self._sleep(pause_s)
            attempt += 1

    def _open_stream(self, wish: Wish, timeout: float | None) -> Submit:
        from pyserve.client.grpc_dialect import GrpcDialect
        from pyserve.client.grpc_stream import GrpcStream
        from pyserve.client.grpc_sync import GrpcSync

        transport, dialect = self._transport, self._core.dialect
        assert isinstance(transport, GrpcSync)
        assert isinstance(dialect, GrpcDialect)
        return GrpcStream(
            transport,
            dialect,
            prepare=lambda one: self._run(self._steps.request(wish._replace(inputs=one)), timeout),
            alone=lambda one, deadline: self._send(dialect.infer(one), deadline, retries=True),
            deadline=lambda: self._core.deadline(timeout),
        )


class _Threads:
    """Requests of a stream over HTTP: each in a thread, on a connection of its own."""

    def __init__(self, infer: Callable[[Inputs], InferResult], count: int) -> None:
        self._infer = infer
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="pyserve-stream")

    def __call__(self, inputs: Inputs) -> Callable[[], InferResult]:
        future: Future[InferResult] = self._pool.submit(self._infer, inputs)
        return future.result

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class ModelHandle:
    """One model of a server, to call: numpy in, numpy out; torch in, torch out.

    One output is returned itself, several in a dict.
    """

    def __init__(self, client: Client, name: str, version: str | int | None) -> None:
        self._client = client
        self.name = name
        self.version = version

    def __call__(self, *values: Any, timeout: float | None = None, **named: Any) -> Any:
        """Run the model on inputs in its order, or by name (in a dict where not keywords)."""
        inputs = called_with(values, named)
        return answered_like(inputs, self.infer(inputs, timeout=timeout))

    def infer(self, inputs: Inputs, **options: Any) -> InferResult:
        """Run the model; options are those of `Client.infer`."""
        return self._client.infer(self.name, inputs, version=self.version, **options)

    def metadata(self) -> ModelMetadata:
        """Return what the model takes and gives."""
        return self._client.metadata(self.name, self.version)

    def ready(self) -> bool:
        """Whether the model can be asked now."""
        return self._client.ready(self.name, self.version)
