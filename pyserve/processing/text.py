"""Text becomes token ids, by the tokenizer file that lies beside the model.

Rows are padded here and not by the tokenizer, whose padding would be state that requests share.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from pyserve.beside import find_beside
from pyserve.errors import ConfigError
from pyserve.messages import InputTensor
from pyserve.process_config import TextInput
from pyserve.processing.limits import MAX_TEXT_BYTES
from pyserve.processing.steps import ServedModel, Target, bad_element, target_of

DEFAULT_MAX_LENGTH = 512

_DTYPES = ("INT64", "INT32")
# What models call these inputs, if the configuration does not say.
_USUAL = {"ids": "input_ids", "mask": "attention_mask", "type_ids": "token_type_ids"}
_PAD_TOKENS = ("[PAD]", "<pad>", "<|pad|>")


class TextStep:
    """Makes ids, and mask and type ids where the model takes them, of one input of text."""

    kind = "text"

    def __init__(self, config: TextInput, model: ServedModel, folders: Sequence[Path]) -> None:
        self.input = config.input
        given = {"ids": config.ids, "mask": config.mask, "type_ids": config.type_ids}
        known = {spec.name for spec in model.inputs}
        names = {
            what: name or usual
            for (what, name), usual in zip(given.items(), _USUAL.values(), strict=True)
            if name is not None or what == "ids" or usual in known
        }
        if config.ids is None and names["ids"] not in known and len(model.inputs) == 1:
            names["ids"] = model.inputs[0].name
        self._parts: dict[str, Target] = {
            what: target_of(model, name, ranks=(1,), dtypes=_DTYPES) for what, name in names.items()
        }
        self.targets = tuple(self._parts.values())
        self._tokenizer = _read(config.tokenizer, folders)
        self._special_tokens = config.special_tokens
        self._multiple = config.pad_to_multiple_of
        self._pad_id, self._pad_type_id = _pad_ids(self._tokenizer)
        self._max_length = self._limit(config)
        fixed = any(target.shape != (-1,) for target in self.targets)
        padding = config.padding or ("max_length" if fixed else "longest")
        if fixed and padding == "longest":
            raise ConfigError("padding: longest needs inputs of any length, these have a fixed one")
        self._padded = padding == "max_length"
        self._tokenizer.no_padding()
        special = self._tokenizer.num_special_tokens_to_add(False) if self._special_tokens else 0
        if special >= self._max_length:
            raise ConfigError(
                f"max_length {self._max_length} leaves no room beside {special} special tokens"
            )
        self._tokenizer.enable_truncation(self._max_length)

    def prepare(self, elements: Sequence[memoryview]) -> list[InputTensor]:
        """Tokenize each element and pad all to one length."""
        encodings = []
        for index, element in enumerate(elements):
            if len(element) > MAX_TEXT_BYTES:
                raise bad_element(
                    self.input, index, f"{len(element)} bytes, at most {MAX_TEXT_BYTES} are read"
                )
            try:
                text = str(element, "utf-8")
            except UnicodeDecodeError:
                raise bad_element(self.input, index, "not UTF-8") from None
            encodings.append(self._tokenizer.encode(text, add_special_tokens=self._special_tokens))
        longest = max((len(one) for one in encodings), default=0)
        length = self._max_length if self._padded else self._rounded(longest)
        tensors = []
        for what, target in self._parts.items():
            target.check_size(len(elements), (length,))
            fill = {"ids": self._pad_id, "mask": 0, "type_ids": self._pad_type_id}[what]
            rows = np.full((len(elements), length), fill, np.int64)
            for row, encoding in zip(rows, encodings, strict=True):
                values = {
                    "ids": encoding.ids,
                    "mask": encoding.attention_mask,
                    "type_ids": encoding.type_ids,
                }[what]
                row[: len(values)] = values
            tensors.append(target.tensor(rows))
        return tensors

    def _rounded(self, longest: int) -> int:
        return min(-(-longest // self._multiple) * self._multiple, self._max_length)

    def _limit(self, config: TextInput) -> int:
        """Return the most tokens of a row: as said, as the model has it, or as the file says."""
        fixed = {target.shape[0] for target in self.targets} - {-1}
        if len(fixed) > 1 or (config.max_length and fixed and fixed != {config.max_length}):
            shapes = ", ".join(f"{one.name} {list(one.shape)}" for one in self.targets)
            raise ConfigError(f"max_length {config.max_length} does not fit the inputs: {shapes}")
        truncation = self._tokenizer.truncation or {}
        own = truncation.get("max_length")
        return config.max_length or next(iter(fixed), None) or own or DEFAULT_MAX_LENGTH


def _read(name: str, folders: Sequence[Path]) -> Tokenizer:
    path = find_beside(name, folders)
    try:
        return Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # the library raises plain exceptions
        reason = str(error).partition("\n")[0]
        raise ConfigError(f'"{name}" is no tokenizer of Hugging Face\'s: {reason}') from None


def _pad_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """Return what padding is made of: as the file says, else the usual token, else 0."""
    padding = tokenizer.padding
    if padding is not None:
        return int(padding["pad_id"]), int(padding["pad_type_id"])
    found = (tokenizer.token_to_id(token) for token in _PAD_TOKENS)
    return next((one for one in found if one is not None), 0), 0
