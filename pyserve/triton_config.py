"""Configurations in Triton's words: a load request's `config`, and a model's `config.pbtxt`."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from pyserve import strict_yaml, typed
from pyserve.config import ModelConfig
from pyserve.errors import ConfigError, InvalidInput
from pyserve.triton_model import REFUSED, TRITON_KEYS, Key, translate

CONFIG_PBTXT = "config.pbtxt"

_OWN_KEYS = frozenset(ModelConfig.__struct_fields__)
_UNKNOWN_FIELD = re.compile(r'has no field named "(\w+)"')
_PLAIN_FILE = re.compile(r"(?!\.)[^/\\\0]+")

_logger = logging.getLogger(__name__)


def load_changes(parameters: Mapping[str, object]) -> dict[Key, object]:
    """Return what the parameters of a load request change; InvalidInput for what is not taken."""
    for name in parameters:
        if name.startswith("file:"):
            raise InvalidInput(
                "model files are not taken from a request: put them into the model repository and "
                "load the model by name"
            )
        if name != "config":
            raise InvalidInput(
                f'a load request has no parameter {typed.show(name)}, expected "config"'
            )
    text = parameters.get("config")
    if text is None:
        return {}
    if not isinstance(text, str):
        raise InvalidInput("config: expected the model's configuration as text that is JSON")
    return changes_from_json(text)


def check_unload(parameters: Mapping[str, object]) -> None:
    """Refuse what an unload request may not say.  No model depends on another here."""
    for name in parameters:
        if name != "unload_dependents":
            raise InvalidInput(
                f"an unload request has no parameter {typed.show(name)}, expected "
                '"unload_dependents"'
            )


def changes_from_json(text: str) -> dict[Key, object]:
    """Return what a configuration in JSON changes, by the keys of `config.yaml`.

    It may be Triton's ModelConfig, or have the keys of `config.yaml`.  What has no counterpart is
    told to the log; InvalidInput for what is unknown, wrong or cannot be honoured.
    """
    try:
        plain = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"config is not valid JSON: {error}") from None
    if not isinstance(plain, dict):
        raise InvalidInput("config: expected an object")
    own = {name: plain.pop(name) for name in _OWN_KEYS - TRITON_KEYS if name in plain}
    for name in plain:
        if name not in TRITON_KEYS:
            hint = typed.nearest(name, TRITON_KEYS | _OWN_KEYS)
            raise InvalidInput(f"config: unknown key {typed.show(name)}{hint}")
    try:
        changes: dict[Key, object] = {}
        for name, value in own.items():
            changes |= _flattened(name, value)
        translated = translate(plain, source="config")
    except ConfigError as error:
        raise InvalidInput(error.message) from None
    if translated.model_file not in ("", "model.pt"):
        raise InvalidInput(
            "config: default_model_filename cannot be changed by a request, only in config.pbtxt"
        )
    for note in translated.notes:
        _logger.warning("load request: %s", note)
    return changes | translated.changes


def _flattened(name: str, value: object) -> dict[Key, object]:
    """Return a group's keys one by one, so that the others keep their values."""
    if name in ("batching", "instances", "queue", "versions") and isinstance(value, dict):
        for key in value:
            typed.type_at(ModelConfig, (name, str(key)), source="config")
        return {(name, str(key)): one for key, one in value.items()}
    return {(name,): value}


class Pbtxt(NamedTuple):
    """What a `config.pbtxt` says; `model_file`: the file in a version's folder, empty for ours."""

    config: ModelConfig
    model_file: str
    notes: tuple[str, ...]


def read_pbtxt(path: Path, *, name: str) -> Pbtxt:
    """Read the `config.pbtxt` of model `name`; ConfigError for what cannot be honoured."""
    # Protobuf only where there is such a file.
    from google.protobuf import json_format, text_format

    from pyserve.protos import message

    source = f"{name}: {CONFIG_PBTXT}"
    content = strict_yaml.read_text(path, source=source)
    if len(content) > strict_yaml.MAX_YAML_BYTES:
        raise ConfigError(f"{source}: expected at most {strict_yaml.MAX_YAML_BYTES} bytes")
    parsed = message("inference.ModelConfig")()
    try:
        text_format.Parse(content.decode(), parsed)
    except UnicodeDecodeError:
        raise ConfigError(f"{source}: not UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None
    except text_format.ParseError as error:
        raise ConfigError(f"{source}: {_reason(str(error))}") from None
    plain = json_format.MessageToDict(parsed, preserving_proto_field_name=True)
    translated = translate(plain, source=source)
    if translated.name not in ("", name):
        raise ConfigError(
            f"{source}: name is {typed.show(translated.name)}, the folder is {typed.show(name)}"
        )
    model_file = translated.model_file
    if model_file and not _PLAIN_FILE.fullmatch(model_file):
        raise ConfigError(
            f"{source}: default_model_filename is {typed.show(model_file)}, expected the name of a "
            "file in the version's folder"
        )
    # Unlike ours, Triton's default is a model without a batch dimension.
    changes = {("batching", "max_batch_size"): 0, **translated.changes}
    config = typed.overlay(ModelConfig(), changes, ModelConfig, source=source)
    notes = tuple(f"{CONFIG_PBTXT}: {note}" for note in translated.notes)
    return Pbtxt(config, model_file, notes)


def _reason(message: str) -> str:
    """Say what protobuf has against a text: most often, that it does not know a field."""
    unknown = _UNKNOWN_FIELD.search(message)
    if unknown is None:
        return message.partition("\n")[0]
    name = unknown[1]
    return f"{name}: {REFUSED[name]}" if name in REFUSED else f'"{name}" is not understood here'
