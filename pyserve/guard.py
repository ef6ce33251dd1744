"""Who may change what is served.

With a management token: whoever sends it, from anywhere.  Without one: whoever reaches a listener
that only this machine can reach, but no web page that a browser on it happens to show.
"""

import hmac

from pyserve.errors import PermissionDenied, Unauthenticated


class Guard:
    """The guard before every handler that changes state."""

    def __init__(self, token: str | None, *, loopback: bool, control: str) -> None:
        self._token = None if token is None else token.encode()
        self._loopback = loopback
        self._control = control

    def check(self, authorization: str, *, from_page: bool = False, models: bool = True) -> None:
        """Raise Unauthenticated or PermissionDenied unless the request may go on.

        authorization: what HTTP's header of this name, or gRPC's metadata, says; empty for nothing.
        from_page: a web page sent it.
        models: it changes which models are served, which model control has a say in.
        """
        if self._token is not None:
            self._check_token(authorization, self._token)
        elif not self._loopback:
            raise PermissionDenied(
                "this listener can be reached from other machines, so changing models needs a "
                "token: start the server with --management-token"
            )
        elif from_page:
            # Any page in a browser may post to a loopback address; no command-line client says
            # where it comes from.
            raise PermissionDenied("web pages may not change models without a management token")
        if models and self._control != "explicit":
            raise PermissionDenied(
                f"model control is {self._control}: start the server with "
                "--model-control explicit to load and unload models while it runs"
            )

    @staticmethod
    def _check_token(header: str, token: bytes) -> None:
        scheme, _, given = header.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("expected the header Authorization: Bearer MANAGEMENT_TOKEN")
        if not hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token):
            raise Unauthenticated("the management token is not the right one")
