"""Text: token ids by a tokenizer beside the model."""

from pathlib import Path

import pytest
from processing_model import Described, files, prepared, processor, takes
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pyserve.errors import ConfigError, InvalidInput
from pyserve.signature import TensorSpec

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "quick", "brown", "fox"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer of eight words."""
    tokenizer = Tokenizer(models.WordLevel({one: i for i, one in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def bert(length: int = -1, dtype: str = "INT64") -> Described:
    names = ("input_ids", "attention_mask", "token_type_ids")
    return Described(tuple(TensorSpec(name, dtype, (length,)) for name in names))


async def test_one_text_becomes_all_that_the_model_takes(folder: Path) -> None:
    made = processor(bert(), "preprocess: [{kind: text}]", folder)
    found = await prepared(made, "text", b"the quick fox", "the größe".encode())
    assert {name: value.tolist() for name, value in found.items()} == {
        "input_ids": [[2, 4, 5, 7, 3], [2, 4, 1, 3, 0]],
        "attention_mask": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]],
        "token_type_ids": [[0] * 5, [0] * 5],
    }
    assert [spec.name for spec in made.inputs] == ["text"]


async def test_rows_are_padded_to_a_fixed_length_and_cut_there(folder: Path) -> None:
    made = processor(bert(4, "INT32"), "preprocess: [{kind: text}]", folder)
    found = await prepared(made, "text", b"", b"the quick brown fox " * 1000)
    assert found["input_ids"].tolist() == [[2, 3, 0, 0], [2, 4, 5, 3]]
    assert found["input_ids"].dtype == "int32"


async def test_names_multiple_and_special_tokens_are_as_configured(folder: Path) -> None:
    made = processor(
        takes("tokens", "INT64", -1),
        "preprocess: [{kind: text, input: query, ids: tokens, special_tokens: false, "
        "pad_to_multiple_of: 4, max_length: 6}]",
        folder,
    )
    assert (await prepared(made, "query", b"fox"))["tokens"].tolist() == [[7, 0, 0, 0]]
    long = await prepared(made, "query", b"fox fox fox fox fox")
    assert long["tokens"].tolist() == [[7, 7, 7, 7, 7, 0]]


async def test_a_request_of_no_rows_is_no_fault(folder: Path) -> None:
    made = processor(bert(), "preprocess: [{kind: text}]", folder)
    assert (await prepared(made, "text"))["input_ids"].shape == (0, 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe", 'input "text", element 1: not UTF-8'),
        (b"a" * ((1 << 20) + 1), "element 1: 1048577 bytes, at most 1048576 are read"),
    ],
)
async def test_what_is_no_text_is_refused(folder: Path, data: bytes, message: str) -> None:
    made = processor(bert(), "preprocess: [{kind: text}]", folder)
    with pytest.raises(InvalidInput, match=message):
        await prepared(made, "text", b"fox", data)


async def test_text_of_another_datatype_is_refused(folder: Path) -> None:
    made = processor(bert(), "preprocess: [{kind: text}]", folder)
    with pytest.raises(InvalidInput, match='input "text" has datatype INT64, expected BYTES'):
        await made.prepare([files("text", b"a")._replace(datatype="INT64")])


async def test_the_versions_own_tokenizer_stands_before_the_models(folder: Path) -> None:
    version = folder / "1"
    version.mkdir()
    made = processor(bert(), "preprocess: [{kind: text}]", version, folder)
    assert made.preprocess == ("text",)
    (version / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r'"tokenizer.json" is no tokenizer of Hugging Face'):
        processor(bert(), "preprocess: [{kind: text}]", version, folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.json", 'there is no file "missing.json"'),
        ("../tokenizer.json", "expected the name of a file beside the model"),
        ("/etc/hostname", "expected the name of a file beside the model"),
        ("link.json", "there is no file"),
    ],
)
def test_a_tokenizer_is_only_looked_for_beside_the_model(
    folder: Path, name: str, message: str
) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (inner / "link.json").symlink_to(folder / "tokenizer.json")
    with pytest.raises(ConfigError, match=message) as caught:
        processor(bert(), f"preprocess: [{{kind: text, tokenizer: {name}}}]", inner)
    assert str(folder) not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (bert(8), "max_length: 9", "max_length 9 does not fit the inputs"),
        (bert(8), "padding: longest", "these have a fixed one"),
        (bert(), "ids: input_idz", 'no input "input_idz", did you mean "input_ids"'),
        (bert(), "max_length: 1", "max_length 1 leaves no room"),
        (takes("input_ids", "FP32", -1), "max_length: 9", "is FP32, expected INT64 or INT32"),
    ],
)
def test_a_step_that_does_not_fit_the_model_is_a_config_error(
    folder: Path, model: Described, options: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        processor(model, f"preprocess: [{{kind: text, {options}}}]", folder)
