"""The requests of a stream over gRPC: ModelStreamInfer, for threads.

The stream is the fast way. A request that is refused for now is asked again by itself, where
retries are; so is one whose error has no code, as with other servers: then it is known what to
raise.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from queue import SimpleQueue
from typing import Any

import grpc

from pyserve.client.exchange import Request
from pyserve.client.grpc_dialect import SERVICE, GrpcDialect, encode_infer
from pyserve.client.grpc_sync import GrpcSync, wait_of
from pyserve.client.results import InferResult
from pyserve.client.retries import Deadline, too_late
from pyserve.client.values import Inputs
from pyserve.errors import PyserveError, QueueFull, Unavailable, from_grpc_code
from pyserve.protos import message
from pyserve.wire.oip_proto import STREAM_CODE

STREAM_PATH = f"/{SERVICE}/ModelStreamInfer"

_FOR_NOW = {Unavailable.grpc_code, QueueFull.grpc_code}


class GrpcStream:
    """Sends requests along one call; a thread of its own reads the answers.

    prepare: inputs become a request. alone: runs one by itself, until the deadline.
    """

    def __init__(
        self,
        transport: GrpcSync,
        dialect: GrpcDialect,
        *,
        prepare: Callable[[Inputs], Request],
        alone: Callable[[Request, Deadline], InferResult],
        deadline: Callable[[], Deadline],
    ) -> None:
        self._dialect = dialect
        self._prepare = prepare
        self._alone = alone
        self._deadline = deadline
        self._numbers = itertools.count(1)
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._pending: dict[str, Future[Any]] = {}
        self._broken = False
        method = transport.channel.stream_stream(STREAM_PATH)
        self._call = method(iter(self._outgoing.get, None), **transport.call_options)
        threading.Thread(
            target=self._read, args=(iter(self._call),), name="pyserve-stream-reader", daemon=True
        ).start()

    def __call__(self, inputs: Inputs) -> Callable[[], InferResult]:
        """Send a request; what is returned waits for its result."""
        request = self._prepare(inputs)
        deadline = self._deadline()
        left_s = deadline.remaining_s()
        number = str(next(self._numbers))
        future: Future[Any] = Future()
        with self._lock:
            if self._broken:
                future.cancel()
            else:
                self._pending[number] = future
        told_s = deadline.told_s(left_s)
        self._outgoing.put(encode_infer(request._replace(id=number), told_s))
        return lambda: self._wait(future, request, deadline, left_s)

    def close(self) -> None:
        """Half-close, where all is answered; else give up."""
        self._outgoing.put(None)
        if self._pending:
            self._call.cancel()

    def _wait(
        self, future: Future[Any], request: Request, deadline: Deadline, timeout_s: float
    ) -> InferResult:
        try:
            answer = future.result(wait_of(deadline.remaining_s()))
        except TimeoutError:
            raise too_late(timeout_s) from None
        except CancelledError:
            return self._alone(request, deadline)
        if answer.error_message:
            error = refused_for_good(answer)
            if error is not None:
                raise error
            return self._alone(request, deadline)
        return unnumbered(self._dialect, answer)

    def _read(self, answers: Iterator[bytes]) -> None:
        try:
            for data in answers:
                answer = message("inference.ModelStreamInferResponse").FromString(data)
                with self._lock:
                    future = self._pending.pop(answer.infer_response.id, None)
                if future is not None:
                    future.set_result(answer)
        except grpc.RpcError:
            pass  # whoever waits asks again alone, and hears there what is wrong
        finally:
            with self._lock:
                self._broken = True
                left = list(self._pending.values())
                self._pending.clear()
            for future in left:
                future.cancel()


def refused_for_good(answer: Any) -> PyserveError | None:
    """Return the error in a stream's answer; None where it pays to ask again, alone."""
    parameters = answer.infer_response.parameters
    code = parameters[STREAM_CODE].string_param if STREAM_CODE in parameters else ""
    if not code or code in _FOR_NOW:
        return None
    error = from_grpc_code(code, answer.error_message)
    error.add_note(f"gRPC {code}")
    return error


def unnumbered(dialect: GrpcDialect, answer: Any) -> InferResult:
    """Return the result in a stream's answer, without the id that only told it apart."""
    answer.infer_response.id = ""
    return dialect.decode_answer(answer.infer_response, {})
