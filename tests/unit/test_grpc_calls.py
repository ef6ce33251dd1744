"""What a handler raises, as a status; and how the drain reaches who waits for a client."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import grpc
import pytest

from pyserve import errors
from pyserve.errors import INTERNAL, PyserveError, QueueFull, Unavailable
from pyserve.grpc.calls import Handlers, Responses, generic_handler
from pyserve.grpc.drain import Drain
from pyserve.protos import message

SERVICE = "pytorch_model_server.ModelServer"
PATH = f"{SERVICE}/Predict"
Request = message("pytorch_model_server.Request")
Response = message("pytorch_model_server.Response")


class Aborted(Exception):
    """What `abort` raises, as grpc's own does."""


class FakeContext:
    """Takes the status of a call."""

    def __init__(self) -> None:
        self.status: tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]] | None = None

    async def abort(
        self, code: grpc.StatusCode, details: str, trailers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.status = code, details, trailers
        raise Aborted


class CallDetails:
    method = f"/{PATH}"
    invocation_metadata = ()


def behaviour(handler: Any, responses: Responses, *, raw: bool = False) -> Any:
    """What grpc calls for Predict: from bytes and a context to bytes."""
    unary = {"Predict": handler}
    handlers = Handlers(SERVICE, raw=unary) if raw else Handlers(SERVICE, unary=unary)
    return generic_handler(handlers, responses).service(CallDetails()).unary_unary


async def refused(
    error: BaseException, responses: Responses
) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    async def handler(request: Any, context: Any) -> Any:
        raise error

    context = FakeContext()
    with pytest.raises(Aborted):
        await behaviour(handler, responses)(b"", context)
    assert context.status is not None
    return context.status


async def test_messages_are_read_and_written() -> None:
    async def handler(request: Any, context: Any) -> Any:
        return Response(model_name=request.model_name, result=len(request.input_data))

    responses: Responses = Counter()
    sent = Request(model_name="m", input_data=b"abc").SerializeToString()
    answer = await behaviour(handler, responses)(sent, FakeContext())
    assert Response.FromString(answer) == Response(model_name="m", result=3)
    assert responses == {(PATH, "OK"): 1}


async def test_raw_handlers_get_and_give_bytes() -> None:
    async def handler(data: bytes, context: Any) -> bytes:
        return data[::-1]

    assert await behaviour(handler, Counter(), raw=True)(b"abc", FakeContext()) == b"cba"


async def test_bytes_that_are_no_message_are_invalid() -> None:
    async def handler(request: Any, context: Any) -> Any:
        raise AssertionError("nobody should be asked")

    context = FakeContext()
    with pytest.raises(Aborted):
        await behaviour(handler, Counter())(b"\xff\xff", context)
    assert context.status is not None
    assert context.status[0] == grpc.StatusCode.INVALID_ARGUMENT


ALL = [
    one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, PyserveError)
]


@pytest.mark.parametrize("kind", ALL)
async def test_every_error_has_a_status_and_is_counted(kind: type[PyserveError]) -> None:
    responses: Responses = Counter()
    code, details, _ = await refused(kind("what was wrong"), responses)
    assert code == grpc.StatusCode[kind.grpc_code]
    assert details == "what was wrong"
    assert responses == {(PATH, kind.grpc_code): 1}


async def test_a_refusal_says_when_to_come_again() -> None:
    for error in (QueueFull("full", retry_after_s=1.2), Unavailable("later", retry_after_s=2)):
        _, _, trailers = await refused(error, Counter())
        assert trailers == (("retry-after", "2"),)
    _, _, trailers = await refused(Unavailable("gone"), Counter())
    assert trailers == ()


async def test_a_fault_is_logged_and_told_without_a_word_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    responses: Responses = Counter()
    with caplog.at_level(logging.ERROR):
        code, details, _ = await refused(RuntimeError("/secret/path"), responses)
    assert code == grpc.StatusCode.INTERNAL
    assert details == INTERNAL
    assert responses == {(PATH, "INTERNAL"): 1}
    assert "/secret/path" in caplog.text


async def test_a_call_that_is_cancelled_is_counted_and_stays_cancelled() -> None:
    async def handler(request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    responses: Responses = Counter()
    call = asyncio.create_task(behaviour(handler, responses)(b"", FakeContext()))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert responses == {(PATH, "CANCELLED"): 1}


async def test_methods_without_a_handler_are_not_there() -> None:
    assert generic_handler(Handlers(SERVICE), Counter()).service(CallDetails()) is None


async def test_the_drain_cancels_who_waits_for_a_client() -> None:
    drain = Drain()
    reader = asyncio.create_task(asyncio.Event().wait())
    late = asyncio.create_task(asyncio.Event().wait())
    done = asyncio.create_task(asyncio.Event().wait())
    with drain.ends(done):
        pass
    with drain.ends(reader):
        assert not await drain.within(0)
        drain.begin()
        assert await drain.within(60)
        with pytest.raises(asyncio.CancelledError):
            await reader
    with drain.ends(late), pytest.raises(asyncio.CancelledError):
        await late
    assert not done.cancelled()
    done.cancel()
