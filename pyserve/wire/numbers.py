"""Finds the long arrays of numbers in a JSON request, so that they are read once and not twice.

A typed JSON decoder has to walk over an image of 150,000 numbers to know where it ends, which
takes longer than reading the numbers does.  But such an array holds no string and no object, so
it ends at the last bracket before the next quote or brace, and `memchr` finds those at the speed
of memory.  `split` takes the arrays out and leaves a skeleton of a few hundred bytes for the
decoder; the arrays are read by the core, which is as strict about JSON as the decoder.
"""

import re

_KEY = b'"data"'
_OPENING = re.compile(rb'"data"[ \t\r\n]*+:[ \t\r\n]*+(?=\[)')


def split(text: bytes) -> tuple[bytes, list[memoryview]]:
    """Return `text` with its number arrays at "data" keys as `[0]`, `[1]`, … and those arrays.

    Of valid JSON without a backslash, every such array is found, whichever object it belongs to:
    `[7]` at a "data" key of the skeleton always stands for array 7.  An array that mixes brackets
    with strings or objects spoils the skeleton.  So where that has a backslash or is not valid, or
    where an array is left over that nobody read, the caller goes back to `text`.

    Linear in the length of `text`, whatever is in it.
    """
    view = memoryview(text)
    pieces: list[bytes] = []
    arrays: list[memoryview] = []
    copied = 0
    brace = -1
    at = text.find(_KEY)
    while at >= 0:
        opening = _OPENING.match(text, at)
        at += len(_KEY)
        if opening is not None:
            start = opening.end()
            if brace < start:  # else the next brace is the one found before
                brace = text.find(b"}", start)
                if brace < 0:
                    break
            quote = text.find(b'"', start, brace)
            end = text.rfind(b"]", start, brace if quote < 0 else quote) + 1
            if end > 0:
                pieces += (text[copied:start], b"[%d]" % len(arrays))
                arrays.append(view[start:end])
                copied = at = end
        at = text.find(_KEY, at)
    pieces.append(text[copied:])
    return b"".join(pieces), arrays


def array_index(data: bytes) -> int | None:
    """Return which array `data`, as found in a skeleton, stands for; None where it is itself."""
    digits = data[1:-1]
    return int(digits) if data[:1] == b"[" and digits.isdigit() and len(digits) < 9 else None
