"""Compressed answers, for a client that asks for them and an answer that is worth it."""

import asyncio
import zlib
from functools import lru_cache

from aiohttp import hdrs, web

from pyserve.http.answers import Answer

# Smaller answers fit one packet anyway.
MIN_BYTES = 1024
# Above this many bytes the work leaves the event loop (about half a millisecond at this size).
_INLINE_BYTES = 16 * 1024
# Tensors compress badly at any level; the lowest costs least.
_LEVEL = 1

# zlib's window bits: 31 makes the gzip form, 15 the zlib form, which is what HTTP calls deflate.
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


async def compressed(request: web.BaseRequest, answer: Answer) -> Answer:
    """Return `answer`, compressed where the client asked and it is big enough; never an error."""
    size = len(answer.body)
    if size < MIN_BYTES:
        return answer
    coding = _coding(request.headers.get(hdrs.ACCEPT_ENCODING, ""))
    if not coding:
        return answer
    bits = _WINDOW_BITS[coding]
    if size <= _INLINE_BYTES:
        body = _compress(answer.body, bits)
    else:
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(None, _compress, answer.body, bits)
    fields = f"Content-Encoding: {coding}\r\nVary: Accept-Encoding\r\n".encode()
    return Answer(answer.status, body, answer.fields + fields)


def _compress(body: bytes, bits: int) -> bytes:
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, bits)
    return stream.compress(body) + stream.flush()


@lru_cache(maxsize=256)
def _coding(accepted: str) -> str:
    """Return "gzip", "deflate" or "": what the Accept-Encoding header likes best of these."""
    weights = {}
    for part in accepted.lower().split(","):
        name, _, parameter = part.partition(";")
        key, _, value = parameter.partition("=")
        try:
            weight = float(value) if key.strip() == "q" else 1.0
        except ValueError:
            weight = 0.0
        weights[name.strip()] = weight
    best = max(_WINDOW_BITS, key=lambda coding: weights.get(coding, weights.get("*", 0.0)))
    return best if weights.get(best, weights.get("*", 0.0)) > 0 else ""
