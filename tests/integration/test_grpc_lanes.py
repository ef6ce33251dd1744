"""A client cannot tell by which of gRPC's lanes its request went: the same bytes, the same answers.

The same calls go to handlers with and without the express lane, in this process and on the same
models; then messages, statuses and trailers are compared, but for durations.  Among them are seeded
mutations of good requests; a difference is told with its seed.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from grpc_calls import SERVICE, infer_request
from lane_requests import strings
from server_process import floats

from pyserve.config import ServerConfig
from pyserve.engine import open_model
from pyserve.grpc.calls import Handlers, generic_handler
from pyserve.grpc.drain import Drain
from pyserve.grpc.express import ExpressLane
from pyserve.grpc.oip import OipApi
from pyserve.grpc.stream import StreamApi
from pyserve.protos import message
from pyserve.registry import Registry
from pyserve.repository import Repository
from pyserve.service import Service

CASES = 8000
MODELS = ("affine", "pair", "lengths", "shout", "scalar", "fussy", "typed", "patient")
UNARY = f"/{SERVICE}/ModelInfer"
STREAM = f"/{SERVICE}/ModelStreamInfer"

_DURATION = re.compile(rb"dur=\d+\.\d{3}")


class Aborted(Exception):
    """What `abort` raises, as grpc's own does."""


class Context:
    """A call, as far as the handlers look at it."""

    def __init__(self, left_s: float | None, requests: list[bytes]) -> None:
        self.left_s = left_s
        self.requests = list(requests)
        self.said: list[object] = []

    def time_remaining(self) -> float | None:
        return self.left_s

    def set_trailing_metadata(self, trailers: tuple[tuple[str, bytes], ...]) -> None:
        self.said += [(name, _DURATION.sub(b"*", value)) for name, value in trailers]

    async def abort(self, code: grpc.StatusCode, details: str, trailers: Any = ()) -> None:
        self.said.append((code, details, tuple(trailers)))
        raise Aborted

    async def read(self) -> Any:
        return self.requests.pop(0) if self.requests else grpc.aio.EOF

    async def write(self, answer: bytes) -> None:
        self.said.append(answer)


class Watched(ExpressLane):
    """Counts what becomes of requests in the express lane."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.seen: Counter[str] = Counter()

    def begin(self, data: bytes, deadline_ns: int) -> Any:
        try:
            answer = super().begin(data, deadline_ns)
        except Exception:
            self.seen["refused"] += 1
            raise
        kind = "at once" if isinstance(answer, tuple) else "left" if answer is None else "queued"
        self.seen[kind] += 1
        return answer


class Lane:
    """The handlers of inference, with the express lane or without."""

    def __init__(self, service: Service, express: ExpressLane | None) -> None:
        raw = OipApi(service, version="0", lane=express).raw
        streams = {"ModelStreamInfer": StreamApi(service, Drain(), express).infer}
        self.responses: Counter[tuple[str, str]] = Counter()
        self.handlers = generic_handler(Handlers(SERVICE, raw=raw, streams=streams), self.responses)

    def handler(self, path: str) -> Any:
        class Details:
            method = path
            invocation_metadata = ()

        return self.handlers.service(Details())

    async def infer(self, data: bytes, left_s: float | None = None) -> list[object]:
        """All that a unary call is told."""
        context = Context(left_s, [])
        try:
            answer = await self.handler(UNARY).unary_unary(data, context)
        except Aborted:
            return context.said
        return [answer, *context.said]

    async def stream(self, *requests: bytes) -> list[object]:
        """All that a stream is told."""
        context = Context(None, list(requests))
        await self.handler(STREAM).stream_stream(None, context)
        return context.said


class Both(NamedTuple):
    service: Service
    lane: Watched
    express: Lane
    plain: Lane

    async def agreed(self, data: bytes, left_s: float | None = None) -> list[object]:
        """What a call is told by either lane."""
        ours = await self.express.infer(data, left_s)
        expected = await self.plain.infer(data, left_s)
        assert ours == expected
        return ours


@pytest.fixture(scope="module")
def service(model_repository: Path) -> Iterator[Service]:
    registry = Registry(Repository((str(model_repository),)), open_model=open_model)
    failed = registry.load_all(MODELS).result()
    assert not any(failed.values()), failed
    yield Service(registry)
    assert not any(live.leases for routes in registry._routes.values() for live in routes.values())
    registry.close(10)


@pytest.fixture
def both(service: Service) -> Both:
    lane = Watched(service)
    return Both(service, lane, Lane(service, lane), Lane(service, None))


# --- requests -----------------------------------------------------------------------------------


def request(model: str, *tensors: tuple[str, str, list[int], bytes], **fields: str) -> Any:
    built = message("inference.ModelInferRequest")(model_name=model, **fields)
    for name, datatype, shape, data in tensors:
        built.inputs.add(name=name, datatype=datatype, shape=shape)
        built.raw_input_contents.append(data)
    return built


def with_outputs(built: Any, *names: str) -> Any:
    for name in names:
        built.outputs.add(name=name)
    return built


def serialized(*requests: Any) -> bytes:
    """The messages one after the other, which for protobuf is one, merged."""
    return b"".join(one.SerializeToString() for one in requests)


PAIR = request("pair", ("a", "INT64", [1, 3], bytes(24)), ("b", "INT64", [1, 3], bytes(range(24))))


def asking(base: Any = None, /, **parameters: Any) -> Any:
    """A request with parameters; the number of each is of the kind that its caller names."""
    built = message("inference.ModelInferRequest")()
    built.CopyFrom(infer_request("affine", 1, 2, 3, 4, id="7") if base is None else base)
    for name, (kind, value) in parameters.items():
        built.parameters[name].SetInParent()
        if kind:
            setattr(built.parameters[name], kind, value)
    return built


INTEGER = "int64_param"
COUNT = "uint64_param"
SHOUT = request("shout", ("text", "BYTES", [2], strings("größe".encode(), b"")))

PLAIN = {
    "one row": infer_request("affine", 1, 2, 3, 4),
    "with id": infer_request("affine", 1, 2, 3, 4, id="größe"),
    "a version": infer_request("affine", 1, 2, 3, 4, model_version="1"),
    "rows": request("affine", ("x", "FP32", [3, 4], floats(*range(12)))),
    "many rows": request("affine", ("x", "FP32", [64, 4], floats(*range(256)))),
    "no batch": request("scalar", ("x", "FP32", [], floats(1.5))),
    "any size": request("lengths", ("ids", "INT64", [1, 5], bytes(40))),
    "two inputs": PAIR,
    "an output": with_outputs(infer_request("affine", 1, 2, 3, 4), "y"),
    "outputs in another order": with_outputs(
        message("inference.ModelInferRequest").FromString(serialized(PAIR)), "large", "sum"
    ),
    "Triton's names": with_outputs(
        request("affine", ("INPUT__0", "FP32", [1, 4], floats(1, 2, 3, 4))), "OUTPUT__0"
    ),
    "strings": SHOUT,
    "NaN": infer_request("affine", float("nan"), 1, 2, 3),
    "timeout": asking(timeout=(INTEGER, 60_000_000)),
    "timeout of ages": asking(timeout=(COUNT, 2**62 - 1)),
    "no timeout": asking(timeout=(INTEGER, 0)),
    "high priority": asking(priority=(COUNT, 1)),
    "low priority": asking(priority=(INTEGER, 3)),
    "the model's priority": asking(priority=(COUNT, 0)),
    "timeout and priority": asking(priority=(COUNT, 2), timeout=(INTEGER, 60_000_000)),
}

ODD = {
    "empty": b"",
    "no message": b"\xff\xff",
    "half a message": serialized(PLAIN["one row"])[:-3],
    "unknown model": serialized(infer_request("nope", 1, 2, 3, 4)),
    "unknown version": serialized(infer_request("affine", 1, 2, 3, 4, model_version="7")),
    "no model": serialized(infer_request("", 1, 2, 3, 4)),
    "wrong name": serialized(request("affine", ("z", "FP32", [1, 4], bytes(16)))),
    "wrong dtype": serialized(request("affine", ("x", "FP64", [1, 4], bytes(32)))),
    "unknown dtype": serialized(request("affine", ("x", "FP4", [1, 4], bytes(16)))),
    "wrong shape": serialized(request("affine", ("x", "FP32", [1, 3], bytes(12)))),
    "wrong size": serialized(request("affine", ("x", "FP32", [1, 4], bytes(15)))),
    "a negative size": serialized(request("affine", ("x", "FP32", [-1, 4], bytes(16)))),
    "an immense size": serialized(request("affine", ("x", "FP32", [2**62, 2**62], bytes(16)))),
    "too many rows": serialized(request("affine", ("x", "FP32", [65, 4], bytes(1040)))),
    "no rows": serialized(request("affine", ("x", "FP32", [0, 4], b""))),
    "an input missing": serialized(request("pair", ("a", "INT64", [1, 3], bytes(24)))),
    "an input twice": serialized(*[PLAIN["one row"]] * 2),
    "unknown output": serialized(with_outputs(infer_request("affine", 1, 2, 3, 4), "z")),
    "an output twice": serialized(with_outputs(infer_request("affine", 1, 2, 3, 4), "y", "y")),
    "contents missing": serialized(
        PLAIN["one row"], message("inference.ModelInferRequest")(raw_input_contents=[b"x"])
    ),
    "merged": serialized(
        message("inference.ModelInferRequest")(model_name="nope", id="a"), PLAIN["with id"]
    ),
    "an unknown field": serialized(PLAIN["one row"]) + b"\x7a\x01x",
    "a group": serialized(PLAIN["one row"]) + b"\x7b\x7c",
    "strings that lie": serialized(request("shout", ("text", "BYTES", [1], b"\x09\0\0\0a"))),
    "a row that fails": serialized(infer_request("fussy", -1, 2, 3, 4, id="request-7")),
    "a row that fails, no id": serialized(infer_request("fussy", -1, 2, 3, 4)),
    **{
        f"{key} of {kind} {value}": serialized(asking(**{key: (kind, value)}))
        for key in ("timeout", "priority")
        for kind, value in (
            (INTEGER, -1),
            (INTEGER, -(2**63)),
            ("double_param", 1.0),
            ("double_param", 1e300),
            ("double_param", float("nan")),
            ("string_param", "1"),
            ("bool_param", True),
            ("", None),
        )
    },
    **{
        f"priority of {value}": serialized(asking(priority=(COUNT, value)))
        for value in (4, 255, 256, 257, 2**32 + 1, 2**63, 2**64 - 1)
    },
    "timeout beyond 62 bits": serialized(asking(timeout=(COUNT, 2**62))),
    "timeout beyond all time": serialized(asking(timeout=(COUNT, 2**64 - 1))),
    "timeout twice": serialized(
        asking(timeout=(INTEGER, 5)),
        message("inference.ModelInferRequest")(
            parameters=asking(timeout=(INTEGER, 60_000_000)).parameters
        ),
    ),
}


def with_parameters() -> Iterator[bytes]:
    """Requests that ask for more than a run, or that bring their tensors in another form."""
    plain = PLAIN["with id"]
    yield serialized(asking(plain, x=(INTEGER, 1)))
    yield serialized(asking(plain, timeout=(INTEGER, 60_000_000), x=(INTEGER, 1)))
    final = message("inference.ModelInferRequest").FromString(serialized(plain))
    final.parameters["triton_enable_empty_final_response"].bool_param = True
    yield serialized(final)
    typed = message("inference.ModelInferRequest")(model_name="affine")
    typed.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([1] * 4)
    yield serialized(typed)
    yield serialized(typed, PLAIN["one row"])
    classes = with_outputs(
        message("inference.ModelInferRequest").FromString(serialized(plain)), "y"
    )
    classes.outputs[0].parameters["classification"].int64_param = 1
    yield serialized(classes)
    shared = message("inference.ModelInferRequest").FromString(serialized(plain))
    shared.inputs[0].parameters["shared_memory_region"].string_param = "region"
    yield serialized(shared)


@pytest.mark.parametrize("one", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("left_s", [None, 60.0])
async def test_a_plain_request_takes_the_express_lane(
    both: Both, one: Any, left_s: float | None
) -> None:
    answer, trailer = await both.agreed(serialized(one), left_s)
    assert isinstance(answer, bytes) and answer
    assert isinstance(trailer, tuple) and trailer[0] == "server-timing"
    assert both.lane.seen["at once"] + both.lane.seen["queued"] == 1
    assert both.express.responses == both.plain.responses == {(UNARY[1:], "OK"): 1}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
async def test_an_odd_request_gets_the_same_answer(both: Both, data: bytes) -> None:
    await both.agreed(data)
    assert both.express.responses == both.plain.responses


@pytest.mark.parametrize("data", list(with_parameters()))
async def test_what_asks_for_more_takes_the_plain_lane(both: Both, data: bytes) -> None:
    await both.agreed(data)
    assert both.lane.seen == {"left": 1}


async def test_a_deadline_that_passes_ends_the_request(both: Both) -> None:
    """`patient` answers nobody before four rows have come."""
    data = serialized(infer_request("patient", 1, 2, 3, 4))
    ((code, *_),) = await both.agreed(data, 0.05)  # type: ignore[misc]
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert both.lane.seen == {"queued": 1}
    await both.agreed(data, 0.0)
    assert both.service.stats("patient")[0].stats.queued == 0


@pytest.mark.parametrize(
    ("timeout_us", "left_s"), [(20_000, 60.0), (60_000_000, 0.02), (20_000, None)]
)
async def test_the_nearer_of_timeout_and_deadline_ends_the_request(
    both: Both, timeout_us: int, left_s: float | None
) -> None:
    waits = infer_request("patient", 1, 2, 3, 4)
    data = serialized(asking(waits, timeout=(INTEGER, timeout_us)))
    ((code, *_),) = await asyncio.wait_for(both.agreed(data, left_s), 30)  # type: ignore[misc]
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert both.lane.seen == {"queued": 1}
    assert both.service.stats("patient")[0].stats.queued == 0


async def test_a_request_of_a_model_with_a_timeout_of_its_own_takes_the_express_lane(
    model_repository: Path,
) -> None:
    config = ServerConfig(settings=("patient:queue.timeout_ms=20",))
    registry = Registry(
        Repository((str(model_repository),), configure=config.configure), open_model=open_model
    )
    assert not any(registry.load_all(["patient"]).result().values())
    service = Service(registry)
    lane = Watched(service)
    both = Both(service, lane, Lane(service, lane), Lane(service, None))
    data = serialized(infer_request("patient", 1, 2, 3, 4))
    ((code, *_),) = await asyncio.wait_for(both.agreed(data), 30)  # type: ignore[misc]
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert lane.seen == {"queued": 1}
    registry.close(10)


@pytest.mark.parametrize("left_s", [-1.0, -1e300, 1e10, 1e300])
async def test_a_deadline_of_any_size_is_one(both: Both, left_s: float) -> None:
    first = (await both.agreed(serialized(PLAIN["one row"]), left_s))[0]
    assert isinstance(first, bytes) == (left_s > 0)


async def test_a_call_that_is_cancelled_takes_its_request_out_of_the_queue(both: Both) -> None:
    call = asyncio.ensure_future(
        both.express.infer(serialized(infer_request("patient", 1, 2, 3, 4)))
    )
    while not both.lane.seen:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert both.service.stats("patient")[0].stats.queued == 0
    assert both.lane.seen == {"queued": 1}
    assert both.express.responses == {(UNARY[1:], "CANCELLED"): 1}


async def test_requests_that_wait_together_are_run_together(both: Both) -> None:
    before = both.service.stats("patient")[0].stats.execution_count
    rows = [infer_request("patient", 1, 2, 3, n, id=str(n)) for n in range(2)]
    rows.append(request("patient", ("x", "FP32", [2, 4], floats(*range(8))), id="2"))
    answers = await asyncio.gather(*(both.express.infer(serialized(one)) for one in rows))
    assert both.lane.seen == {"queued": 3}
    assert both.service.stats("patient")[0].stats.execution_count == before + 1
    parse = message("inference.ModelInferResponse").FromString
    assert [parse(answer).id for answer, _ in answers] == ["0", "1", "2"]


async def test_a_crowd_gets_the_same_answers(both: Both) -> None:
    requests = [*(serialized(one) for one in PLAIN.values()), *ODD.values()] * 10
    ours = await asyncio.gather(*map(both.express.infer, requests))
    expected = [await both.plain.infer(one) for one in requests]
    # How many rows it ran with, the trailer says, differs.
    assert [told[0] for told in ours] == [told[0] for told in expected]
    assert both.lane.seen["queued"] > 100


async def test_who_leaves_a_crowd_is_not_run(both: Both) -> None:
    data = serialized(PLAIN["one row"])
    calls = [asyncio.ensure_future(both.express.infer(data)) for _ in range(100)]
    while not both.lane.seen["queued"]:
        await asyncio.sleep(0)
    before = both.service.stats("affine")[0].stats.success_count
    waiting = [one for one in calls if not one.done()]
    for one in waiting[::2]:
        one.cancel()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in told[::2])
    assert all(isinstance(one, list) for one in told[1::2])
    ran = both.service.stats("affine")[0].stats.success_count - before
    assert ran == len(waiting) // 2


async def test_a_server_that_drains_takes_nothing_new(service: Service, both: Both) -> None:
    service.draining = True
    try:
        ((code, *_),) = await both.agreed(serialized(PLAIN["one row"]))  # type: ignore[misc]
    finally:
        service.draining = False
    assert code == grpc.StatusCode.UNAVAILABLE


async def test_streams_are_told_the_same(both: Both) -> None:
    requests = [*(serialized(one) for one in PLAIN.values()), *ODD.values(), *with_parameters()]
    assert await both.express.stream(*requests) == await both.plain.stream(*requests)
    assert both.lane.seen["at once"] + both.lane.seen["queued"] >= len(PLAIN)


# --- mutations ----------------------------------------------------------------------------------


SEEDS = [
    *[serialized(one) for name, one in PLAIN.items() if name != "many rows"] * 4,
    *(data for name, data in ODD.items() if name != "too many rows"),
    *with_parameters(),
]
BYTES = bytes([0, 1, 2, 8, 10, 16, 18, 24, 26, 34, 42, 50, 58, 0x7F, 0x80, 0xFF])


def mutated(random_: random.Random) -> bytes:
    """A request with a few faults: bytes changed, put in, left out or repeated; or cut off."""
    data = bytearray(random_.choice(SEEDS) or b"\0")
    for _ in range(random_.choice([0, 1, 1, 1, 2, 3])):
        at = random_.randrange(len(data) or 1)
        match random_.randrange(5):
            case 0:
                data[at : at + 1] = bytes([random_.choice(BYTES)])
            case 1:
                data.insert(at, random_.choice(BYTES))
            case 2:
                del data[at : at + random_.randint(1, 4)]
            case 3:
                data[at:at] = data[at : at + random_.randint(1, 40)]
            case _:
                data += random_.choice(SEEDS)
    return bytes(data[: random_.randrange(len(data) + 1)] if random_.random() < 0.05 else data)


async def test_both_lanes_answer_whatever_comes_alike(both: Both) -> None:
    for seed in range(CASES):
        data = mutated(random.Random(seed))
        if b"patient" in data:
            continue
        ours, expected = await both.express.infer(data), await both.plain.infer(data)
        assert ours == expected, f"seed {seed}: {data!r}"
    assert both.express.responses == both.plain.responses
    # It was a test of the express lane.
    assert both.lane.seen["at once"] + both.lane.seen["queued"] > CASES / 20
    assert both.lane.seen["left"] > CASES / 4
