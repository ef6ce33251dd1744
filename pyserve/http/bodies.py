"""Request bodies: read whole, under the limit, inflated where the client compressed them.

The limit holds for what arrives and for what it expands to, and is checked before memory is
spent: a Content-Length above it is refused unread, a chunked body is counted as it streams, and
inflating stops at the limit.
"""

import asyncio
import zlib

from aiohttp import StreamReader, hdrs, web
from aiohttp.web_protocol import RequestPayloadError

from pyserve.errors import InvalidInput, PayloadTooLarge

MAX_CHUNKS = 65536
"""Chunks of one chunked body; more are refused, since each costs memory of its own."""

# Above this many compressed bytes, inflating (up to a thousandfold) leaves the event loop.
_INFLATE_INLINE_BYTES = 1024

# In pieces, since zlib doubles a buffer that it outgrows: a bomb costs the limit and no more.
_INFLATED_PIECE_BYTES = 1024 * 1024

# zlib's window bits: 31 takes the gzip form, 15 the zlib form, which is what HTTP calls deflate.
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    """Return the body as the client meant it; `limit` is in bytes, before and after inflating."""
    content = request.content
    headers = request.headers
    try:
        if content.is_eof() and hdrs.TRANSFER_ENCODING not in headers:
            body = await content.readany()
            if len(body) > limit:
                raise _too_large(limit)
        else:
            body = await _read_slowly(request, limit)
    except RequestPayloadError as error:
        raise InvalidInput(f"the body cannot be read: {str(error)[:200]}") from None
    coding = headers.get(hdrs.CONTENT_ENCODING)
    return body if coding is None else await _inflate(body, coding, limit)


async def _read_slowly(request: web.BaseRequest, limit: int) -> bytes:
    """Read a body that is still on its way."""
    headers = request.headers
    if int(headers.get(hdrs.CONTENT_LENGTH, 0)) > limit:
        raise _too_large(limit)
    if hdrs.EXPECT in headers and request.version.minor:
        await _continue(request)
    content = request.content
    if hdrs.TRANSFER_ENCODING in headers:
        return await _read_chunked(content, limit)
    # aiohttp has checked that no more than Content-Length arrives.
    pieces = []
    while piece := await content.readany():
        pieces.append(piece)
    return b"".join(pieces)


async def _continue(request: web.BaseRequest) -> None:
    """Tell a client that waits before it sends its body to go ahead."""
    expectation = request.headers[hdrs.EXPECT]
    if expectation.lower() != "100-continue":
        raise InvalidInput(f'Expect is "{expectation[:40]}", expected 100-continue')
    writer = request.writer
    await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # aiohttp takes any output for the beginning of an answer, and this was none.
    writer.output_size = 0


async def _read_chunked(content: StreamReader, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = chunks = 0
    while True:
        piece, ended = await content.readchunk()
        if not piece and not ended:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        chunks += ended
        if size > limit:
            raise _too_large(limit)
        if chunks > MAX_CHUNKS:
            raise InvalidInput(f"the body has more than {MAX_CHUNKS} chunks: send larger ones")


async def _inflate(body: bytes, coding: str, limit: int) -> bytes:
    name = coding.strip().lower()
    if name in ("", "identity"):
        return body
    bits = _WINDOW_BITS.get(name)
    if bits is None:
        raise InvalidInput(f'Content-Encoding is "{coding[:40]}", expected gzip or deflate')
    if len(body) <= _INFLATE_INLINE_BYTES:
        return inflate(body, bits, limit)
    return await asyncio.get_running_loop().run_in_executor(None, inflate, body, bits, limit)


def inflate(body: bytes, bits: int, limit: int) -> bytes:
    """Decompress the whole `body`; never makes more than `limit` bytes and a piece.

    One stream and nothing after it: gzip allows many in a row, but a body of a million empty ones
    would cost minutes, and no client sends that.
    """
    stream = zlib.decompressobj(bits)
    pieces: list[bytes] = []
    size = 0
    rest = body
    try:
        while not stream.eof and (piece := stream.decompress(rest, _INFLATED_PIECE_BYTES)):
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            pieces.append(piece)
            rest = stream.unconsumed_tail
    except zlib.error as error:
        raise InvalidInput(f"the compressed body is damaged: {error}") from None
    if not stream.eof:
        raise InvalidInput("the compressed body is cut off before its end")
    if stream.unused_data:
        raise InvalidInput(f"{len(stream.unused_data)} bytes follow the compressed body")
    return b"".join(pieces)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the body is larger than the limit of {limit} bytes (counted after decompression)"
    )
