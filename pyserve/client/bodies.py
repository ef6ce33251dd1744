"""Request bodies, compressed for who asks for it."""

import gzip
import zlib

from pyserve.client.options import Compression

MIN_COMPRESSED_BYTES = 1024
"""Smaller bodies fit one packet anyway."""

# Tensors compress badly at any level; the lowest costs least.
_LEVEL = 1


def compress(body: bytes, coding: Compression) -> bytes:
    """Return the body in the form that the header `Content-Encoding: coding` announces."""
    if coding == "gzip":
        return gzip.compress(body, _LEVEL, mtime=0)
    return zlib.compress(body, _LEVEL)
