"""Batch-invariant models: a row's bits are the same alone and in any company, by every door."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_process import FLAGS, Server, start
from torch import nn

import models
import pyserve
from pyserve import errors

MAX_ROWS = 8
POOL = 12


class Conv(nn.Module):
    """Convolutions, a norm, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2),
            nn.ReLU(),
        )
        self.head = nn.Linear(32, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body(image).mean((2, 3)))
        return y


class Encoder(nn.Module):
    """Two layers of attention over 16 vectors, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x).mean(1)
        return y


class OnAGrid(nn.Module):
    """Rounds to a grid that the largest number of the whole batch spans."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = x.abs().max() * 1e-6
        return torch.round(x / step) * step


class Case(NamedTuple):
    path: Path
    rows: torch.Tensor  # the pool that batches are drawn from


def _build(name: str, folder: Path) -> Case:
    torch.manual_seed(7)
    if name == "mlp":
        path = models.build("mlp", folder)
        signature = pyserve.read_signature(path)
        assert signature is not None
        return Case(path, torch.randn(POOL, *signature.inputs[0].shape))
    module, shape = {
        "conv": (Conv().eval(), (3, 20, 20)),
        "encoder": (Encoder().eval(), (16, 48)),
    }[name]
    path = folder / f"{name}.pt"
    rows = torch.randn(POOL, *shape)
    pyserve.export(module, path, inputs={"x": rows[:2]} if name == "encoder" else rows[:2])
    return Case(path, rows)


@pytest.fixture(scope="module", params=["mlp", "conv", "encoder"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return _build(request.param, tmp_path_factory.mktemp("invariance"))


@pytest.fixture(scope="module")
def model(case: Case) -> Iterator[pyserve.Model]:
    # A moment's wait, so that what is asked at once is run together.
    with pyserve.load(
        case.path, max_batch_size=MAX_ROWS, max_queue_delay_us=2000, batch_invariant=True
    ) as loaded:
        yield loaded


# Which rows of the pool each request has.
compositions = st.lists(
    st.lists(st.integers(0, POOL - 1), min_size=1, max_size=MAX_ROWS), min_size=1, max_size=10
)
a_few = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def bits(rows: torch.Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in rows]


@pytest.fixture(scope="module")
def alone(case: Case, model: pyserve.Model) -> list[bytes]:
    """The bits that each row of the pool has when nobody else asks."""
    return [bits(model(case.rows[i : i + 1]))[0] for i in range(POOL)]


@a_few
@given(requests=compositions)
def test_a_rows_bits_are_those_it_has_alone(
    case: Case, model: pyserve.Model, alone: list[bytes], requests: list[list[int]]
) -> None:
    async def ask() -> list[torch.Tensor]:
        return await asyncio.gather(*(model.infer(case.rows[rows]) for rows in requests))

    for rows, got in zip(requests, asyncio.run(ask()), strict=True):
        assert bits(got) == [alone[row] for row in rows]


def test_where_the_numbers_lie_does_not_matter(
    case: Case, model: pyserve.Model, alone: list[bytes]
) -> None:
    for offset in range(1, 20, 3):
        memory = torch.empty(case.rows[0].numel() + offset)
        row = memory[offset:].view(1, *case.rows.shape[1:])
        row.copy_(case.rows[:1])
        assert bits(model(row)) == alone[:1]
    turned = case.rows[:1].transpose(1, -1).contiguous().transpose(1, -1)
    assert bits(model(turned)) == alone[:1]


def test_its_shapes_are_told(model: pyserve.Model) -> None:
    assert model.batch_invariant
    assert model.allowed_batch_sizes
    assert set(model.allowed_batch_sizes) <= {1, 2, 4, 8}
    assert model.combines == (model.allowed_batch_sizes[-1] > 1)


def test_rows_whose_scale_is_shared_are_run_alone(tmp_path: Path) -> None:
    path = tmp_path / "grid.pt"
    torch.manual_seed(1)
    pyserve.export(OnAGrid(), path, inputs=torch.randn(3, 5))
    rows = torch.randn(4, 5) * torch.tensor([[1.0], [10.0], [100.0], [1000.0]])
    with pyserve.load(path, batch_invariant=True) as model:
        assert model.allowed_batch_sizes == (1,)
        assert not model.combines
        assert "every row is run alone" in model.batching_note
        together = bits(model(rows))
        assert together == [bits(model(rows[i : i + 1]))[0] for i in range(4)]
    with pyserve.load(path) as model:
        assert bits(model(rows)) != together


def test_a_model_without_a_batch_dimension_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grid.pt"
    pyserve.export(OnAGrid(), path, inputs=torch.randn(3, 5), batched=False)
    with pytest.raises(errors.ConfigError, match="invariant needs a batch dimension"):
        pyserve.load(path, batch_invariant=True)


def test_lengths_and_invariance_go_together(tmp_path: Path) -> None:
    path = models.build("encoder", tmp_path)
    lengths = {"buckets": [8, 16], "inputs": {"token_ids": {"dim": 0}}, "mask": "mask"}
    torch.manual_seed(3)
    texts = [torch.randint(1, 8192, (1, length)) for length in (3, 8, 5, 16, 12, 9, 8, 1)]

    async def ask() -> list[torch.Tensor]:
        return await asyncio.gather(*(model.infer(tokens) for tokens in texts))

    with pyserve.load(path, max_batch_size=4, lengths=lengths, batch_invariant=True) as model:
        expected = [model(tokens) for tokens in texts]
        for one, other in zip(expected, asyncio.run(ask()), strict=True):
            assert bits(one) == bits(other)


# --- HTTP ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FLAGS)
def served(
    request: pytest.FixtureRequest, case: Case, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    options = ["batching.invariant=true", "batching.max_batch_size=8"]
    options.append("batching.max_queue_delay_us=2000")
    flags = [flag for option in options for flag in ("--set", option)]
    log = tmp_path_factory.mktemp("served") / "log"
    with start(log, str(case.path), f"--{FLAGS[request.param]}", *flags) as server:
        yield server
        assert server.stop() == 0


def test_a_rows_bits_over_http_are_those_it_has_alone(
    case: Case, served: Server, alone: list[bytes]
) -> None:
    random = np.random.default_rng(11)
    requests = [random.integers(0, POOL, random.integers(1, MAX_ROWS + 1)) for _ in range(40)]

    async def ask() -> list[pyserve.InferResult]:
        async with pyserve.AsyncClient(served.url) as client:
            name = case.path.stem
            metadata = await client.metadata(name)
            assert metadata.properties["batch_invariant"] is True
            tensor = metadata.inputs[0].name
            return await asyncio.gather(
                *(client.infer(name, {tensor: case.rows[rows].numpy()}) for rows in requests)
            )

    for rows, result in zip(requests, asyncio.run(ask()), strict=True):
        (output,) = result.outputs.values()
        assert _bits(output) == [alone[row] for row in rows]


def _bits(rows: Sequence[np.ndarray]) -> list[bytes]:
    return [np.ascontiguousarray(row).tobytes() for row in rows]
