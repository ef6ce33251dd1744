"""The in-process API and the server on a GPU: the same answers as on the CPU.

One build serves both devices, so what is tested here is only what differs: streams, staging in
pinned memory, copies there and back.
"""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from server_process import start, tensor
from torch import nn

import models
import pyserve
from pyserve import errors

Export = Callable[..., Path]


class Fussy(nn.Module):
    """A linear layer; raises on a negative number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x < 0).any()):
            raise ValueError("negative numbers make me sad")
        return self.layer(x)


class Pair(nn.Module):
    def forward(self, a: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": a + ids, "ids": ids + 1}


@pytest.fixture
def fussy(tmp_path: Path) -> tuple[Path, Fussy]:
    module = Fussy().eval()
    path = tmp_path / "fussy.pt"
    pyserve.export(module, path, inputs=[torch.rand(1, 8)])
    return path, module


@pytest.mark.cuda
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_the_gpu_is_where_a_model_goes(fussy: tuple[Path, Fussy], device: str) -> None:
    with pyserve.load(fussy[0], device=device) as model:
        assert model.device == "cuda:0"


@pytest.mark.cuda
def test_answers_lie_on_the_host_and_agree_with_the_cpu(fussy: tuple[Path, Fussy]) -> None:
    path, module = fussy
    x = torch.rand(5, 8)
    with pyserve.load(path, device="cuda") as model:
        y = model(x)
        from_the_gpu = model(x.cuda())
    assert y.device.type == from_the_gpu.device.type == "cpu"
    expected = module(x).detach()
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(from_the_gpu, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.parametrize("instances", [1, 3])
def test_rows_of_many_threads_come_back_to_their_callers(
    fussy: tuple[Path, Fussy], instances: int
) -> None:
    path, module = fussy
    rows = [torch.rand(1 + i % 3, 8) for i in range(300)]
    with (
        pyserve.load(path, device="cuda", instances=instances, max_batch_size=16) as model,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = list(pool.map(model, rows))
        assert model.combines
        assert model.stats().inference_count == sum(len(row) for row in rows)
    for row, answer in zip(rows, answers, strict=True):
        torch.testing.assert_close(answer, module(row).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.cuda
async def test_a_poisoned_request_fails_alone(fussy: tuple[Path, Fussy]) -> None:
    path, module = fussy
    rows = [torch.rand(1, 8) for _ in range(8)]
    rows[3] = -rows[3]
    with pyserve.load(
        path, device="cuda", max_batch_size=8, max_queue_delay_us=60_000_000
    ) as model:
        answers = await asyncio.gather(*map(model.infer, rows), return_exceptions=True)
    for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        if i == 3:
            assert isinstance(answer, errors.ModelFailed)
        else:
            assert isinstance(answer, torch.Tensor)
            torch.testing.assert_close(answer, module(row).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.cuda
def test_several_inputs_of_several_dtypes_go_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "pair.pt"
    a, ids = torch.rand(2, 6, dtype=torch.float64), torch.arange(12).reshape(2, 6)
    pyserve.export(Pair().eval(), path, inputs={"a": a[:1], "ids": ids[:1]})
    with pyserve.load(path, device="cuda") as model:
        answer = model(a=a, ids=ids)
    torch.testing.assert_close(answer["sum"], a + ids)
    assert torch.equal(answer["ids"], ids + 1)


@pytest.mark.cuda
def test_callers_torch_settings_and_current_stream_stay_as_they_were(
    fussy: tuple[Path, Fussy],
) -> None:
    stream = torch.cuda.current_stream()
    threads = torch.get_num_threads()
    with pyserve.load(fussy[0], device="cuda") as model:
        caller = threading.Thread(target=model, args=(torch.rand(1, 8),))
        caller.start()
        caller.join()
        model(torch.rand(1, 8))
    assert torch.cuda.current_stream() == stream
    assert torch.get_num_threads() == threads


@pytest.mark.cuda
def test_a_server_on_the_gpu_answers_as_the_cpu_does(tmp_path: Path) -> None:
    path = models.build("affine", tmp_path / "repository")
    with start(tmp_path / "log", str(path), "--device", "cuda") as server:
        request = {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]}
        answer = server.infer(path.stem, request)
        assert answer.status == 200
        assert answer.json["outputs"][0]["data"] == [3, 5, 7, 9]
        assert server.stop() == 0


def test_gpu_tests_fail_where_a_gpu_is_required_and_there_is_none() -> None:
    if torch.cuda.is_available():
        return  # the tests above run then
    this = Path(__file__)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         f"{this}::test_the_gpu_is_where_a_model_goes"],
        capture_output=True, text=True, timeout=120, check=False, cwd=this.parents[2],
        env={**os.environ, "PYSERVE_REQUIRE_CUDA": "1"},
    )  # fmt: skip
    assert ended.returncode == 1
    assert "torch sees no GPU" in ended.stdout
