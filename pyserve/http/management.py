"""Who may change what is served over HTTP: `pyserve.guard`, asked with a request's headers."""

from aiohttp import hdrs, web

from pyserve.guard import Guard


class Management:
    """The guard before every handler that changes state."""

    def __init__(self, token: str | None, *, loopback: bool, control: str) -> None:
        self._guard = Guard(token, loopback=loopback, control=control)

    def check(self, request: web.BaseRequest, *, models: bool = True) -> None:
        """Raise Unauthenticated (401) or PermissionDenied (403) unless `request` may go on.

        models: it changes which models are served.
        """
        headers = request.headers
        self._guard.check(
            headers.get(hdrs.AUTHORIZATION, ""), from_page=hdrs.ORIGIN in headers, models=models
        )
