"""The in-process API on the real core: calls, tasks, batches, failures, ends of a process."""

import asyncio
import ctypes
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import pyserve
from pyserve import errors
from pyserve.messages import InputTensor
from pyserve.plan import plan_instances
from pyserve.scripting import quiet_torchscript


class Fussy(nn.Module):
    """Doubles; raises on a negative number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x < 0).any()):
            raise ValueError("negative numbers make me sad")
        return x * 2


class Mixer(nn.Module):
    """Each row's output depends on its batch mates."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"plain": x + 1, "centred": x - x.mean(0)}


class Sums(NamedTuple):
    total: torch.Tensor
    larger: torch.Tensor


class Pair(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> Sums:
        return Sums(a + b, a > b)


class Slow(nn.Module):
    """Keeps a thread of the core busy for a while."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        # Not a constant: the compiler would unroll the loop.
        for _ in range(8 * x.size(1)):
            y = torch.matmul(y, y).clamp(-1, 1)
        return y


class Echo(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    def make(module: nn.Module, *inputs: torch.Tensor, **options: object) -> Path:
        path = tmp_path / f"{type(module).__name__.lower()}.pt"
        pyserve.export(module, path, inputs=list(inputs), **options)  # type: ignore[arg-type]
        return path

    return make


@pytest.fixture
def fussy(export: Export) -> Iterator[pyserve.Model]:
    with pyserve.load(export(Fussy(), torch.ones(1, 4)), max_batch_size=16) as model:
        yield model


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A file without a signature."""
    path = tmp_path / "bare.pt"
    with quiet_torchscript():
        torch.jit.script(Fussy()).save(path)
    return path


def test_call_returns_what_the_module_returns(fussy: pyserve.Model) -> None:
    x = torch.rand(3, 4)
    assert torch.equal(fussy(x), x * 2)
    assert torch.equal(fussy(x=x), x * 2)


async def test_await_returns_what_the_module_returns(fussy: pyserve.Model) -> None:
    x = torch.rand(3, 4)
    assert torch.equal(await fussy.infer(x), x * 2)


def test_named_tuple_of_outputs_comes_back_as_a_tuple(export: Export) -> None:
    with pyserve.load(export(Pair(), torch.ones(1, 2), torch.zeros(1, 2))) as model:
        assert [spec.name for spec in model.outputs] == ["total", "larger"]
        total, larger = model(b=torch.zeros(1, 2), a=torch.ones(1, 2))
        assert torch.equal(total, torch.ones(1, 2))
        assert larger.dtype == torch.bool
        assert larger.all()


def test_dict_of_outputs_comes_back_as_a_dict(export: Export) -> None:
    with pyserve.load(export(Mixer(), torch.rand(2, 3))) as model:
        out = model(torch.tensor([[1.0, 2.0, 3.0]]))
        assert list(out) == ["plain", "centred"]
        assert torch.equal(out["plain"], torch.tensor([[2.0, 3.0, 4.0]]))


def test_model_that_mixes_rows_is_not_batched_and_says_which_output(export: Export) -> None:
    with pyserve.load(export(Mixer(), torch.rand(2, 3))) as model:
        assert not model.combines
        assert '"centred" mixes rows' in model.batching_note


def test_insisting_on_batching_a_model_that_mixes_rows_is_an_error(export: Export) -> None:
    path = export(Mixer(), torch.rand(2, 3))
    with pytest.raises(errors.ConfigError, match='"centred" mixes rows'):
        pyserve.load(path, max_batch_size=8)


async def test_requests_that_arrive_together_run_in_one_batch(export: Export) -> None:
    path = export(Fussy(), torch.ones(1, 4))
    with pyserve.load(path, max_batch_size=8, max_queue_delay_us=60_000_000) as model:
        xs = [torch.rand(1, 4) for _ in range(8)]
        ys = await asyncio.gather(*(model.infer(x) for x in xs))
        assert all(torch.equal(y, x * 2) for x, y in zip(xs, ys, strict=True))
        stats = model.stats()
        assert (stats.success_count, stats.inference_count, stats.execution_count) == (8, 8, 1)


def test_calls_of_many_threads_get_their_own_rows(fussy: pyserve.Model) -> None:
    def ask(number: int) -> bool:
        x = torch.full((1, 4), float(number))
        return torch.equal(fussy(x), x * 2)

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(2000)))
    stats = fussy.stats()
    assert stats.inference_count == 2000
    assert stats.in_flight == stats.queued == 0


async def test_one_bad_request_leaves_its_batchmates_untouched(export: Export) -> None:
    path = export(Fussy(), torch.ones(1, 4))
    with pyserve.load(path, max_batch_size=4, max_queue_delay_us=60_000_000) as model:
        xs = [torch.full((1, 4), float(i)) for i in (1, 2, -3, 4)]
        results = await asyncio.gather(*(model.infer(x) for x in xs), return_exceptions=True)
        failed = results.pop(2)
        assert isinstance(failed, errors.ModelFailed)
        assert "negative numbers make me sad" in str(failed)
        assert "/" not in str(failed)
        del xs[2]
        assert all(torch.equal(y, x * 2) for x, y in zip(xs, results, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (torch.ones(1, 5),), r'"x" has shape \[1, 5\], expected \[-1, 4\]'),
        (lambda: (torch.ones(1, 4, dtype=torch.int64),), "has dtype INT64, expected FP32"),
        (lambda: (torch.ones(4),), r"has shape \[4\], expected \[-1, 4\]"),
        (lambda: (torch.ones(17, 4),), "17 rows, expected at most max_batch_size 16"),
        (lambda: (torch.ones(0, 4),), "0 rows"),
        (lambda: (), '"x" is missing'),
        (lambda: (torch.ones(1, 4), torch.ones(1, 4)), "takes 1 inputs, got 2"),
    ],
)
def test_bad_input_is_refused_with_what_came_and_what_was_expected(
    fussy: pyserve.Model, make: Callable[[], tuple[torch.Tensor, ...]], message: str
) -> None:
    with pytest.raises(errors.InvalidInput, match=message):
        fussy(*make())
    assert torch.equal(fussy(torch.ones(1, 4)), torch.full((1, 4), 2.0))


def test_unknown_input_name_is_refused(fussy: pyserve.Model) -> None:
    with pytest.raises(errors.InvalidInput, match='"z" is unknown'):
        fussy(z=torch.ones(1, 4))


async def test_cancelled_task_cancels_its_queued_request(export: Export) -> None:
    path = export(Fussy(), torch.ones(1, 4))
    with pyserve.load(path, max_batch_size=2, max_queue_delay_us=60_000_000) as model:
        waiting = asyncio.ensure_future(model.infer(torch.ones(1, 4)))
        while model.stats().queued == 0:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert model.stats().queued == 0
        # Two more fill a batch: the cancelled row is not in it.
        await asyncio.gather(model.infer(torch.ones(1, 4)), model.infer(torch.ones(1, 4)))
        assert model.stats().inference_count == 2
        assert model.stats().failure_counts["cancelled"] == 1


async def test_deadline_ends_a_request_that_waits(export: Export) -> None:
    path = export(Fussy(), torch.ones(1, 4))
    with pyserve.load(path, max_batch_size=2, max_queue_delay_us=60_000_000) as model:
        with pytest.raises(errors.DeadlineExceeded):
            await model.infer(torch.ones(1, 4), timeout=0.01)
        with pytest.raises(errors.DeadlineExceeded):
            model(torch.ones(1, 4), timeout=0.01)
        await asyncio.gather(model.infer(torch.ones(1, 4)), model.infer(torch.ones(1, 4)))
        assert model.stats().inference_count == 2


async def test_full_queue_refuses(export: Export) -> None:
    path = export(Fussy(), torch.ones(1, 4))
    with pyserve.load(
        path, max_batch_size=8, max_queue_delay_us=60_000_000, queue_capacity=2, instances=1
    ) as model:
        waiting = [asyncio.ensure_future(model.infer(torch.ones(1, 4))) for _ in range(2)]
        while model.stats().queued < 2:
            await asyncio.sleep(0)
        with pytest.raises(errors.QueueFull, match="2 requests wait"):
            await model.infer(torch.ones(1, 4))
        model.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, errors.Unavailable) for result in results)


def test_call_after_close_is_an_error(fussy: pyserve.Model) -> None:
    fussy.close()
    fussy.close()
    with pytest.raises(errors.Unavailable):
        fussy(torch.ones(1, 4))


async def test_drain_lets_what_is_in_flight_finish(export: Export) -> None:
    path = export(Fussy(), torch.ones(1, 4))
    with pyserve.load(path, max_batch_size=8, max_queue_delay_us=60_000_000) as model:
        waiting = asyncio.ensure_future(model.infer(torch.ones(1, 4)))
        while model.stats().queued == 0:
            await asyncio.sleep(0)
        assert await asyncio.to_thread(model.drain, 60.0)
        assert torch.equal(await waiting, torch.full((1, 4), 2.0))
        assert model.state == "DRAINING"


async def test_core_works_on_while_python_holds_the_gil(export: Export) -> None:
    """A worker thread never waits for the GIL: requests submitted before the GIL is held for a
    second complete in the core within that second."""
    path = export(Fussy(), torch.ones(1, 4))
    usleep = ctypes.PyDLL(None).usleep  # PyDLL: keeps the GIL
    usleep.argtypes = [ctypes.c_uint]
    with pyserve.load(path, max_batch_size=1) as model:
        waiting = [asyncio.ensure_future(model.infer(torch.ones(1, 4))) for _ in range(200)]
        await asyncio.sleep(0)  # every task has submitted
        held_from_ms = time.time() * 1000
        usleep(1_000_000)
        held_until_ms = time.time() * 1000
        stats = model.stats()  # nothing ran in Python in between
        assert stats.success_count == 200
        assert stats.last_inference_ms < held_until_ms - 500
        assert stats.last_inference_ms >= held_from_ms - 1000
        await asyncio.gather(*waiting)


async def test_output_that_is_the_input_outlives_the_senders_buffer(export: Export) -> None:
    """A wire request's input points into the sender's bytes; an output must not."""
    with pyserve.load(export(Echo(), torch.ones(1, 40_000))) as model:
        body = bytearray(torch.arange(40_000, dtype=torch.float32).numpy().tobytes())
        tensor = InputTensor("x", "FP32", (1, 40_000), memoryview(bytes(body)))
        completed = await model.infer_tensors([tensor])
        del tensor
        assert bytes(completed.outputs[0].data) == bytes(body)


async def test_buffer_is_released_when_a_request_is_refused(fussy: pyserve.Model) -> None:
    body = bytearray(16)
    with pytest.raises(errors.InvalidInput):
        await fussy.infer_tensors([InputTensor("x", "FP32", (1, 5), body)])
    body.clear()  # BufferError if the core still held it


async def test_wanted_outputs_alone_come_back(export: Export) -> None:
    with pyserve.load(export(Pair(), torch.ones(1, 2), torch.zeros(1, 2))) as model:
        inputs = [InputTensor(name, "FP32", (1, 2), bytes(8)) for name in "ab"]
        completed = await model.infer_tensors(inputs, outputs=["larger"])
        assert [output.name for output in completed.outputs] == ["larger"]
        with pytest.raises(errors.InvalidInput, match='"nope" is unknown'):
            await model.infer_tensors(inputs, outputs=["nope"])


async def test_tritons_names_stand_for_positions_and_come_back(export: Export) -> None:
    with pyserve.load(export(Pair(), torch.ones(1, 2), torch.zeros(1, 2))) as model:
        inputs = [InputTensor(f"INPUT__{i}", "FP32", (1, 2), bytes(8)) for i in (1, 0)]
        completed = await model.infer_tensors(inputs, outputs=["OUTPUT__1", "total"])
        assert [output.name for output in completed.outputs] == ["OUTPUT__1", "total"]
        assert [output.datatype for output in completed.outputs] == ["BOOL", "FP32"]


async def test_outputs_of_a_bare_file_are_found_by_their_default_names(bare: Path) -> None:
    with pyserve.load(bare) as model:
        tensor = InputTensor("x", "FP32", (1,), bytes(4))
        for name in ("output_0", "OUTPUT__0"):
            completed = await model.infer_tensors([tensor], outputs=[name])
            assert [output.name for output in completed.outputs] == [name]
        with pytest.raises(errors.InvalidInput, match='"y" is unknown, expected "output_0"'):
            await model.infer_tensors([tensor], outputs=["y"])


async def test_models_are_used_from_several_event_loops(fussy: pyserve.Model) -> None:
    def in_a_loop_of_its_own(number: int) -> bool:
        async def ask() -> bool:
            x = torch.full((1, 4), float(number))
            return torch.equal(await fussy.infer(x), x * 2)

        return asyncio.run(ask())

    answers = [asyncio.to_thread(in_a_loop_of_its_own, number) for number in range(8)]
    assert all(await asyncio.gather(*answers))


def test_two_threads_may_close_at_once(export: Export) -> None:
    model = pyserve.load(export(Fussy(), torch.ones(1, 4)))
    threads = [threading.Thread(target=model.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.state == "GONE"


def test_unknown_signature_is_served_as_it_is(bare: Path) -> None:
    with pyserve.load(bare) as model:
        assert not model.combines
        assert "no signature is known" in model.batching_note
        assert [spec.name for spec in model.inputs] == ["x"]
        assert torch.equal(model(torch.ones(2, 3, 4)), torch.full((2, 3, 4), 2.0))


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "corrupt"])
def test_file_that_cannot_be_loaded_is_one_clear_line(export: Export, damage: str) -> None:
    path = export(Fussy(), torch.ones(1, 4))
    whole = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "text": b"this is no model",
            "truncated": whole[: len(whole) // 2],
            "corrupt": whole[:200] + bytes(len(whole) - 400) + whole[-200:],
        }[damage]
    )
    with pytest.raises(errors.LoadFailed) as caught:
        pyserve.load(path)
    assert "\n" not in str(caught.value)
    assert str(path.parent) not in str(caught.value)


def run_python(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *args],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_interpreter_exits_cleanly_with_requests_in_flight(export: Export) -> None:
    path = export(Slow(), torch.rand(1, 64, 64))
    ended = run_python(
        """
        import asyncio, sys, threading, torch, pyserve
        model = pyserve.load(sys.argv[1], max_batch_size=1, warmup=False)
        x = torch.rand(1, 64, 64)
        for _ in range(4):
            threading.Thread(target=model, args=(x,), daemon=True).start()
        async def leave():
            for _ in range(4):
                asyncio.ensure_future(model.infer(x))
            while (stats := model.stats()).in_flight + stats.success_count < 8:
                await asyncio.sleep(0)
        asyncio.run(leave())
        print("bye")
        """,
        str(path),
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "bye\n", "")


@pytest.mark.parametrize("parting", ["del model", "pass"])
def test_forked_child_is_told_to_load_for_itself(export: Export, parting: str) -> None:
    path = export(Fussy(), torch.ones(1, 4))
    ended = run_python(
        """
        import os, sys, torch, pyserve
        model = pyserve.load(sys.argv[1])
        child = os.fork()
        if child == 0:
            try:
                model(torch.ones(1, 4))
            except pyserve.errors.Unavailable as error:
                print(error, flush=True)
            exec(sys.argv[2])
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        print(status, float(model(torch.ones(1, 4)).sum()))
        """,
        str(path),
        parting,
    )
    assert ended.returncode == 0, ended.stderr
    first, second = ended.stdout.splitlines()
    assert "forked" in first
    assert second == "0 8.0"


def test_model_that_is_forgotten_ends_its_threads(export: Export) -> None:
    path = export(Fussy(), torch.ones(1, 4))

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def load_and_forget() -> None:
        model = pyserve.load(path)
        model(torch.ones(1, 4))

    load_and_forget()
    before = threads()
    for _ in range(3):
        load_and_forget()
    assert threads() <= before


def test_control_c_ends_a_waiting_call(export: Export) -> None:
    path = export(Fussy(), torch.ones(1, 4))
    ended = run_python(
        """
        import os, signal, sys, threading, torch, pyserve
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
        model = pyserve.load(sys.argv[1], max_batch_size=2, max_queue_delay_us=60_000_000)
        def press():
            while model.stats().queued == 0:
                pass
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=press).start()
        try:
            model(torch.ones(1, 4))
        except KeyboardInterrupt:
            print("interrupted", model.stats().queued)
        """,
        str(path),
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "interrupted 0\n"


def test_a_gpu_gets_two_instances_of_one_thread_unless_asked() -> None:
    assert plan_instances(8, None, None, on_gpu=True) == (2, 1, False)
    assert plan_instances(1, None, None, on_gpu=True) == (2, 1, False)
    assert plan_instances(8, 3, None, on_gpu=True) == (3, 1, False)
    assert plan_instances(8, None, 4, on_gpu=True) == (2, 4, False)


@pytest.mark.parametrize(
    ("cpus", "count", "threads", "planned"),
    [
        (2, None, None, (2, 1, True)),
        (8, None, None, (8, 1, True)),
        (1, None, None, (1, 1, True)),
        (8, 2, None, (2, 4, False)),
        (8, None, 3, (2, 3, False)),
        (2, None, 4, (1, 4, False)),
        (2, 3, None, (3, 1, False)),
        (2, 4, 4, (4, 4, False)),
    ],
)
def test_threads_stay_within_the_cpus_unless_asked(
    cpus: int, count: int | None, threads: int | None, planned: tuple[int, int, bool]
) -> None:
    assert plan_instances(cpus, count, threads) == planned


@pytest.mark.parametrize("priority", [None, 0, 1, 2, 3])
async def test_a_call_may_have_a_priority(export: Export, priority: int | None) -> None:
    with pyserve.load(export(Fussy(), torch.ones(1, 4)), default_priority=3) as model:
        assert model(torch.ones(1, 4), priority=priority).shape == (1, 4)
        assert (await model.infer(torch.ones(1, 4), priority=priority)).shape == (1, 4)


@pytest.mark.parametrize("priority", [4, -1, 1.0, "high", True])
async def test_a_priority_that_is_none_is_refused(export: Export, priority: Any) -> None:
    with pyserve.load(export(Fussy(), torch.ones(1, 4))) as model:
        with pytest.raises(errors.InvalidInput, match=r"expected 1 \(high\), 2"):
            model(torch.ones(1, 4), priority=priority)
        with pytest.raises(errors.InvalidInput, match=r"expected 1 \(high\), 2"):
            await model.infer(torch.ones(1, 4), priority=priority)


class Ranked(torch.nn.Module):
    def forward(self, x: torch.Tensor, priority: torch.Tensor) -> torch.Tensor:
        return x * priority


async def test_an_input_may_be_called_priority(tmp_path: Path) -> None:
    path = tmp_path / "ranked.pt"
    inputs = {"x": torch.ones(1, 2), "priority": torch.ones(1, 2)}
    pyserve.export(Ranked(), path, inputs=inputs, output_names=["y"])
    with pyserve.load(path) as model:
        seven = torch.full((1, 2), 7.0)
        assert model(x=torch.ones(1, 2), priority=seven).tolist() == [[7, 7]]
        assert (await model.infer(torch.ones(1, 2), priority=seven)).tolist() == [[7, 7]]
        assert model(torch.ones(1, 2), seven).tolist() == [[7, 7]]


@pytest.mark.parametrize("timeout", [1e7, 1e10, 1e300, float("inf")])
async def test_a_timeout_of_ages_is_one(export: Export, timeout: float) -> None:
    with pyserve.load(export(Fussy(), torch.ones(1, 4))) as model:
        assert model(torch.ones(1, 4), timeout=timeout).shape == (1, 4)
        assert (await model.infer(torch.ones(1, 4), timeout=timeout)).shape == (1, 4)


@pytest.mark.parametrize("timeout", [0, -1, -1e300, float("-inf")])
async def test_a_timeout_in_the_past_is_over(export: Export, timeout: float) -> None:
    with pyserve.load(export(Fussy(), torch.ones(1, 4))) as model:
        with pytest.raises(errors.DeadlineExceeded):
            model(torch.ones(1, 4), timeout=timeout)
        with pytest.raises(errors.DeadlineExceeded):
            await model.infer(torch.ones(1, 4), timeout=timeout)
        assert model.stats().inference_count == 0


async def test_the_models_own_timeout_is_that_of_requests_without_one(export: Export) -> None:
    path = export(Fussy(), torch.ones(1, 4))
    with pyserve.load(
        path, max_batch_size=2, max_queue_delay_us=60_000_000, timeout_ms=10
    ) as model:
        tensor = InputTensor("x", "FP32", (1, 4), bytes(16))
        with pytest.raises(errors.DeadlineExceeded):
            model(torch.ones(1, 4))
        with pytest.raises(errors.DeadlineExceeded):
            await model.infer(torch.ones(1, 4))
        with pytest.raises(errors.DeadlineExceeded):
            await model.infer_tensors([tensor])
        # What a request says for itself counts instead.
        both = [model.infer(torch.ones(1, 4), timeout=60) for _ in range(2)]
        await asyncio.gather(*both)
        assert model.stats().inference_count == 2
