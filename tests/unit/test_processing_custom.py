"""A Python class beside the model: how it is found, called, and what becomes of its errors."""

import logging
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from processing_model import array_of, files, output, processor, strings, takes

from pyserve.config import load_model_config
from pyserve.errors import ConfigError, InvalidInput, ModelFailed
from pyserve.messages import InputTensor
from pyserve.processing.arrays import to_bytes
from pyserve.processing.processor import Processor, make_processor
from pyserve.signature import TensorSpec

MODEL = takes("x", "FP32", 2)


def load(folder: Path, code: str, config: str = "") -> Processor:
    (folder / "processor.py").write_text(dedent(code))
    return processor(MODEL, f"processor: processor.py:Mine\n{config}", folder, allow_handlers=True)


WORDS = """
    from .words import NUMBERS

    class Mine:
        inputs = [{"name": "word", "dtype": "BYTES", "shape": [1]}]
        outputs = [{"name": "spoken", "dtype": "BYTES", "shape": []}]

        def setup(self, context):
            assert context.name == "m" and context.inputs[0].name == "x"
            self.scale = float((context.folder / "scale.txt").read_text())

        def preprocess(self, inputs):
            words = inputs["word"].ravel()
            if any(word not in NUMBERS for word in words):
                raise ValueError("not a word that I know")
            return {"x": [[NUMBERS[word] * self.scale, 0] for word in words]}

        def postprocess(self, outputs):
            return {"spoken": [f"it is {value:g}" for value in outputs["y"][:, 0]], "n": [1, 2]}
"""


async def test_a_class_stands_before_and_after_the_model(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text('NUMBERS = {b"one": 1, b"two": 2}\n')
    (tmp_path / "scale.txt").write_text("10")
    made = load(tmp_path, WORDS)
    assert made.inputs == (TensorSpec("word", "BYTES", (1,)),)
    assert made.outputs == (TensorSpec("spoken", "BYTES", ()),)
    assert (made.preprocess, made.postprocess) == (("custom",), ("custom",))
    (x,) = await made.prepare([files("word", b"one", b"two")])
    assert (x.datatype, array_of(x).tolist()) == ("FP32", [[10, 0], [20, 0]])
    outputs = await made.finish([output("y", np.array([[7], [8]], np.float32))], None)
    assert strings(outputs[0]) == ["it is 7", "it is 8"]
    assert (outputs[1].datatype, array_of(outputs[1]).tolist()) == ("INT64", [1, 2])
    with pytest.raises(InvalidInput, match=r"^not a word that I know$"):
        await made.prepare([files("word", b"three")])


async def test_the_models_own_tensors_pass_untouched(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text("NUMBERS = {}\n")
    (tmp_path / "scale.txt").write_text("10")
    made = load(tmp_path, WORDS)
    tensor = InputTensor("x", "FP32", (1, 2), bytes(8))
    assert (await made.prepare([tensor]))[0].data is tensor.data


async def test_a_class_that_takes_the_models_own_inputs_sees_every_request(tmp_path: Path) -> None:
    code = """
        class Mine:
            def preprocess(self, inputs):
                return {"x": inputs["x"] / 2}
    """
    made = load(tmp_path, code)
    assert made.inputs == MODEL.inputs
    sent = InputTensor("x", "FP32", (1, 2), to_bytes("FP32", np.array([[2, 4]], np.float32)))
    assert array_of((await made.prepare([sent]))[0]).tolist() == [[1, 2]]


async def test_it_may_stand_before_and_a_declared_step_after(tmp_path: Path) -> None:
    code = "class Mine:\n    def preprocess(self, inputs):\n        return inputs\n"
    made = load(tmp_path, code, "postprocess: [{kind: argmax, name: best}]")
    assert made.outputs == (TensorSpec("best", "INT64", ()),)
    with pytest.raises(ConfigError, match="processor has a preprocess of its own"):
        load(tmp_path, code, "preprocess: [{kind: json}]")


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("1 / 0", "preprocess raised ZeroDivisionError"),
        ("open('/no/such/file')", "preprocess raised FileNotFoundError"),
        ("exit(3)", "preprocess raised SystemExit"),
        ("None", "preprocess returned NoneType, expected arrays by name"),
        ("{1: 2}", "preprocess returned dict, expected arrays by name"),
        ("{'y': 1.0}", 'preprocess returned "y", the model\'s inputs are x'),
        ("{'x': ['a']}", 'preprocess returned "x" as object, expected FP32'),
        ("{'x': 1j}", 'preprocess returned "x" as complex128, expected FP32'),
        ("{'x': [[1], [2, 3]]}", 'preprocess returned "x" as void, expected FP32'),
        ("{'x': object()}", 'preprocess returned "x" as object, expected FP32'),
    ],
)
async def test_what_it_raises_or_returns_amiss_is_the_models_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, returns: str, message: str
) -> None:
    made = load(
        tmp_path, f"class Mine:\n    def preprocess(self, inputs):\n        return {returns}"
    )
    with caplog.at_level(logging.ERROR), pytest.raises(ModelFailed) as caught:
        await made.prepare([files("x", b"a")])
    assert str(caught.value).startswith(message)
    assert "/" not in str(caught.value)
    if "raised" in message:
        assert "Traceback" in caplog.text


async def test_a_value_error_after_the_model_is_not_the_clients_fault(tmp_path: Path) -> None:
    made = load(tmp_path, "class Mine:\n    def postprocess(self, outputs): raise ValueError('x')")
    with pytest.raises(ModelFailed, match=r"^postprocess raised ValueError$"):
        await made.finish([output("y", np.zeros((1, 3), np.float32))], None)


async def test_an_output_that_it_does_not_make_cannot_be_asked_for(tmp_path: Path) -> None:
    code = "class Mine:\n    def postprocess(self, outputs): return {'z': [b'\\xff', b'']}"
    made = load(tmp_path, code)
    given = [output("y", np.zeros((1, 3), np.float32))]
    (z,) = await made.finish(given, ["z"])
    assert array_of(z).tolist() == [b"\xff", b""]
    with pytest.raises(InvalidInput, match='there is no output "q", expected z'):
        await made.finish(given, ["q"])


async def test_each_version_has_code_of_its_own(tmp_path: Path) -> None:
    made = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        code = f"class Mine:\n    def preprocess(self, inputs): return {{'x': [[{number}, 0]]}}"
        made.append(load(folder, code))
    found = [array_of((await one.prepare([files("x", b"")]))[0])[0, 0] for one in made]
    assert found == [1, 2]


def test_python_of_a_model_runs_only_where_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "processor.py").write_text("raise SystemExit('it ran')")
    config = load_model_config("processor: processor.py:Mine")
    with pytest.raises(ConfigError, match="start the server with --allow-handlers"):
        make_processor(MODEL, config, (tmp_path,), False)


@pytest.mark.parametrize(
    ("where", "code", "message"),
    [
        ("processor.py", "", "expected FILE.py:CLASS"),
        ("processor:Mine", "", "expected FILE.py:CLASS"),
        ("processor.py:a.b", "", "expected FILE.py:CLASS"),
        ("other.py:Mine", "", 'there is no file "other.py"'),
        ("../processor.py:Mine", "", "expected the name of a file beside the model"),
        ("processor.py:Mien", "class Mine: ...", 'has no class "Mien", did you mean "Mine"'),
        ("processor.py:Mine", "class Mine: ...", "neither preprocess nor postprocess"),
        ("processor.py:Mine", "import nothing_of_that_name", "cannot be imported: ModuleNotFound"),
        ("processor.py:Mine", "raise SystemExit", "cannot be imported: SystemExit"),
        ("processor.py:Mine", "def", "cannot be imported: SyntaxError"),
        (
            "processor.py:Mine",
            "class Mine:\n    def setup(self, context): 1 / 0",
            "cannot be set up: ZeroDivisionError",
        ),
        (
            "processor.py:Mine",
            "class Mine:\n    inputs = [{'nam': 'x'}]\n    def preprocess(self, inputs): ...",
            'unknown key "[0].nam"',
        ),
    ],
)
def test_a_class_that_cannot_be_had_is_a_config_error(
    tmp_path: Path, where: str, code: str, message: str
) -> None:
    (tmp_path / "processor.py").write_text(code)
    with pytest.raises(ConfigError) as caught:
        processor(MODEL, f"processor: {where}", tmp_path, allow_handlers=True)
    assert message in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
