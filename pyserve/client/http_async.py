"""HTTP for asyncio, by aiohttp: one session of kept-alive connections, for one event loop."""

from __future__ import annotations

import asyncio
import functools
import io
import ssl

import aiohttp
from yarl import URL

from pyserve.client.bodies import MIN_COMPRESSED_BYTES, compress
from pyserve.client.exchange import not_a_model_server
from pyserve.client.http_infer import HttpCall, HttpReply
from pyserve.client.no_answers import cannot_reach, hung_up, not_trusted, reason
from pyserve.client.options import Options
from pyserve.client.retries import too_late
from pyserve.errors import PyserveError

# Compressing more than this would hold up the event loop.
_INLINE_BYTES = 16 * 1024

# A larger body is written in pieces, so that the event loop has a say in between.
_WHOLE_BYTES = 1024 * 1024


class HttpAsync:
    """A transport; its session is made by the first call, in the loop that runs then."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        self._url_of = functools.lru_cache(maxsize=1024)(self._make_url)

    async def send(self, call: HttpCall, timeout_s: float) -> HttpReply:
        """Return the answer."""
        session = self._session or self._open()
        body, headers = call.body, call.headers
        coding = self._options.compression
        if coding is not None and len(body) >= MIN_COMPRESSED_BYTES:
            inline = len(body) <= _INLINE_BYTES
            body = (
                compress(body, coding)
                if inline
                else await asyncio.to_thread(compress, body, coding)
            )
            headers = {**headers, "Content-Encoding": coding}
        try:
            async with session.request(
                call.method,
                self._url_of(call.path),
                data=io.BytesIO(body) if len(body) > _WHOLE_BYTES else body or None,
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(timeout_s, self._options.connect_timeout_s),
            ) as answer:
                return HttpReply(answer.status, answer.headers, await answer.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._failure(error, timeout_s) from None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        options = self._options
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=options.max_connections, ssl=options.ssl_context() or True
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=options.http_headers(),
            skip_auto_headers=["Accept", "Accept-Encoding", "User-Agent"],
        )
        return self._session

    def _make_url(self, path: str) -> URL:
        # A name's escapes are ours, and must not be undone.
        return URL(self._options.address.url + path, encoded=True)

    def _failure(self, error: Exception, timeout_s: float) -> PyserveError:
        url = self._options.address.url
        match error:
            case aiohttp.ConnectionTimeoutError() if timeout_s > self._options.connect_timeout_s:
                limit = self._options.connect_timeout_s
                return cannot_reach(url, f"no connection within {limit:g} s")
            case TimeoutError():
                return too_late(timeout_s)
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
                return not_trusted(url, reason(error.__cause__ or error))
            case aiohttp.ClientConnectorError():
                if isinstance(error.os_error, ssl.SSLError):
                    return not_trusted(url, reason(error.os_error))
                return cannot_reach(url, reason(error.os_error))
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
                return hung_up(url, begun=False)
            case aiohttp.ClientPayloadError():
                return hung_up(url, begun=True)
            case _:
                return not_a_model_server(url)


@functools.lru_cache(maxsize=64)
def _timeout(total_s: float, connect_s: float) -> aiohttp.ClientTimeout:
    total = None if total_s == float("inf") else total_s
    return aiohttp.ClientTimeout(total=total, sock_connect=connect_s)
