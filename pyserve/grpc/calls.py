"""One call over gRPC: read its message, run its handler, turn what that raises into a status.

The services themselves live in files of their own (`oip`, `repository`, `health`); this module has
what is the same for all of them: messages, errors, and the count of answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import grpc

from pyserve.errors import INTERNAL, PyserveError, QueueFull, Unavailable
from pyserve.protos import Method, methods
from pyserve.wire.oip_proto import parse

Context = Any
"""`grpc.aio.ServicerContext`: grpc's Python package has no types."""

Unary = Callable[[Any, Context], Awaitable[Any]]
"""From a request to its answer, messages both."""

Raw = Callable[[bytes, Context], bytes | Awaitable[bytes]]
"""The same for serialized messages; an answer that is there at once need not be awaited."""

Stream = Callable[[AsyncIterator[Any], Context], Awaitable[None]]
"""Reads requests and writes answers by itself, until the call is over."""

Responses = Counter[tuple[str, str]]
"""How many answers there were, by method (`service/Name`) and status (`OK`)."""

_logger = logging.getLogger(__name__)


class Handlers(NamedTuple):
    """The handlers of one service of the .proto files, by the names of its methods.

    raw: unary methods that take and return serialized messages.  streams: their messages come and
    go serialized too, the request of a method that streams only answers included.
    """

    service: str
    unary: Mapping[str, Unary] = {}
    raw: Mapping[str, Raw] = {}
    streams: Mapping[str, Stream] = {}


def generic_handler(handlers: Handlers, responses: Responses) -> Any:
    """Return what a grpc.aio server takes: those methods of the service that have a handler."""
    made = {}
    for method in methods(handlers.service):
        name = method.name
        if name in handlers.unary:
            made[name] = _unary_handler(method, _parsed(method, handlers.unary[name]), responses)
        elif name in handlers.raw:
            made[name] = _unary_handler(method, handlers.raw[name], responses)
        elif name in handlers.streams:
            made[name] = _stream_handler(method, handlers.streams[name], responses)
    return grpc.method_handlers_generic_handler(handlers.service, made)


def _parsed(method: Method, handler: Unary) -> Raw:
    kind = method.request.DESCRIPTOR.full_name

    async def handle(data: bytes, context: Context) -> bytes:
        answer = await handler(parse(kind, data), context)
        return bytes(answer.SerializeToString())

    return handle


def _unary_handler(method: Method, handler: Raw, responses: Responses) -> Any:
    path = method.path[1:]
    ok = (path, "OK")

    async def handle(data: bytes, context: Context) -> bytes:
        try:
            answer = handler(data, context)
            if not isinstance(answer, bytes):
                answer = await answer
        except BaseException as error:
            del data  # not to be kept for as long as the error is
            await _refuse(error, context, path, responses)
        responses[ok] += 1
        return answer

    return grpc.unary_unary_rpc_method_handler(handle)


def _stream_handler(method: Method, handler: Stream, responses: Responses) -> Any:
    path = method.path[1:]

    async def handle(requests: Any, context: Context) -> None:
        try:
            await handler(requests, context)
        except BaseException as error:
            await _refuse(error, context, path, responses)
        responses[path, "OK"] += 1

    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(handle)
    return grpc.unary_stream_rpc_method_handler(handle)


async def _refuse(
    error: BaseException, context: Context, path: str, responses: Responses
) -> NoReturn:
    """Answer with what `error` means to a client; it is the one place that says so.

    What `abort` raises and grpc's context refer to each other, so that both live until the garbage
    collector comes by: the frames of the error, with the request in them, must not hang on them.
    """
    if isinstance(error, PyserveError):
        error.__traceback__ = error.__context__ = None
        responses[path, error.grpc_code] += 1
        await context.abort(grpc.StatusCode[error.grpc_code], error.message, _trailers(error))
    elif isinstance(error, asyncio.CancelledError):
        responses[path, "CANCELLED"] += 1
    elif isinstance(error, Exception):
        responses[path, "INTERNAL"] += 1
        _logger.error("%s failed", path, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, INTERNAL)
    raise error


def _trailers(error: PyserveError) -> tuple[tuple[str, str], ...]:
    if isinstance(error, QueueFull | Unavailable) and error.retry_after_s is not None:
        return (("retry-after", str(math.ceil(error.retry_after_s))),)
    return ()
