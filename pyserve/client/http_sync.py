"""HTTP for threads, by urllib3: one pool of kept-alive connections."""

from __future__ import annotations

import socket
from http.client import IncompleteRead
from typing import Any

import urllib3
from urllib3 import exceptions as known

from pyserve.client.bodies import MIN_COMPRESSED_BYTES, compress
from pyserve.client.exchange import not_a_model_server
from pyserve.client.http_infer import HttpCall, HttpReply
from pyserve.client.no_answers import cannot_reach, hung_up, not_trusted, reason
from pyserve.client.options import Options
from pyserve.client.retries import too_late
from pyserve.errors import PyserveError


class HttpSync:
    """A transport; threads share its connections."""

    def __init__(self, options: Options) -> None:
        address = options.address
        self._url = address.url
        self._prefix = address.path
        self._connect_timeout_s = options.connect_timeout_s
        self._compression = options.compression
        skipped = dict.fromkeys(("accept-encoding", "user-agent"), urllib3.util.SKIP_HEADER)
        self._headers = {**skipped, **options.http_headers()}
        more: dict[str, Any] = {"maxsize": options.max_connections, "block": True}
        # Small requests on a kept-alive connection must not wait for the last one's ACK.
        more["socket_options"] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        context = options.ssl_context()
        self._pool = (
            urllib3.HTTPConnectionPool(address.host, address.port, **more)
            if context is None
            else urllib3.HTTPSConnectionPool(
                address.host, address.port, ssl_context=context, **more
            )
        )

    def send(self, call: HttpCall, timeout_s: float) -> HttpReply:
        """Return the answer; the timeout holds for each wait on the socket."""
        body, headers = call.body, {**self._headers, **call.headers}
        if self._compression is not None and len(body) >= MIN_COMPRESSED_BYTES:
            body = compress(body, self._compression)
            headers["content-encoding"] = self._compression
        # Any: urllib3 waits fractions of a second, its annotation says whole ones.
        wait_s: Any = None if timeout_s == float("inf") else timeout_s
        connect_s = min(self._connect_timeout_s, timeout_s)
        try:
            answer = self._pool.urlopen(
                call.method,
                self._prefix + call.path,
                body=body or None,
                headers=headers,
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=urllib3.Timeout(connect=connect_s, read=wait_s),
                pool_timeout=wait_s,
            )
        except known.HTTPError as error:
            raise self._failure(error, timeout_s) from None
        return HttpReply(answer.status, answer.headers, answer.data)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _failure(self, error: Exception, timeout_s: float) -> PyserveError:
        cause = _cause(error)
        match error:
            case known.NewConnectionError() | known.ConnectTimeoutError():
                if isinstance(error, known.NewConnectionError):
                    return cannot_reach(self._url, reason(cause))
                if timeout_s <= self._connect_timeout_s:
                    return too_late(timeout_s)
                limit = self._connect_timeout_s
                return cannot_reach(self._url, f"no connection within {limit:g} s")
            case known.ReadTimeoutError() | known.EmptyPoolError():
                return too_late(timeout_s)
            case known.DecodeError() | known.InvalidHeader():
                return not_a_model_server(self._url)
            case known.SSLError():
                return not_trusted(self._url, str(cause))
            case known.ProtocolError() if isinstance(cause, OSError):
                return hung_up(self._url, begun=False)
            case known.ProtocolError() if isinstance(cause, IncompleteRead):
                return hung_up(self._url, begun=True)
            case _:
                return not_a_model_server(self._url)


def _inner(error: Exception) -> object:
    return error.args[-1] if error.args else None


def _cause(error: Exception) -> BaseException:
    inner = _inner(error)
    if isinstance(inner, BaseException):
        return inner
    return error.__cause__ or error.__context__ or error
