"""Plain values become typed structs, with errors that a person can act on.

Every value that an operator writes (config.yaml, server.yaml, `--set`, keyword options)
enters here once and leaves as a frozen struct or as a `ConfigError` that names the key, says
what was expected and what came, and suggests the nearest known name.  What the keys mean
belongs to `config.py`.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias, TypeVar

import msgspec

from pyserve.errors import ConfigError

T = TypeVar("T")
K = TypeVar("K", bound=msgspec.inspect.Type)
# Where a value stands: keys of mappings and indexes of lists.
Place: TypeAlias = tuple[str | int, ...]

_MAX_SHOWN = 60
# Bounds from here on only keep numbers within 64 bits; no message needs them.
_NO_LIMIT = 2**62
# Values under these keys never appear in a message, which may end in a log.
_SECRET = re.compile(r"(token|secret|password)s?$")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean "x"?` for the known name closest to `name`, else ``""``."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f', did you mean "{matches[0]}"?' if matches else ""


def show(value: object) -> str:
    """`value` as an error message shows it: short, strings in quotes."""
    match value:
        case None:
            return "nothing (null)"
        case str():
            text = f'"{value}"'
        case bool():
            text = str(value).lower()
        case int() if abs(value) >= _NO_LIMIT:
            # Python refuses to print integers of some thousand digits.
            text = f"a number of {value.bit_length()} bits"
        case int() | float() | list() | tuple() | dict():
            text = repr(value)
        case _:
            text = f"an object of type {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def to_typed(value: object, type_: type[T], *, source: str) -> T:
    """Convert plain values into `type_`; anything unknown or mistyped is a `ConfigError`."""
    try:
        _check(value, msgspec.inspect.type_info(type_), (), source)
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_describe_invalid(str(error))}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply") from error


def overlay(
    base: object, changes: Mapping[tuple[str, ...], object], type_: type[T], *, source: str
) -> T:
    """Return `base` with the values at `changes`' key paths replaced, checked as a whole.

    All changes are made before anything is checked, so that two which only make sense
    together (`versions.policy` and `versions.specific`) may come in any order.
    """
    plain = msgspec.to_builtins(base)
    for path, value in changes.items():
        here = plain
        for depth, key in enumerate(path[:-1]):
            here = here.setdefault(key, {})
            if not isinstance(here, dict):
                raise ConfigError(f"{source}: {_dotted(path[: depth + 1])} has no keys of its own")
        try:
            here[path[-1]] = msgspec.to_builtins(value)
        except (TypeError, RecursionError) as error:
            raise ConfigError(f"{source}: {_dotted(path)}: cannot use {show(value)}") from error
    return to_typed(plain, type_, source=source)


def type_at(type_: type, path: tuple[str, ...], *, source: str) -> msgspec.inspect.Type:
    """Return the inspected type of the key at `path`, refusing unknown names on the way."""
    here = msgspec.inspect.type_info(type_)
    for depth, key in enumerate(path):
        group = part(here, msgspec.inspect.StructType)
        table = part(here, msgspec.inspect.DictType)
        if group is not None:
            fields = {field.encode_name: field.type for field in group.fields}
            if key not in fields:
                raise _unknown_key(path[:depth], key, fields, source)
            here = fields[key]
        elif table is not None:
            here = table.value_type
        else:
            raise ConfigError(f"{source}: {_dotted(path[:depth])} has no keys of its own")
    return here


def part(type_: msgspec.inspect.Type, kind: type[K]) -> K | None:
    """Return the part of an inspected type (itself, or one of a union) that is a `kind`."""
    types = type_.types if isinstance(type_, msgspec.inspect.UnionType) else (type_,)
    return next((one for one in types if isinstance(one, kind)), None)


def _check(value: object, type_: msgspec.inspect.Type, path: Place, source: str) -> None:
    """Refuse what `type_` does not take, in words for people; msgspec has the last word."""
    group = _group(value, type_, path, source)
    array = part(type_, msgspec.inspect.VarTupleType)
    table = part(type_, msgspec.inspect.DictType)
    if group is not None and isinstance(value, dict):
        fields = {field.encode_name: field for field in group.fields}
        for key, inner in value.items():
            if key == group.tag_field:
                continue
            if key not in fields:
                raise _unknown_key(path, key, fields, source)
            _check(inner, fields[key].type, (*path, key), source)
        missing = [name for name, field in fields.items() if field.required and name not in value]
        if missing:
            raise ConfigError(f"{source}: {_dotted(path)}: needs {', '.join(missing)}")
    elif array is not None and isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check(inner, array.item_type, (*path, index), source)
    elif table is not None and isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(
                    f"{source}: {_dotted(path)}: expected text as a key, got {show(key)}: quote it"
                )
            _check(inner, table.value_type, (*path, key), source)
    elif not _takes(type_, value):
        secret = _SECRET.search(_dotted(path)) is not None
        got = "something else" if secret else show(value)
        hint = ""
        literal = part(type_, msgspec.inspect.LiteralType)
        if literal is not None and isinstance(value, str):
            hint = nearest(value, [str(one) for one in literal.values])
        raise ConfigError(f"{source}: {_dotted(path)}: expected {_words(type_)}, got {got}{hint}")


def _group(
    value: object, type_: msgspec.inspect.Type, path: Place, source: str
) -> msgspec.inspect.StructType | None:
    """Return the struct that `value` is to become; of several kinds, the one that its tag names."""
    kinds = _kinds(type_)
    if not kinds or not isinstance(value, dict):
        return part(type_, msgspec.inspect.StructType)
    key = next(iter(kinds.values())).tag_field
    tag = value.get(key)
    if isinstance(tag, str) and tag in kinds:
        return kinds[tag]
    expected = "one of " + ", ".join(f'"{one}"' for one in kinds)
    if key not in value:
        raise ConfigError(f"{source}: {_dotted(path)}: needs {key}, {expected}")
    hint = nearest(tag, kinds) if isinstance(tag, str) else ""
    raise ConfigError(
        f"{source}: {_dotted((*path, str(key)))}: expected {expected}, got {show(tag)}{hint}"
    )


def _kinds(type_: msgspec.inspect.Type) -> dict[str, msgspec.inspect.StructType]:
    """The structs of a tagged union, by tag; none for any other type."""
    types = type_.types if isinstance(type_, msgspec.inspect.UnionType) else (type_,)
    structs = [one for one in types if isinstance(one, msgspec.inspect.StructType)]
    return {str(one.tag): one for one in structs if one.tag is not None}


def _takes(type_: msgspec.inspect.Type, value: object) -> bool:
    """Whether a single value fits; numbers within limits, true and false are no numbers."""
    for one in type_.types if isinstance(type_, msgspec.inspect.UnionType) else (type_,):
        match one:
            case msgspec.inspect.NoneType():
                fits = value is None
            case msgspec.inspect.BoolType():
                fits = isinstance(value, bool)
            case msgspec.inspect.StrType(min_length=least):
                fits = isinstance(value, str) and len(value) >= (least or 0)
            case msgspec.inspect.LiteralType(values=values):
                fits = isinstance(value, str) and value in values
            case msgspec.inspect.IntType():
                fits = isinstance(value, int) and _within(one, value) and _fits_int64(value)
            case msgspec.inspect.FloatType():
                fits = isinstance(value, int | float) and _within(one, value)
            case _:
                fits = False
        if fits:
            return True
    return False


def _fits_int64(value: int) -> bool:
    return -(2**63) <= value < 2**63


def _within(
    limits: msgspec.inspect.IntType | msgspec.inspect.FloatType, value: int | float
) -> bool:
    return not (
        isinstance(value, bool)
        or (limits.ge is not None and not value >= limits.ge)
        or (limits.gt is not None and not value > limits.gt)
        or (limits.le is not None and not value <= limits.le)
    )


def _words(type_: msgspec.inspect.Type) -> str:
    """What an inspected type takes, as a phrase after "expected"."""
    match type_:
        case msgspec.inspect.UnionType(types=types) if kinds := _kinds(type_):
            others = [_words(one) for one in types if one not in kinds.values()]
            return " or ".join([f"a mapping with kind ({', '.join(kinds)})", *others])
        case msgspec.inspect.UnionType(types=types):
            return " or ".join(_words(one) for one in types)
        case msgspec.inspect.LiteralType(values=values):
            return "one of " + ", ".join(f'"{one}"' for one in values)
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            words = "a whole number" if isinstance(type_, msgspec.inspect.IntType) else "a number"
            least, most = type_.ge, type_.le
            if type_.gt is not None:
                words += f" above {type_.gt:g}"
            if least is not None and most is not None and most < _NO_LIMIT:
                return f"{words} from {least:g} to {most:.10g}"
            return words if least is None else f"{words}, at least {least:g}"
        case msgspec.inspect.StrType(min_length=least):
            return "text that is not empty" if least else "text"
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.NoneType():
            return "null"
        case msgspec.inspect.StructType(fields=fields):
            return f"a mapping with {', '.join(field.encode_name for field in fields)}"
        case msgspec.inspect.VarTupleType(item_type=item):
            return f"a list of {_words(item).removeprefix('a ')}"
        case msgspec.inspect.DictType(value_type=inner):
            return f"a mapping of names to {_words(inner)}"
        case _:
            return type(type_).__name__


def _dotted(path: Place) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".") or "the document"


def _unknown_key(path: Place, key: object, known: Iterable[str], source: str) -> ConfigError:
    known = list(known)
    text = str(key)
    text = text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
    hint = nearest(text, known) or f"; known keys: {', '.join(known)}"
    return ConfigError(f'{source}: unknown key "{_dotted((*path, text))}"{hint}')


_LOCATED = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)


def _describe_invalid(message: str) -> str:
    """Put the place first: what is left for msgspec are the structs' own checks."""
    located = _LOCATED.fullmatch(message)
    if located is None or not located[2]:
        return message if located is None else located[1]
    return f"{located[2]}: {located[1]}"
