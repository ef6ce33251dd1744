"""Postprocessing: classes with names, probabilities, indexes; and which outputs are asked for."""

import numpy as np
import pytest
from processing_model import Array, Described, array_of, output, processor, strings, takes

from pyserve.errors import ConfigError, InvalidInput
from pyserve.messages import OutputTensor
from pyserve.processing.arrays import to_bytes
from pyserve.signature import TensorSpec

LOGITS = np.array([[1.0, 3.0, 2.0], [0.0, 0.0, -1.0]], np.float32)
LABELS = ("cat", "", "fox")
PETS = Described(
    (TensorSpec("x", "FP32", (2,)),), (TensorSpec("logits", "FP32", (3,)),), class_labels=LABELS
)
TWO = Described(
    PETS.inputs, (TensorSpec("logits", "FP32", (3,)), TensorSpec("hidden", "FP32", (5,)))
)


def softmax(values: Array) -> Array:
    powers = np.exp(values.astype(np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


async def test_classes_come_best_first_with_their_names() -> None:
    made = processor(PETS, "postprocess: [{kind: classification, top: 2}]")
    assert made.outputs == (
        TensorSpec("labels", "BYTES", (2,)),
        TensorSpec("scores", "FP32", (2,)),
    )
    labels, scores = await made.finish([output("logits", LOGITS)], None)
    assert (labels.name, labels.shape) == ("labels", (2, 2))
    assert strings(labels) == ["1", "fox", "cat", "1"]  # a class without a name is its index
    expected = np.take_along_axis(softmax(LOGITS), np.array([[1, 2], [0, 1]]), axis=1)
    np.testing.assert_allclose(array_of(scores), expected, rtol=1e-6)


async def test_there_are_no_more_classes_than_the_model_has() -> None:
    made = processor(PETS, "postprocess: [{kind: classification, softmax: false}]")
    assert made.outputs[0].shape == (3,)
    labels, scores = await made.finish([output("logits", LOGITS)], None)
    assert array_of(scores).tolist() == [[3, 2, 1], [0, 0, -1]]
    assert labels.shape == (2, 3)


async def test_the_models_own_outputs_can_still_be_asked_for() -> None:
    made = processor(TWO, "postprocess: [{kind: classification, output: logits}]")
    assert [spec.name for spec in made.outputs] == ["labels", "scores", "hidden"]
    assert made.model_outputs(None) is None
    assert made.model_outputs(["scores", "labels"]) == ["logits"]
    assert made.model_outputs(["hidden", "scores"]) == ["hidden", "logits"]
    raw = [output("logits", LOGITS)]
    assert await made.finish(raw, ["logits"]) == raw
    both = await made.finish(raw, ["scores", "logits"])
    assert [one.name for one in both] == ["scores", "logits"]
    with pytest.raises(InvalidInput, match='there is no output "score", did you mean "scores"'):
        made.model_outputs(["score"])


@pytest.mark.parametrize("dtype", ["FP32", "FP16", "BF16", "FP64"])
async def test_softmax_takes_the_place_of_its_output(dtype: str) -> None:
    model = Described(PETS.inputs, (TensorSpec("logits", dtype, (3,)),))
    made = processor(model, "postprocess: [{kind: softmax}]")
    assert made.outputs == (TensorSpec("logits", "FP32", (3,)),)
    kind = {"FP16": np.float16, "FP64": np.float64}.get(dtype, np.float32)
    given = OutputTensor("logits", dtype, LOGITS.shape, to_bytes(dtype, LOGITS.astype(kind)))
    (found,) = await made.finish([given], None)
    assert found.datatype == "FP32"
    np.testing.assert_allclose(array_of(found), softmax(LOGITS), rtol=1e-5)


async def test_large_values_do_not_overflow() -> None:
    made = processor(PETS, "postprocess: [{kind: softmax, name: p}]")
    (found,) = await made.finish([output("logits", LOGITS * 1e30)], None)
    assert array_of(found)[0].tolist() == [0, 1, 0]
    assert found.name == "p"


async def test_argmax_is_an_index_for_each_row_or_position() -> None:
    made = processor(PETS, "postprocess: [{kind: argmax, name: best}]")
    assert made.outputs == (TensorSpec("best", "INT64", ()),)
    (found,) = await made.finish([output("logits", LOGITS)], None)
    assert array_of(found).tolist() == [1, 0]


async def test_an_answer_of_no_rows_is_no_fault() -> None:
    none = [output("logits", np.zeros((0, 3), np.float32))]
    for step in ("classification", "softmax", "argmax"):
        made = processor(PETS, f"postprocess: [{{kind: {step}}}]")
        assert all(one.shape[0] == 0 for one in await made.finish(none, None))


@pytest.mark.parametrize(
    ("model", "step", "message"),
    [
        (PETS, "kind: classification, output: logit", 'no output "logit", did you mean "logits"'),
        (TWO, "kind: classification", "several outputs \\(logits, hidden\\): needs output"),
        (TWO, "kind: softmax, output: logits, name: hidden", 'two outputs are named "hidden"'),
        (
            Described(PETS.inputs, (TensorSpec("y", "FP32", (2,)),), class_labels=LABELS),
            "kind: classification",
            "there are 3 class labels",
        ),
        (Described(PETS.inputs, (TensorSpec("y", "FP32", ()),)), "kind: argmax", "needs classes"),
        (Described(PETS.inputs, (TensorSpec("y", "BYTES", (2,)),)), "kind: argmax", "is BYTES"),
        (PETS, "kind: classification, labels: x, scores: x", 'both named "x"'),
    ],
)
def test_a_step_that_does_not_fit_the_model_is_a_config_error(
    model: Described, step: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        processor(model, f"postprocess: [{{{step}}}]")


async def test_a_model_without_postprocessing_answers_with_its_own_outputs() -> None:
    made = processor(takes("x", "FP32", 2), "preprocess: [{kind: json}]")
    given = [output("y", LOGITS)]
    assert await made.finish(given, None) is given
    assert made.model_outputs(["y"]) == ["y"]
