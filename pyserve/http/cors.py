"""Cross-origin requests: web pages of listed origins may read what this server answers.

A browser asks before it sends anything out of the ordinary (a preflight, OPTIONS), and shows a page
only answers that say the page's origin is welcome.  What a request may do is no matter of its
origin: a page needs the management token like anyone else.
"""

import re
from collections.abc import Sequence

from aiohttp import hdrs, web

from pyserve.errors import ConfigError
from pyserve.http.answers import Answer
from pyserve.http.app import App
from pyserve.http.routing import Refusal, Router

_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[^/?#@\s,\"]+")

_PREFLIGHT = (
    b"Access-Control-Allow-Methods: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\n"
    b"Access-Control-Allow-Headers: Authorization, Content-Type, Content-Encoding, "
    b"Inference-Header-Content-Length\r\n"
    b"Access-Control-Max-Age: 600\r\n"
)
_EXPOSED = (
    b"Access-Control-Expose-Headers: Server-Timing, Retry-After, Inference-Header-Content-Length, "
    b"Allow, WWW-Authenticate\r\n"
)
_VARY = b"Vary: "


class CorsApp(App):
    """An App for pages of `origins` too; "*" is any origin."""

    def __init__(
        self, router: Router, origins: Sequence[str], *, otherwise: Refusal | None = None
    ) -> None:
        super().__init__(router, otherwise=otherwise)
        for one in origins:
            if one != "*" and not _ORIGIN.fullmatch(one):
                raise ConfigError(
                    f'cors_origin: "{one}" is no origin, expected one such as https://app.example '
                    "(lower case, no path), or *"
                )
        self._origins = frozenset(origins)
        self._any = "*" in self._origins

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, and say whether the page that sent it may read the answer."""
        allowed = self._allowed(request.headers.get(hdrs.ORIGIN))
        preflight = (
            request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        )
        if allowed and preflight:
            answer: web.StreamResponse = self._preflight()
        else:
            answer = await super().__call__(request)
            allowed += _EXPOSED if allowed else b""
        assert isinstance(answer, Answer)
        answer.fields = self.varying(answer.fields) + allowed
        return answer

    def _allowed(self, origin: str | None) -> bytes:
        """Return the header that lets a page of `origin` read the answer, or nothing."""
        if origin is None or not (self._any or origin in self._origins):
            return b""
        return f"Access-Control-Allow-Origin: {'*' if self._any else origin}\r\n".encode()

    def varying(self, fields: bytes) -> bytes:
        """Return `fields` and what tells caches that answers depend on the origin, if so."""
        if self._any:
            return fields
        if _VARY in fields:
            return fields.replace(_VARY, _VARY + b"Origin, ", 1)
        return fields + _VARY + b"Origin\r\n"

    def _preflight(self) -> Answer:
        answer = NoContent(_PREFLIGHT)
        self._unmatched.responses[answer.status] += 1
        if self._draining:
            answer.force_close()
        return answer


class NoContent(Answer):
    """204, which has no body and must not tell the length of one."""

    def __init__(self, fields: bytes) -> None:
        super().__init__(204, b"", fields)

    def head(self, connection: bytes) -> bytes:
        """Return status line and headers."""
        line, _, rest = super().head(connection).partition(b"Content-Length: 0\r\n")
        return line + rest
