"""pyserve.export: what it learns from modules of every kind, what it refuses, what it writes."""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from pyserve.errors import ConfigError
from pyserve.export import export
from pyserve.scripting import Method, quiet_torchscript
from pyserve.signature import TensorSpec, decode_bytes_elements, read_signature

Steps = dict[str, Callable[[torch.Tensor], torch.Tensor]]

ROOT = Path(__file__).resolve().parents[2]


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Scores(NamedTuple):
    best: torch.Tensor
    label: torch.Tensor


class Best(nn.Module):
    def forward(self, x: torch.Tensor) -> Scores:
        best, label = x.max(dim=1)
        return Scores(best, label)


class TwoNames(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": left + right, "is_less": left < right}


class Shout(nn.Module):
    def forward(self, texts: list[str], times: torch.Tensor) -> tuple[list[str], torch.Tensor]:
        return [text + "!" for text in texts], times + 1


class Unscriptable(nn.Module):
    """Python that the TorchScript compiler refuses, and a trace follows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps: Steps = {"twice": lambda tensor: tensor * 2}
        return steps["twice"](x)


class UnscriptableBest(nn.Module):
    def forward(self, x: torch.Tensor) -> Scores:
        steps = {"max": lambda tensor: tensor.max(dim=1)}
        return Scores(*steps["max"](x))


class FrozenLength(nn.Module):
    """A trace of this keeps the length that it was traced with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps: Steps = {"mean": lambda tensor: tensor.sum(dim=1) / float(tensor.shape[1])}
        return steps["mean"](x)


class Pooled(nn.Module):
    """Keeps the length in `each`, loses it in `mean`."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + 1, x.mean(dim=1)


def reload(path: Path) -> torch.jit.ScriptModule:
    load_file: Callable[..., torch.jit.ScriptModule] = torch.jit.load
    with quiet_torchscript():
        return load_file(str(path))


def test_signature_is_returned_and_written(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    signature = export(Double(), path, inputs=torch.ones(3, 4), max_batch_size=16)
    assert read_signature(path) == signature
    assert signature.inputs == (TensorSpec("x", "FP32", (4,)),)
    assert signature.outputs == (TensorSpec("output_0", "FP32", (4,)),)
    assert signature.batched
    assert signature.max_batch_size == 16
    assert torch.equal(reload(path)(torch.ones(5, 4)), torch.full((5, 4), 2.0))


def test_named_tuple_names_the_outputs(tmp_path: Path) -> None:
    signature = export(Best(), tmp_path / "model.pt", inputs=torch.rand(2, 5))
    assert signature.outputs == (TensorSpec("best", "FP32", ()), TensorSpec("label", "INT64", ()))


def test_named_tuple_names_the_outputs_of_a_trace_too(tmp_path: Path) -> None:
    signature = export(UnscriptableBest(), tmp_path / "model.pt", inputs=torch.rand(2, 5))
    assert [spec.name for spec in signature.outputs] == ["best", "label"]


@pytest.mark.parametrize("method", ["script", "trace"])
def test_dict_keys_name_the_outputs_and_mappings_go_by_argument_name(
    tmp_path: Path, method: Method
) -> None:
    signature = export(
        TwoNames(),
        tmp_path / "model.pt",
        inputs={"right": torch.zeros(2, 3), "left": torch.ones(2, 3)},
        method=method,
    )
    assert [spec.name for spec in signature.inputs] == ["left", "right"]
    assert signature.outputs == (
        TensorSpec("sum", "FP32", (3,)),
        TensorSpec("is_less", "BOOL", (3,)),
    )
    left = signature.examples[0]["left"]
    assert left.data == torch.ones(2, 3).numpy().tobytes()


def test_strings_are_bytes(tmp_path: Path) -> None:
    signature = export(Shout(), tmp_path / "model.pt", inputs=(["grüße", ""], torch.tensor([1, 2])))
    assert signature.inputs == (TensorSpec("texts", "BYTES", ()), TensorSpec("times", "INT64", ()))
    assert signature.outputs[0] == TensorSpec("output_0", "BYTES", ())
    texts = signature.examples[0]["texts"]
    assert texts.shape == (2,)
    assert decode_bytes_elements(texts.data) == ["grüße".encode(), b""]


def test_strings_without_a_batch_are_a_list_of_any_length(tmp_path: Path) -> None:
    signature = export(
        Shout(), tmp_path / "model.pt", inputs=(["a"], torch.tensor(1)), batched=False
    )
    assert signature.inputs == (
        TensorSpec("texts", "BYTES", (-1,)),
        TensorSpec("times", "INT64", ()),
    )


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int16, torch.float16, torch.bfloat16, torch.float64]
)
def test_every_dtype_can_be_exported(tmp_path: Path, dtype: torch.dtype) -> None:
    class Same(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

    signature = export(Same(), tmp_path / "model.pt", inputs=torch.ones(2, 3).to(dtype))
    assert signature.inputs[0].dtype == signature.outputs[0].dtype
    assert len(signature.examples[0]["x"].data) == 6 * dtype.itemsize


def test_dynamic_dimension_is_followed_into_the_outputs(tmp_path: Path) -> None:
    signature = export(Pooled(), tmp_path / "model.pt", inputs=torch.rand(2, 5), dynamic={"x": {1}})
    assert signature.inputs[0].shape == (-1,)
    assert [spec.shape for spec in signature.outputs] == [(-1,), ()]


def test_examples_of_other_sizes_make_a_dimension_dynamic(tmp_path: Path) -> None:
    signature = export(
        Pooled(), tmp_path / "model.pt", inputs=torch.rand(2, 5), examples=[torch.rand(2, 7)]
    )
    assert signature.inputs[0].shape == (-1,)
    assert [example["x"].shape for example in signature.examples] == [(2, 5), (2, 7)]


def test_names_can_be_given(tmp_path: Path) -> None:
    signature = export(
        Double(),
        tmp_path / "model.pt",
        inputs=torch.ones(1, 2),
        input_names=["image"],
        output_names=["logits"],
        dynamic={"image": [-1], "logits": [1]},
    )
    assert signature.inputs == (TensorSpec("image", "FP32", (-1,)),)
    assert signature.outputs == (TensorSpec("logits", "FP32", (-1,)),)


def test_model_without_a_batch_keeps_its_whole_shape(tmp_path: Path) -> None:
    signature = export(Pooled(), tmp_path / "model.pt", inputs=torch.rand(2, 5), batched=False)
    assert not signature.batched
    assert signature.inputs[0].shape == (2, 5)
    assert [spec.shape for spec in signature.outputs] == [(2, 5), (2,)]


def test_what_cannot_be_scripted_is_traced(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    export(Unscriptable(), path, inputs=torch.ones(1, 2), dynamic={"x": [1]})
    assert torch.equal(reload(path)(torch.ones(3, 4)), torch.full((3, 4), 2.0))
    with pytest.raises(ConfigError, match="cannot be scripted"):
        export(Unscriptable(), path, inputs=torch.ones(1, 2), method="script")


def test_trace_that_froze_a_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.warns(Warning, match="trace might not generalize"):
        export(FrozenLength(), path, inputs=torch.ones(2, 4))
    path.unlink()
    with (
        pytest.warns(Warning, match="trace might not generalize"),
        pytest.raises(ConfigError, match=r"has other values for inputs of \[2, 8\]"),
    ):
        export(FrozenLength(), path, inputs=torch.ones(2, 4), dynamic={"x": [1]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frozen", [False, True])
def test_script_module_is_taken_as_it_is(tmp_path: Path, frozen: bool) -> None:
    with quiet_torchscript():
        module = torch.jit.script(nn.Sequential(nn.Linear(4, 2)).eval())
        module = torch.jit.freeze(module) if frozen else module
    path = tmp_path / "model.pt"
    signature = export(module, path, inputs=torch.ones(2, 4))
    assert signature.inputs == (TensorSpec("input", "FP32", (4,)),)
    assert torch.equal(reload(path)(torch.ones(3, 4)), module(torch.ones(3, 4)))


def test_module_is_exported_in_eval_mode_and_left_in_its_own(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4)).train()
    module[1].eval()
    path = tmp_path / "model.pt"
    export(module, path, inputs=torch.rand(2, 4))
    assert (module.training, module[0].training, module[1].training) == (True, True, False)
    x = torch.rand(3, 4)
    assert torch.equal(reload(path)(x), reload(path)(x))


def test_random_numbers_of_the_caller_are_untouched(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    export(Double(), tmp_path / "model.pt", inputs=torch.ones(2, 4))
    assert torch.equal(torch.rand(1), expected)


def test_only_few_rows_of_a_large_example_are_kept(tmp_path: Path) -> None:
    signature = export(Double(), tmp_path / "model.pt", inputs=torch.rand(16, 65536))
    assert signature.examples[0]["x"].shape == (4, 65536)
    signature = export(Double(), tmp_path / "model.pt", inputs=torch.rand(16, 4))
    assert signature.examples[0]["x"].shape == (8, 4)
    signature = export(Double(), tmp_path / "model.pt", inputs=torch.rand(16, 4), max_batch_size=2)
    assert signature.examples[0]["x"].shape == (2, 4)


def test_example_too_large_for_the_file_is_left_out(tmp_path: Path) -> None:
    signature = export(Double(), tmp_path / "model.pt", inputs=torch.zeros(1, 3 * 1024 * 1024))
    assert signature.examples == ()


def test_torch_says_nothing_about_torchscript(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(Double(), tmp_path / "model.pt", inputs=torch.ones(2, 4))
        export(Unscriptable(), tmp_path / "model.pt", inputs=torch.ones(2, 4))


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 4)


class Mixes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean()


class ReturnsNumber(nn.Module):
    def forward(self, x: torch.Tensor) -> int:
        return x.shape[0]


class TakesAnything(nn.Module):
    def forward(self, *xs: torch.Tensor) -> torch.Tensor:
        return xs[0]


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (Raises(), {}, r"raises for inputs of \[1, 4\]: .*batched=False"),
        (Mixes(), {}, r'"output_0" has shape \[\] for a batch of 2.*batched=False'),
        (ReturnsNumber(), {}, "is a int; return tensors"),
        (TakesAnything(), {}, r"wrap the module"),
        (Double(), {"inputs": {"y": torch.ones(1)}}, "inputs has y, forward takes x"),
        (Double(), {"inputs": [torch.ones(1)] * 2}, "2 inputs given, forward takes x"),
        (Double(), {"inputs": {"x": 3}}, "is a int, expected a tensor"),
        (Double(), {"inputs": ["a", "b"]}, "put it in a tuple"),
        (Double(), {"inputs": ()}, "inputs has nothing, forward takes x"),
        (Double(), {"inputs": torch.tensor(1.0)}, "without a batch dimension"),
        (Double(), {"inputs": torch.ones(0, 2)}, "1 or more"),
        (Double(), {"inputs": torch.ones(2, 2) * 1j}, "cannot carry"),
        (Double(), {"examples": [torch.ones(2)]}, "1 dimensions in one run and 2 in another"),
        (Double(), {"examples": [torch.ones(2, 4).int()]}, "FP32 in one run and INT32"),
        (Double(), {"input_names": ["a", "b"]}, "expected 1 different names"),
        (Double(), {"output_names": []}, "expected 1 different names"),
        (Double(), {"dynamic": {"z": [1]}}, 'names "z", but inputs and outputs are x, output_0'),
        (Double(), {"dynamic": {"x": [2]}}, "which has 2 dimensions"),
        (Double(), {"max_batch_size": 0}, "expected 1 or more"),
        (Double(), {"max_batch_size": 4, "batched": False}, "needs batched=True"),
        (Double(), {"method": "compile"}, "expected 'auto', 'script' or 'trace'"),
        (TwoNames(), {"inputs": [torch.ones(2, 1), torch.ones(1, 1)]}, '"left" has 2, "right"'),
        (Shout(), {"inputs": (["a"], torch.ones(1)), "method": "trace"}, "cannot be traced"),
    ],
)
def test_refusal_says_what_to_do(
    tmp_path: Path, module: nn.Module, options: Mapping[str, object], message: str
) -> None:
    arguments = {"inputs": torch.ones(2, 4), **options}
    with pytest.raises(ConfigError, match=message):
        export(module, tmp_path / "model.pt", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_two_inputs_must_have_the_same_rows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be the same"):
        export(TwoNames(), tmp_path / "model.pt", inputs=(torch.ones(2, 1), torch.ones(3, 1)))


def test_pt2_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"named \.pt"):
        export(Double(), tmp_path / "model.pt2", inputs=torch.ones(2, 4))


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.jit, "save", full)
    with pytest.raises(OSError, match="No space"):
        export(Double(), path, inputs=torch.ones(2, 4))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    path = tmp_path / "repository" / "double" / "1" / "model.pt"
    export(Double(), path, inputs=torch.ones(2, 4))
    assert [entry.name for entry in path.parent.iterdir()] == ["model.pt"]


def test_module_is_callable_like_the_function(tmp_path: Path) -> None:
    import pyserve.export as called

    assert callable(called)
    signature = called(Double(), tmp_path / "model.pt", inputs=torch.ones(2, 4))
    assert signature == read_signature(tmp_path / "model.pt")


def test_same_module_time_and_hash_seed_give_the_same_bytes(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import torch; from torch import nn; from pyserve.export import export\n"
        "torch.manual_seed(0)\n"
        "module = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))\n"
        "export(module, sys.argv[2], inputs=torch.rand(2, 3))\n"
    )
    files = []
    for folder in ("a", "b"):
        path = tmp_path / folder / "model.pt"
        subprocess.run(
            [sys.executable, "-c", script, str(ROOT), str(path)],
            check=True,
            env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000", "PYTHONHASHSEED": "0"},
        )
        files.append(path.read_bytes())
    assert files[0] == files[1]
    signature = read_signature(tmp_path / "a" / "model.pt")
    assert signature is not None
    assert signature.provenance is not None
    assert signature.provenance.created == "2023-11-14T22:13:20Z"


def test_snippets_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "export.md").read_text()
    snippets = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert len(snippets) >= 5
    for index, snippet in enumerate(snippets):
        # In a file, because TorchScript reads the source of what it compiles.
        source = tmp_path / f"snippet_{index}.py"
        source.write_text(snippet)
        monkeypatch.chdir(tmp_path)
        with quiet_torchscript():
            exec(compile(snippet, str(source), "exec"), {"__name__": f"snippet_{index}"})
    assert (tmp_path / "repo" / "classifier" / "1" / "model.pt").is_file()
