"""YAML as configuration files need it: plain values only, nothing given twice.

Wraps PyYAML's safe loader; whatever is wrong with the text becomes a `ConfigError` that
opens with where it came from and tells the line.  What the values mean is for `typed.py`.
"""

from pathlib import Path

import yaml

from pyserve.errors import ConfigError

MAX_YAML_BYTES = 1 << 20
# PyYAML's constructors let these escape on odd tags and numbers (`!!bool x`, `!!int ""`).
_YAML_FAULTS = (
    yaml.YAMLError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that also refuses duplicate keys and aliases.

    A duplicate key would silently win or lose.  Aliases let a few lines unfold into
    gigabytes or contain themselves, and no configuration here needs them.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not accepted here", self.get_mark()
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[tuple[str, str]] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            key = (key_node.tag, key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'key "{key_node.value}" is given twice', key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse(text: str | bytes, *, source: str) -> object:
    """Parse one YAML document; `source` (a file or option) opens every error message."""
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(
            f"{source}: {len(text)} bytes is too long, expected at most {MAX_YAML_BYTES}"
        )
    try:
        if isinstance(text, bytes):
            text = text.decode()
        loader = _StrictLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except _YAML_FAULTS as error:
        raise ConfigError(f"{source}: not valid YAML: {_describe(error)}") from error


def parse_mapping(text: str | bytes, *, source: str) -> dict[str, object]:
    """Parse a YAML document that must be a mapping; an empty document is an empty one."""
    value = parse(text, source=source)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{source}: expected a mapping of keys to values, got {type(value).__name__}"
        )
    return value


def read_text(path: Path, *, source: str) -> bytes:
    """Read a configuration file; one that cannot be read is a `ConfigError`."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{source}: cannot be read: {error.strerror or type(error).__name__}"
        ) from error


def _describe(error: BaseException) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        return f"{error.problem or error.context}{where}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, yaml.YAMLError | UnicodeDecodeError):
        return str(error).partition("\n")[0]
    return "a value does not fit its tag"
