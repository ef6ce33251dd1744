"""The model zoo: every model is built, exported, read back from its file and run."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import models
from models.digits import load_digits_split
from pyserve.errors import ConfigError
from pyserve.scripting import quiet_torchscript
from pyserve.signature import Signature, TensorSpec, read_signature

ROOT = Path(__file__).resolve().parents[2]


def load(path: Path) -> tuple[torch.jit.ScriptModule, Signature]:
    """The module and the signature in a built file."""
    signature = read_signature(path)
    assert signature is not None
    load_file: Callable[..., torch.jit.ScriptModule] = torch.jit.load
    with quiet_torchscript():
        return load_file(str(path)), signature


def run(module: torch.jit.ScriptModule, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        output = module(*inputs)
    assert isinstance(output, torch.Tensor)
    return output


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repository")


def test_affine_is_two_x_plus_one(repository: Path) -> None:
    module, signature = load(models.build("affine", repository))
    assert signature.inputs == (TensorSpec("x", "FP32", (4,)),)
    assert signature.outputs == (TensorSpec("y", "FP32", (4,)),)
    assert signature.batched
    x = torch.rand(3, 4)
    assert torch.equal(run(module, x), 2 * x + 1)


@pytest.mark.parametrize(("name", "width", "classes"), [("tiny", 16, 4), ("mlp", 256, 10)])
def test_perceptron_has_its_widths(repository: Path, name: str, width: int, classes: int) -> None:
    module, signature = load(models.build(name, repository))
    assert signature.inputs == (TensorSpec("features", "FP32", (width,)),)
    assert signature.outputs == (TensorSpec("logits", "FP32", (classes,)),)
    x = torch.randn(8, width)
    logits = run(module, x)
    torch.testing.assert_close(run(module, x[3:4]), logits[3:4])
    assert logits.std(dim=0).min() > 0


def test_digits_classifies_held_out_images(repository: Path) -> None:
    reports: list[tuple[str, float]] = []
    path = models.build(
        "digits", repository, progress=lambda message, done: reports.append((message, done))
    )
    module, signature = load(path)
    assert signature.inputs == (TensorSpec("image", "FP32", (1, 8, 8)),)
    digit_spec = TensorSpec("digit", "INT64", ())
    assert signature.outputs == (digit_spec, TensorSpec("logits", "FP32", (10,)))

    split = load_digits_split()
    with torch.inference_mode():
        digit, logits = module(torch.from_numpy(split.test_images))
    assert torch.equal(digit, logits.argmax(dim=1))
    assert (digit.numpy() == split.test_labels).mean() >= 0.98

    fractions = [done for _, done in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert any("held-out images right" in message for message, _ in reports)


def test_digits_split_is_stratified_and_always_the_same() -> None:
    split = load_digits_split()
    assert split.train_images.shape == (1438, 1, 8, 8)
    assert split.test_images.shape == (359, 1, 8, 8)
    assert split.test_images.min() == 0.0
    assert split.test_images.max() == 1.0
    for digit in range(10):
        held_out = (split.test_labels == digit).sum()
        every = held_out + (split.train_labels == digit).sum()
        assert abs(held_out - every / 5) <= 0.5
    again = load_digits_split()
    assert [array.tobytes() for array in split] == [array.tobytes() for array in again]
    train = {image.tobytes() for image in split.train_images}
    assert not train & {image.tobytes() for image in split.test_images}


def test_resnet18_takes_any_height_and_width(repository: Path) -> None:
    module, signature = load(models.build("resnet18", repository))
    assert signature.inputs == (TensorSpec("image", "FP32", (3, -1, -1)),)
    assert signature.outputs == (TensorSpec("logits", "FP32", (1000,)),)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        images = torch.randn(3, 3, 64, 64)
    logits = run(module, images)
    assert logits.shape == (3, 1000)
    assert logits.isfinite().all()
    assert 0.01 < float(logits.std()) < 100
    assert (logits[0] - logits[1]).abs().max() > 0.01
    torch.testing.assert_close(run(module, images[1:2]), logits[1:2], rtol=1e-4, atol=1e-4)
    assert run(module, torch.rand(1, 3, 37, 90)).isfinite().all()


def test_encoder_ignores_padding_and_batch_mates(repository: Path) -> None:
    module, signature = load(models.build("encoder", repository))
    assert signature.inputs == (
        TensorSpec("token_ids", "INT64", (-1,)),
        TensorSpec("mask", "INT64", (-1,)),
    )
    assert signature.outputs == (TensorSpec("embedding", "FP32", (384,)),)

    tokens = torch.arange(100, 112).reshape(1, 12)
    alone = run(module, tokens, torch.ones_like(tokens))
    torch.testing.assert_close(alone.norm(), torch.tensor(1.0))

    # Padding on the right, on the left and in the middle, holding what is no token at all.
    padded = torch.full((4, 20), -7)
    mask = torch.zeros(4, 20, dtype=torch.int64)
    for row, places in enumerate(
        (range(12), range(8, 20), range(4, 16), [*range(6), *range(9, 15)])
    ):
        padded[row, list(places)] = tokens[0]
        mask[row, list(places)] = 1
    together = run(module, padded, mask)
    torch.testing.assert_close(together, alone.expand(4, -1), rtol=1e-4, atol=1e-5)

    mates = torch.randint(0, 8192, (5, 12))
    mates[2] = tokens
    mixed = run(module, mates, torch.ones_like(mates))
    torch.testing.assert_close(mixed[2], alone[0], rtol=1e-4, atol=1e-5)
    assert (mixed[0] - mixed[2]).abs().max() > 0.01

    # The order of tokens counts, and nothing but padding is not an error.
    backwards = run(module, tokens.flip(1), torch.ones_like(tokens))
    assert (backwards - alone).abs().max() > 1e-4
    assert torch.equal(run(module, tokens, torch.zeros_like(tokens)), torch.zeros(1, 384))
    empty = torch.zeros(2, 0, dtype=torch.int64)
    assert torch.equal(run(module, empty, empty), torch.zeros(2, 384))


def test_other_seed_gives_other_weights_and_the_same_seed_the_same(tmp_path: Path) -> None:
    outputs = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        module, _ = load(models.build("tiny", tmp_path / folder, seed=seed))
        outputs.append(run(module, torch.ones(1, 16)))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_build_leaves_the_callers_random_numbers_and_threads_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state(), torch.get_num_threads()
    models.build("tiny", tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


def test_every_model_is_described_in_a_line() -> None:
    assert {"affine", "digits", "mlp", "resnet18", "encoder", "tiny"} == set(models.names())
    for name in models.names():
        assert 0 < len(models.describe(name)) <= 100
        assert name in (ROOT / "docs" / "zoo.md").read_text()


def test_unknown_model_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'no model "digit"; it has affine'):
        models.build("digit", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_listing_the_zoo_imports_no_torch() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import models;"
        "[models.describe(n) for n in models.names()]; sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT)], check=False)
    assert done.returncode == 0
