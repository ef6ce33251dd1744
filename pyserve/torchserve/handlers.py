"""A handler's name becomes processing in the words of `config.yaml`.

TorchServe's default handlers are known here; what an archive brings along is adapted by
`custom.py`, where the server allows it.  Whatever has no counterpart is refused in words.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath
from typing import NamedTuple

from pyserve.errors import ConfigError
from pyserve.torchserve.faults import BadArchive
from pyserve.typed import show

INDEX_TO_NAME = "index_to_name.json"
TOKENIZER = "tokenizer.json"
ADAPTER = "pyserve_handler.py"
"""The file that `custom.py` is called by; written beside the model."""

# What torchvision's classifiers were trained on, and TorchServe's handlers prepare.
_IMAGE: dict[str, object] = {
    "kind": "image",
    "resize": 256,
    "crop": 224,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
_PICTURE = {"name": "data", "dtype": "FP32", "shape": [3, 224, 224]}
_CLASSES = {"name": "output", "dtype": "FP32", "shape": [-1]}
_ALL_CLASSES = 1 << 16

_EXPORT = (
    "export the model with pyserve.export, which writes its signature into the TorchScript file, "
    "and archive that"
)


class Mapping(NamedTuple):
    """What a handler is here.

    kind: the default handler's name, or "custom".  config: keys for `config.yaml`.
    adapter: text of the file ADAPTER, empty where none is needed.
    """

    kind: str
    config: dict[str, object]
    adapter: str = ""


def map_handler(
    handler: str, files: Collection[str], *, signed: bool, allow_handlers: bool
) -> Mapping:
    """Return what `handler` of a manifest is here; BadArchive where it has no counterpart.

    files: the names in the archive.  signed: whether the model file carries its signature.
    """
    kind, file, entry = _parts(handler, files)
    if file:
        return _custom(file, entry, files, allow_handlers)
    labels: dict[str, object] = {"class_labels": INDEX_TO_NAME} if INDEX_TO_NAME in files else {}
    match kind:
        case "base_handler":
            return Mapping(kind, labels)
        case "image_classifier":
            config = {
                **labels,
                "preprocess": [_IMAGE],
                "postprocess": [{"kind": "classification", "top": 5}],
            }
            if not signed:
                config |= {"inputs": [_PICTURE], "outputs": [_CLASSES]}
            return Mapping(kind, config)
        case "image_segmenter":
            declared = {} if signed else {"inputs": [_PICTURE]}
            return Mapping(kind, {**labels, **declared, "preprocess": [_IMAGE]})
        case "text_classifier":
            return Mapping(kind, {**labels, **_text(files, signed)})
        case "object_detector":
            raise BadArchive(
                "the handler object_detector has no counterpart: its models take a list of "
                "pictures; export one that takes a tensor, with the handler base_handler"
            )
    raise BadArchive(f"there is no handler {show(kind)}, neither in the archive nor built in")


def _parts(handler: str, files: Collection[str]) -> tuple[str, str, str]:
    """Return the name of a default handler; or file and entry point of one in the archive."""
    path, _, entry = (handler or "base_handler").partition(":")
    name = PurePosixPath(path).name
    stem = name.removesuffix(".py")
    file = f"{stem}.py"
    return (stem, file, entry) if file in files else (stem, "", "")


def _text(files: Collection[str], signed: bool) -> dict[str, object]:
    if TOKENIZER not in files:
        raise BadArchive(
            "the handler text_classifier needs a tokenizer here: add the tokenizer.json of Hugging "
            "Face's tokenizers with --extra-files; a vocabulary of torchtext cannot be read"
        )
    if not signed:
        raise BadArchive(f"the handler text_classifier needs to know the model's inputs: {_EXPORT}")
    return {
        "preprocess": [{"kind": "text", "input": "data", "tokenizer": TOKENIZER}],
        "postprocess": [{"kind": "classification", "top": _ALL_CLASSES}],
    }


def _custom(file: str, entry: str, files: Collection[str], allow_handlers: bool) -> Mapping:
    if not allow_handlers:
        raise BadArchive(
            f"it brings a handler of its own, {file}, which is Python code: start the server with "
            "--allow-handlers to run it, if you trust it"
        )
    if entry and not entry.isidentifier():
        raise BadArchive(f"handler: expected FILE.py or FILE.py:NAME, got {show(entry)} as NAME")
    if ADAPTER in files:
        raise BadArchive(f"it has a file {ADAPTER}, a name that is needed here")
    adapter = (
        f'"""Written by pyserve: runs {file} of this archive."""\n\n'
        "from pyserve.torchserve.custom import adapter\n\n"
        f"Processor = adapter(__file__, {file!r}, {entry!r})\n"
    )
    config: dict[str, object] = {"processor": f"{ADAPTER}:Processor"}
    if INDEX_TO_NAME in files:
        config["class_labels"] = INDEX_TO_NAME
    return Mapping("custom", config, adapter)


def check_mapping(name: str, first: Mapping, other: Mapping) -> None:
    """Raise ConfigError where two versions of a model would need different configurations."""
    if first.config != other.config:
        raise ConfigError(
            f'the versions of "{name}" that are registered need other processing '
            f"({first.kind}) than this one ({other.kind}): give it a name of its own"
        )
