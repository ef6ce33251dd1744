"""Allowed batch sizes and length buckets: in this process and over every door of a server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from server_process import FLAGS, Server, start
from torch import nn

import models
import pyserve
from pyserve import errors
from pyserve.scripting import quiet_torchscript


class Compiled(nn.Module):
    """Takes 1, 4 or 8 rows, as a compiled model would."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.size(0) != 1 and x.size(0) != 4 and x.size(0) != 8:
            raise ValueError("compiled for 1, 4 and 8 rows")
        return x * 2


class Centred(nn.Module):
    """Mixes rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


class Reader(nn.Module):
    """A running sum of the tokens, and the mean of those that the mask keeps."""

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        kept = tokens * mask
        mean = kept.sum(1) / mask.sum(1)
        return {"running": kept.cumsum(1), "mean": mean}


class Careless(nn.Module):
    """Does not look at its mask."""

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"same": tokens + 0 * mask, "mean": tokens.float().mean(1)}


LENGTHS = {
    "buckets": [4, 8, 16],
    "inputs": {"tokens": {"dim": 0, "pad": 9}},
    "mask": "mask",
    "outputs": {"running": {"dim": 0}},
}


def reader(folder: Path) -> Path:
    path = folder / "reader.pt"
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    pyserve.export(
        Reader(),
        path,
        inputs={"tokens": tokens, "mask": torch.ones_like(tokens)},
        dynamic={"tokens": [1], "mask": [1]},
    )
    return path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pyserve.Model]:
    path = tmp_path_factory.mktemp("compiled") / "compiled.pt"
    with quiet_torchscript():
        torch.jit.script(Compiled()).save(str(path))  # type: ignore[no-untyped-call]
    with pyserve.load(
        path,
        inputs=[{"name": "x", "dtype": "FP32", "shape": [3]}],
        outputs=[{"name": "y", "dtype": "FP32", "shape": [3]}],
        allowed_batch_sizes=[1, 4, 8],
    ) as model:
        yield model


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pyserve.Model]:
    path = reader(tmp_path_factory.mktemp("reader"))
    with pyserve.load(path, max_batch_size=8, lengths=LENGTHS) as model:
        yield model


# --- allowed batch sizes ------------------------------------------------------------------


def test_the_largest_allowed_size_is_the_largest_batch(compiled: pyserve.Model) -> None:
    assert compiled.allowed_batch_sizes == (1, 4, 8)
    assert compiled.max_batch_size == 8
    assert compiled.combines
    assert compiled.notes == ()
    with pytest.raises(errors.InvalidInput, match="at most max_batch_size 8"):
        compiled(torch.ones(9, 3))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_any_rows_get_their_own_answers(
    compiled: pyserve.Model, sizes: list[int], _: object
) -> None:
    async def ask() -> list[torch.Tensor]:
        return await asyncio.gather(*(compiled.infer(x) for x in inputs))

    inputs = [torch.rand(rows, 3) for rows in sizes]
    for x, y in zip(inputs, asyncio.run(ask()), strict=True):
        assert torch.equal(y, x * 2)


def test_statistics_count_the_rows_that_came(compiled: pyserve.Model) -> None:
    before = compiled.stats()
    compiled(torch.ones(3, 3))
    after = compiled.stats()
    assert after.inference_count - before.inference_count == 3
    assert after.execution_count - before.execution_count == 1


def test_a_kept_answer_does_not_keep_the_rows_that_were_filled_in(compiled: pyserve.Model) -> None:
    assert compiled(torch.ones(5, 3)).untyped_storage().nbytes() == 5 * 3 * 4


@pytest.mark.parametrize(
    ("module", "batched", "message"),
    [
        (Centred(), True, "mixes rows"),
        (Compiled(), False, "without a batch dimension"),
    ],
)
def test_allowed_sizes_insist(
    tmp_path: Path, module: nn.Module, batched: bool, message: str
) -> None:
    path = tmp_path / "model.pt"
    pyserve.export(module, path, inputs=torch.rand(4, 3), batched=batched)
    with pytest.raises(errors.ConfigError, match=message):
        pyserve.load(path, allowed_batch_sizes=[1, 4, 8])


# --- lengths ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(-50, 50), min_size=1, max_size=16).flatmap(
            lambda row: st.lists(
                st.lists(st.integers(-50, 50), min_size=len(row), max_size=len(row)),
                min_size=1,
                max_size=3,
            )
        ),
        min_size=1,
        max_size=10,
    )
)
def test_every_request_gets_what_it_would_get_alone_and_unpadded(
    reading: pyserve.Model, texts: list[list[list[int]]]
) -> None:
    async def ask() -> list[dict[str, torch.Tensor]]:
        return await asyncio.gather(*(reading.infer(tokens) for tokens in inputs))

    inputs = [torch.tensor(text) for text in texts]
    for tokens, got in zip(inputs, asyncio.run(ask()), strict=True):
        expected = Reader()(tokens, torch.ones_like(tokens))
        assert torch.equal(got["running"], expected["running"])
        assert torch.allclose(got["mean"], expected["mean"])


def test_a_mask_that_is_sent_counts(reading: pyserve.Model) -> None:
    tokens = torch.tensor([[10, 20, 30]])
    got = reading(tokens, mask=torch.tensor([[1, 0, 1]]))
    assert got["running"].tolist() == [[10, 10, 40]]
    assert got["mean"].tolist() == [20.0]


def test_different_lengths_of_a_bucket_share_a_batch(tmp_path: Path) -> None:
    async def ask() -> None:
        await asyncio.gather(
            *(model.infer(torch.ones(1, n, dtype=torch.int64)) for n in (5, 6, 7, 8))
        )

    # Nothing is run before four rows are there.
    with pyserve.load(
        reader(tmp_path), max_batch_size=4, max_queue_delay_us=60_000_000, lengths=LENGTHS
    ) as model:
        asyncio.run(ask())
        assert model.stats().execution_count == 1


@pytest.mark.parametrize("length", [0, 17, 1000])
def test_a_length_that_no_bucket_has_is_refused(reading: pyserve.Model, length: int) -> None:
    message = f'"tokens" has length {length} along dimension 1, expected 1 to 16'
    with pytest.raises(errors.InvalidInput, match=message):
        reading(torch.ones(1, length, dtype=torch.int64))


def test_a_model_that_sees_its_padding_is_refused_and_the_output_named(tmp_path: Path) -> None:
    path = tmp_path / "careless.pt"
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    pyserve.export(
        Careless(),
        path,
        inputs={"tokens": tokens, "mask": torch.ones_like(tokens)},
        dynamic={"tokens": [1], "mask": [1]},
    )
    lengths = LENGTHS | {"outputs": {"same": {"dim": 0}}}
    with pytest.raises(errors.ConfigError, match='output "mean" of a row of length 2 changes'):
        pyserve.load(path, lengths=lengths)


def test_an_output_that_is_not_cut_must_not_be_named(tmp_path: Path) -> None:
    lengths = LENGTHS | {"outputs": {"mean": {"dim": 0}}}
    with pytest.raises(errors.ConfigError, match=r"lengths\.outputs\.mean: dim is 0, expected"):
        pyserve.load(reader(tmp_path), lengths=lengths)


def test_the_encoder_reads_texts_of_any_length_in_few_shapes(tmp_path: Path) -> None:
    async def ask() -> list[torch.Tensor]:
        return await asyncio.gather(*(padded.infer(tokens) for tokens in texts))

    path = models.build("encoder", tmp_path)
    texts = [torch.randint(1, 8192, (1, length)) for length in (1, 7, 16, 3, 24, 32, 17, 9)]
    lengths = {"buckets": [16, 32], "inputs": {"token_ids": {"dim": 0}}, "mask": "mask"}
    with (
        pyserve.load(path, max_batch_size=4) as plain,
        pyserve.load(path, allowed_batch_sizes=[1, 4], lengths=lengths) as padded,
    ):
        assert padded.length_buckets == (16, 32)
        for tokens, got in zip(texts, asyncio.run(ask()), strict=True):
            expected = plain(tokens, torch.ones_like(tokens))
            assert torch.allclose(got, expected, atol=1e-5)


# --- a server -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FLAGS)
def shapes_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("shapes")
    path = reader(folder)
    settings = [
        "batching.allowed_batch_sizes=[2, 4]",
        "lengths.buckets=[4, 8, 16]",
        "lengths.inputs.tokens={dim: 0, pad: 9}",
        "lengths.mask=mask",
        "lengths.outputs.running.dim=0",
    ]
    options = [option for setting in settings for option in ("--set", setting)]
    with start(folder / "log", str(path), f"--{FLAGS[request.param]}", *options) as server:
        yield server
        assert server.stop() == 0


def test_clients_of_every_door_send_lengths_as_they_are(shapes_server: Server) -> None:
    for url in (shapes_server.url, f"grpc://{shapes_server.grpc}"):
        with pyserve.Client(url) as client:
            result = client.infer("reader", {"tokens": np.array([[3, 4, 5], [1, 1, 1]])})
            assert result["running"].tolist() == [[3, 7, 12], [1, 2, 3]]
            assert result["mean"].tolist() == [4.0, 1.0]
            with pytest.raises(errors.InvalidInput, match="has length 17 along dimension 1"):
                client.infer("reader", {"tokens": np.ones((1, 17), dtype=np.int64)})


def test_json_needs_no_mask_either(shapes_server: Server) -> None:
    body = (
        b'{"inputs": [{"name": "tokens", "datatype": "INT64", "shape": [1, 2], "data": [8, 9]}],'
        b' "outputs": [{"name": "running"}]}'
    )
    reply = shapes_server.ask("POST", "/v2/models/reader/infer", body)
    assert reply.status == 200, reply.body
    assert reply.json["outputs"][0]["shape"] == [1, 2]
    assert reply.json["outputs"][0]["data"] == [8, 17]


def test_the_metadata_tells_the_shapes(shapes_server: Server) -> None:
    properties = shapes_server.ask("GET", "/v2/models/reader").json["properties"]
    assert properties["allowed_batch_sizes"] == [2, 4]
    assert properties["length_buckets"] == [4, 8, 16]
    assert properties["max_batch_size"] == 4
