"""`preprocess` and `postprocess` in a config.yaml: kinds, keys, and slips told apart."""

import re
from pathlib import Path

import msgspec
import pytest

from pyserve.config import ModelConfig, apply_settings, load_model_config
from pyserve.errors import ConfigError
from pyserve.process_config import (
    ClassificationOutput,
    ImageInput,
    Postprocess,
    Preprocess,
    TextInput,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "processing.md").read_text()


def test_each_kind_is_a_value_of_its_own() -> None:
    config = load_model_config(
        "preprocess: [{kind: image, resize: [4, 5], crop: 3, std: [1, 0.5, 2]}, {kind: text}]\n"
        "postprocess: [{kind: classification, top: 1}]\nprocessor: a.py:B\n"
    )
    assert config.preprocess == (
        ImageInput(resize=(4, 5), crop=3, std=(1, 0.5, 2)),
        TextInput(),
    )
    assert config.postprocess == (ClassificationOutput(top=1),)
    assert config.processor == "a.py:B"


def test_a_setting_gives_the_whole_list() -> None:
    before = load_model_config("preprocess: [{kind: text}]\ndevice: cpu\n")
    config = apply_settings(before, ["preprocess=[{kind: image, crop: 8}]"], "m")
    assert config.preprocess == (ImageInput(crop=8),)
    assert apply_settings(before, ["warmup=false"], "m").preprocess == before.preprocess


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preprocess: [{input: x}]", 'preprocess[0]: needs kind, one of "image", "audio"'),
        (
            "preprocess: [{kind: imag}]",
            'preprocess[0].kind: expected one of "image", "audio", "text", "numpy", "table", '
            '"json", got "imag", did you mean "image"?',
        ),
        ("preprocess: [{kind: [image]}]", "preprocess[0].kind: expected one of"),
        ("postprocess: [{kind: image}]", 'expected one of "classification", "softmax", "argmax"'),
        (
            "preprocess: [{kind: text}, {kind: image, resiz: 3}]",
            'unknown key "preprocess[1].resiz", did you mean "resize"?',
        ),
        ("preprocess: [image]", "preprocess[0]: expected a mapping with kind (image, audio, text,"),
        ("preprocess: {kind: image}", "preprocess: expected a list of mapping with kind"),
        ("preprocess: [{kind: image, resize: [1]}]", "resize: expected one number, or [height,"),
        ("preprocess: [{kind: image, crop: 0}]", "crop: expected a whole number from 1 to"),
        ("preprocess: [{kind: image, std: [1, 0]}]", "std: expected numbers other than 0"),
        ("preprocess: [{kind: image, mode: rgb}]", "mode: expected one of"),
        ("preprocess: [{kind: image, max_pixels: 99999999999}]", "max_pixels: expected a whole"),
        ("preprocess: [{kind: audio, sample_rate: 10}]", "sample_rate: expected a whole number"),
        ("preprocess: [{kind: table, delimiter: ab}]", "delimiter: expected one character"),
        ("preprocess: [{kind: table, columns: [a, a]}]", "columns: a name is given twice"),
        ("preprocess: [{kind: table, columns: [a], header: false}]", "need header: true"),
    ],
)
def test_a_slip_is_told_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_model_config(text, name="m")
    assert message in str(caught.value)
    assert str(caught.value).startswith("m: config.yaml: ")


def test_steps_survive_the_way_through_plain_values() -> None:
    config = load_model_config("preprocess: [{kind: image, resize: [4, 5]}, {kind: json}]")
    assert msgspec.convert(msgspec.to_builtins(config), ModelConfig) == config


def test_the_page_names_every_kind_and_key() -> None:
    missing = []
    for step in (*Preprocess.__args__, *Postprocess.__args__):
        kind = msgspec.inspect.type_info(step)
        assert isinstance(kind, msgspec.inspect.StructType)
        for word in (str(kind.tag), *(field.name for field in kind.fields)):
            if not re.search(rf"`{word}[`:]", PAGE):
                missing.append(word)
    assert missing == []
