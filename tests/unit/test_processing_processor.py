"""Processing on threads: bounded, off the event loop; BYTES that lie about themselves refused."""

import asyncio
import sys
import threading
import time
from typing import NamedTuple

import pytest
from processing_model import array_of, encoded, files, picture, processor, takes

from pyserve._native import core
from pyserve.errors import ConfigError, DeadlineExceeded, InvalidInput, QueueFull
from pyserve.messages import InputTensor, OutputTensor
from pyserve.processing.processor import Processor
from pyserve.signature import TensorSpec

MODEL = takes("x", "FP32", 2)
JSON = "preprocess: [{kind: json}]"


class Held(NamedTuple):
    """A stage that waits until it is let go, and notes who ran it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    threads: list[str]
    gate: threading.Event
    kinds: tuple[str, ...] = ("held",)

    def passes(self, what: object) -> bool:
        return False

    def model_outputs(self, names: list[str] | None) -> list[str] | None:
        return names

    def prepare(self, inputs: object) -> list[InputTensor]:
        self.gate.wait(20)
        self.threads.append(threading.current_thread().name)
        return []

    def finish(self, outputs: object, names: object) -> list[OutputTensor]:
        self.threads.append(threading.current_thread().name)
        return []


@pytest.fixture
def held() -> Held:
    return Held(MODEL.inputs, MODEL.outputs, [], threading.Event())


async def test_work_is_done_on_threads_of_its_own(held: Held) -> None:
    held.gate.set()
    made = Processor(MODEL, held, held, capacity=4)
    await made.prepare([])
    await made.finish([], None)
    assert all(name.startswith("pyserve-process") for name in held.threads)
    assert len(held.threads) == 2


async def test_what_has_no_room_is_refused_at_once(held: Held) -> None:
    made = Processor(MODEL, held, None, capacity=3)
    waiting = [asyncio.ensure_future(made.prepare([])) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="3 requests are being processed or wait for it"):
        await made.prepare([])
    held.gate.set()
    await asyncio.gather(*waiting)
    await made.prepare([])
    assert len(held.threads) == 4


async def test_what_nobody_waits_for_any_more_is_not_begun(held: Held) -> None:
    made = Processor(MODEL, held, None, capacity=100)
    waiting = [asyncio.ensure_future(made.prepare([])) for _ in range(100)]
    await asyncio.sleep(0)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    held.gate.set()
    await made.prepare([])
    # Those that threads had already taken cannot be stopped.
    assert len(held.threads) < 100


async def test_what_waits_for_a_thread_at_its_deadline_is_never_begun(held: Held) -> None:
    made = Processor(MODEL, held, held, capacity=1000)
    busy = [asyncio.ensure_future(made.prepare([])) for _ in range(core().available_cpus())]
    await asyncio.sleep(0)
    deadline_ns = time.monotonic_ns() + 20_000_000
    late = await asyncio.gather(
        *(made.prepare([], deadline_ns) for _ in range(20)),
        made.finish([], None, deadline_ns),
        return_exceptions=True,
    )
    assert time.monotonic_ns() >= deadline_ns
    assert all(isinstance(one, DeadlineExceeded) for one in late)
    assert not held.gate.is_set() and held.threads == []
    held.gate.set()
    await asyncio.gather(*busy)
    await made.prepare([])
    assert len(held.threads) == len(busy) + 1


async def test_a_deadline_that_has_passed_begins_nothing(held: Held) -> None:
    held.gate.set()
    made = Processor(MODEL, held, None, capacity=1)
    with pytest.raises(DeadlineExceeded, match="before the request was answered"):
        await made.prepare([], 1)
    assert held.threads == []


async def test_a_deadline_ends_the_wait_for_what_has_begun(held: Held) -> None:
    made = Processor(MODEL, held, None, capacity=1)
    with pytest.raises(DeadlineExceeded):
        await made.prepare([], time.monotonic_ns() + 20_000_000)
    held.gate.set()
    await made.prepare([], time.monotonic_ns() + 20_000_000_000)


async def test_a_stages_own_timeout_is_no_deadline() -> None:
    class Slow(Held):
        def prepare(self, inputs: object) -> list[InputTensor]:
            raise TimeoutError("no answer from elsewhere")

    made = Processor(MODEL, Slow(MODEL.inputs, (), [], threading.Event()), None, capacity=1)
    with pytest.raises(TimeoutError, match="elsewhere"):
        await made.prepare([], time.monotonic_ns() + 20_000_000_000)


async def test_one_string_may_stand_for_one_row_in_any_usual_shape() -> None:
    made = processor(MODEL, JSON)
    for shape in ((1,), (1, 1)):
        (found,) = await made.prepare([files("x", b"[1,2]")._replace(shape=shape)])
        assert array_of(found).tolist() == [[1, 2]]
    alone = processor(takes("x", "FP32", 2, batched=False), JSON)
    assert alone.inputs == (TensorSpec("x", "BYTES", (1,)),)
    for scalar in ((), (1,), (1, 1)):
        (found,) = await alone.prepare([files("x", b"[1,2]")._replace(shape=scalar)])
        assert array_of(found).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("shape", "data", "message"),
    [
        ((1, 2), files("x", b"a", b"b").data, "expected one element for each row: [rows, 1]"),
        ((), files("x", b"a").data, "has shape [], expected one element for each row"),
        ((9,), b"", 'input "x" has 9 rows, the model takes at most 8'),
        ((-1,), b"", 'input "x" has -1 rows'),
        ((2**62,), b"", "has 4611686018427387904 rows, the model takes at most 8"),
        ((1,), b"", "element 0 goes beyond the 0 bytes that came"),
        ((1,), b"\xff\xff\xff\xffabc", "element 0 goes beyond the 7 bytes that came"),
        ((2,), files("x", b"[1,2]").data, "element 1 goes beyond the 9 bytes that came"),
        ((1,), files("x", b"[1,2]", b"").data, "has 4 bytes more than its 1 elements"),
        ((1,), b"\x00\x00", "element 0 goes beyond the 2 bytes that came"),
    ],
)
async def test_bytes_that_lie_about_themselves_are_refused(
    shape: tuple[int, ...], data: bytes, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await processor(MODEL, JSON).prepare([InputTensor("x", "BYTES", shape, data)])
    assert message in str(caught.value)


async def test_names_are_told_apart() -> None:
    made = processor(MODEL, "preprocess: [{kind: json, input: text, tensor: x}]")
    tensor = InputTensor("x", "FP32", (1, 2), bytes(8))
    with pytest.raises(InvalidInput, match='there is no input "tex", did you mean "text"'):
        await made.prepare([files("tex", b"[1,2]")])
    with pytest.raises(InvalidInput, match='input "x" was sent in two ways'):
        await made.prepare([files("text", b"[1,2]"), tensor])
    assert await made.prepare([tensor]) == [tensor]


def test_two_steps_cannot_make_one_input() -> None:
    with pytest.raises(ConfigError, match='two steps make input "x"'):
        processor(MODEL, "preprocess: [{kind: json}, {kind: numpy}]")


async def test_a_request_cannot_become_more_than_memory_allows() -> None:
    model = takes("x", "FP32", 3, 4096, 4096)
    made = processor(model, "preprocess: [{kind: image}]")
    with pytest.raises(InvalidInput, match="at most 268435456 are made of one request"):
        await made.prepare([files("x", *[encoded(picture(2, 2))] * 3)])


def test_a_missing_library_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, library, extra in (
        ("image", "PIL.Image", "image"),
        ("audio", "soundfile", "audio"),
        ("text", "tokenizers", "text"),
        ("table", "pyarrow.ipc", "table"),
    ):
        monkeypatch.setitem(sys.modules, library, None)
        model = takes("x", "INT64", 3) if kind == "text" else takes("x", "FP32", 3)
        with pytest.raises(ConfigError) as caught:
            processor(model, f"preprocess: [{{kind: {kind}}}]")
        assert f"needs {library}: pip install 'pyserve[{extra}]'" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("image", (3, -1, -1)), ("audio, sample_rate: 8000", (-1,)), ("numpy", (-1, 2))],
)
async def test_a_request_without_rows_has_none_of_any_size(
    kind: str, shape: tuple[int, ...]
) -> None:
    made = processor(takes("x", "FP32", *shape), f"preprocess: [{{kind: {kind}, input: x}}]")
    (tensor,) = await made.prepare([files("x")])
    assert tensor.shape == (0, *(max(size, 0) for size in shape))
    assert len(tensor.data) == 0
