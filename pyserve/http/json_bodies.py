"""Small JSON bodies of the calls beside inference, as typed values."""

from typing import TypeVar

import msgspec
from aiohttp import web

from pyserve.errors import InvalidInput
from pyserve.http.bodies import read_body

_T = TypeVar("_T")


async def decode_body(request: web.BaseRequest, limit: int, kind: type[_T]) -> _T:
    """Return the body as `kind`; clients send no body, an empty one, or JSON."""
    body = await read_body(request, limit)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the body is not what was expected: {error}") from None
    except RecursionError:
        raise InvalidInput("the body is JSON that is nested too deep") from None
