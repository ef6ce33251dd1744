"""Forms as browsers and command lines send them: multipart and urlencoded bodies become fields."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, MultipartReader, StreamReader, hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError

from pyserve.errors import InvalidInput
from pyserve.torchserve.inputs import Field

MAX_FIELDS = 64
# Above this many bytes, a form is taken apart in a thread, on a loop of that thread's own.
_INLINE_BYTES = 64 << 10
# What aiohttp raises at a form that is none, or is damaged.
_DAMAGED = (ValueError, RuntimeError, AssertionError, OSError, LookupError, HttpProcessingError)
_URLENCODED = "application/x-www-form-urlencoded"


async def read_fields(body: bytes, content_type: str) -> dict[str, Field]:
    """Return the fields of a form by name; a body that is no form is the field `body`."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        if len(body) > _INLINE_BYTES:
            return await asyncio.to_thread(asyncio.run, _multipart(body, content_type))
        return await _multipart(body, content_type)
    if kind == _URLENCODED:
        return _urlencoded(body)
    return {"body": Field(body, kind)} if body else {}


def _urlencoded(body: bytes) -> dict[str, Field]:
    """Take `a=1&b=2` apart; JSON is a body that curl calls a form by habit."""
    if b"=" not in body or body.lstrip()[:1] in (b"{", b"["):
        return {"body": Field(body)} if body else {}
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise InvalidInput(f"the form cannot be read: {error}") from None
    return dict(_once((name, Field(value.encode())) for name, value in pairs))


async def _multipart(body: bytes, content_type: str) -> dict[str, Field]:
    stream = StreamReader(BaseProtocol(asyncio.get_running_loop()), 1 << 30)
    stream.feed_data(body)
    stream.feed_eof()
    found: list[tuple[str, Field]] = []
    try:
        reader = MultipartReader({hdrs.CONTENT_TYPE: content_type}, stream)
        while (part := await reader.next()) is not None:
            if len(found) == MAX_FIELDS:
                raise InvalidInput(f"the form has more than {MAX_FIELDS} fields")
            if not isinstance(part, BodyPartReader):
                raise InvalidInput("the form has a form inside of it")
            kind = part.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
            found.append((part.name or "body", Field(bytes(await part.read()), kind)))
    except _DAMAGED as error:
        reason = str(error)[:200] or type(error).__name__
        raise InvalidInput(f"the multipart form cannot be read: {reason}") from None
    return dict(_once(iter(found)))


def _once(fields: Iterator[tuple[str, Field]]) -> Iterator[tuple[str, Field]]:
    seen = set()
    for name, field in fields:
        if name in seen:
            raise InvalidInput(f'the form has the field "{name[:64]}" twice')
        seen.add(name)
        yield name, field
