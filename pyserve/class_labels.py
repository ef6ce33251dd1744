"""The names of a model's classes: a list in its configuration, or a file that lies beside it.

A file is text with one name per line, or JSON: a list of names, or a mapping of an index to a name
or to `[id, name]`, as TorchServe's `index_to_name.json` has it.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyserve.beside import find_beside
from pyserve.errors import ConfigError
from pyserve.typed import show

MAX_FILE_BYTES = 16 << 20
MAX_CLASSES = 1 << 20


def read_class_labels(spec: str | Sequence[str] | None, folders: Iterable[Path]) -> tuple[str, ...]:
    """Return the names by index; a class without one has an empty name.

    `spec` is the list itself, or the name of a file in one of the `folders`, of which the first
    that has it counts.  Raises ConfigError; what it says names no folder.
    """
    if spec is None:
        return ()
    if not isinstance(spec, str):
        return tuple(spec)
    try:
        path = find_beside(spec, folders)
    except ConfigError as error:
        raise ConfigError(f"class_labels: {error.message}") from None
    text = _text(spec, path)
    if text.lstrip()[:1] in ("[", "{"):
        return _from_json(spec, text)
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)


def _text(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError(f"class_labels: {show(name)} has more than {MAX_FILE_BYTES} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"class_labels: {show(name)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"class_labels: {show(name)} is not UTF-8") from error


def _from_json(name: str, text: str) -> tuple[str, ...]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"class_labels: {show(name)} is not valid JSON: {reason}") from error
    if isinstance(value, list):
        return tuple(_label(name, str(index), one) for index, one in enumerate(value))
    names: dict[int, str] = {}
    for key, one in value.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < MAX_CLASSES):
            raise ConfigError(
                f"class_labels: {show(name)}: expected the index of a class as key, got {show(key)}"
            )
        names[int(key)] = _label(name, key, one)
    return tuple(names.get(index, "") for index in range(max(names, default=-1) + 1))


def _label(name: str, index: str, value: object) -> str:
    if isinstance(value, list) and len(value) == 2:
        value = value[1]
    if not isinstance(value, str):
        raise ConfigError(
            f"class_labels: {show(name)}: class {index}: expected a name, or [id, name], "
            f"got {show(value)}"
        )
    return value
