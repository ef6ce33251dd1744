"""A running server, asked from the shell by the client that everybody uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyserve.errors import InvalidInput, PyserveError

if TYPE_CHECKING:
    from pyserve.client import Client


@contextmanager
def asking(url: str, *, timeout_s: float = 30.0) -> Iterator[Client]:
    """Yield a client that asks once; what the server refuses says with which status it did."""
    from pyserve import Client

    try:
        with Client(url, timeout=timeout_s, retries=0) as client:
            yield client
    except InvalidInput:
        raise
    except PyserveError as error:
        status = ", ".join(getattr(error, "__notes__", ()))
        if not status:
            raise
        raise PyserveError(f"{error.message} ({status})") from None


def name_and_version(text: str) -> tuple[str, str | None]:
    """Return the parts of NAME or NAME/VERSION."""
    name, _, version = text.partition("/")
    return name, version or None
