"""Archives from URLs: only from those that the operator listed, and never more than is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from pyserve.errors import PermissionDenied
from pyserve.torchserve.faults import DownloadFailed
from pyserve.typed import show

if TYPE_CHECKING:
    import aiohttp

MAX_ARCHIVE_BYTES = 16 << 30
_MAX_REDIRECTS = 5
_PIECE_BYTES = 1 << 20
# Between two pieces, not for the whole: archives may be large.
_STALL_S = 60.0


def is_url(text: str) -> bool:
    """Whether a client names a URL and not a file of the model store."""
    return "://" in text


def check_allowed(url: str, allowed: Sequence[str]) -> None:
    """Raise PermissionDenied unless `url` begins with one of the allowed prefixes.

    Hosts are compared as wholes, or `https://a.example` would allow `https://a.example.evil`.
    """
    parts = _split(url)
    if parts is not None and any(_within(parts, prefix) for prefix in allowed):
        return
    listed = ", ".join(allowed) or "none"
    raise PermissionDenied(
        f"archives are not taken from {show(url)}; allowed (--allowed-url): {listed}"
    )


def _within(url: SplitResult, prefix: str) -> bool:
    allowed = _split(prefix)
    return (
        allowed is not None
        and (url.scheme, url.hostname, url.port) == (allowed.scheme, allowed.hostname, allowed.port)
        and url.path.startswith(allowed.path or "/")
    )


def _split(url: str) -> SplitResult | None:
    """Split a URL; None for one that two readers might read differently."""
    try:
        parts = urlsplit(url)
        odd = (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or "@" in parts.netloc
            or "\\" in url
            or not url.isascii()
            or not url.isprintable()
            or ".." in unquote(unquote(parts.path)).split("/")
            or parts.port == 0
        )
    except ValueError:
        return None
    return None if odd else parts._replace(path=parts.path or "/")


async def download(
    url: str, target: Path, allowed: Sequence[str], *, limit: int = MAX_ARCHIVE_BYTES
) -> None:
    """Write what `url` has to the file `target`.

    Every redirect must lead to an allowed URL again.  Raises PermissionDenied or DownloadFailed.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_STALL_S, sock_read=_STALL_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            for _ in range(_MAX_REDIRECTS + 1):
                check_allowed(url, allowed)
                async with session.get(url, allow_redirects=False) as response:
                    if 300 <= response.status < 400 and "Location" in response.headers:
                        url = urljoin(url, response.headers["Location"])
                        continue
                    if response.status != 200:
                        raise DownloadFailed(f"{show(url)} answered {response.status}")
                    await _save(response.content, target, limit)
                    return
            raise DownloadFailed(f"more than {_MAX_REDIRECTS} redirects, the last to {show(url)}")
    except (aiohttp.ClientError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise DownloadFailed(f"{show(url)} cannot be downloaded: {reason}") from None


async def _save(content: aiohttp.StreamReader, target: Path, limit: int) -> None:
    size = 0
    with target.open("xb") as file:
        async for piece in content.iter_chunked(_PIECE_BYTES):
            size += len(piece)
            if size > limit:
                raise DownloadFailed(f"the archive has more than {limit} bytes")
            await asyncio.to_thread(file.write, piece)
