"""The format of Java's `.properties` files: text becomes keys and values, all of them text."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_UNICODE = re.compile(r"[0-9a-fA-F]{4}")


def parse(text: str) -> dict[str, str]:
    """Parse the format: comments, `=`, `:` or a blank, escapes, lines that go on; the last wins."""
    found = {}
    for line in _logical_lines(text):
        at = 0
        while at < len(line) and line[at] not in "=: \t\f":
            at += 2 if line[at] == "\\" else 1
        key = line[:at]
        rest = line[at:].lstrip(" \t\f")
        if rest[:1] in ("=", ":"):
            rest = rest[1:].lstrip(" \t\f")
        found[_unescaped(key)] = _unescaped(rest)
    return found


def _logical_lines(text: str) -> Iterator[str]:
    """Join lines that end in an odd number of backslashes with the next one."""
    joined = ""
    for line in re.split(r"\r\n|\r|\n", text):
        stripped = line.lstrip(" \t\f")
        if not joined and (not stripped or stripped[0] in "#!"):
            continue
        joined += stripped
        if (len(joined) - len(joined.rstrip("\\"))) % 2:
            joined = joined[:-1]
            continue
        if joined:
            yield joined
        joined = ""
    if joined:
        yield joined


def _unescaped(text: str) -> str:
    pieces = []
    at = 0
    while at < len(text):
        if text[at] != "\\" or at + 1 == len(text):
            pieces.append(text[at])
            at += 1
        elif text[at + 1] == "u" and _UNICODE.match(text, at + 2):
            pieces.append(chr(int(text[at + 2 : at + 6], 16)))
            at += 6
        else:
            pieces.append(_ESCAPES.get(text[at + 1], text[at + 1]))
            at += 2
    return "".join(pieces)
