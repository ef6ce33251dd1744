"""A few requests to a running server, with nothing but the standard library."""

import json
import os
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from pyserve.errors import ConfigError, InvalidInput, PyserveError, Unavailable


class Reply(NamedTuple):
    """A good answer: its body, and its headers by their names in lower case."""

    body: bytes
    headers: dict[str, str]


class Server:
    """A server named by its URL. `timeout_s` counts for each wait on the socket."""

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise ConfigError(f"{url!r} is not a server's address, expected http://HOST:PORT")
        self._url = f"{parts.scheme}://{parts.netloc}"
        self._base = parts.path.rstrip("/")
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname, port, timeout=timeout_s)

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at `path`."""
        return self._object(self._send("GET", path, b"", {}))

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[dict[str, Any], Reply]:
        """Return the JSON object that a POST is answered with, and the whole answer."""
        reply = self._send("POST", path, body, headers)
        return self._object(reply), reply

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        try:
            self._connection.request(method, self._base + path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
        except TimeoutError:
            raise Unavailable(f"{self._url} does not answer in time") from None
        except (OSError, HTTPException) as error:
            raise Unavailable(
                f"cannot reach {self._url}: {_reason(error)}; is `pyserve serve` running there?"
            ) from None
        finally:
            self._connection.close()
        if response.status >= 400:
            raise _refused(response.status, content)
        return Reply(content, {name.lower(): value for name, value in response.getheaders()})

    def _object(self, reply: Reply) -> dict[str, Any]:
        try:
            value = json.loads(reply.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Unavailable(f"{self._url} answers, but not as a model server does")
        return value


def model_path(name: str) -> str:
    """Return the path of NAME or NAME/VERSION."""
    model, _, version = name.partition("/")
    base = f"/v2/models/{quote(model, safe='')}"
    return f"{base}/versions/{quote(version, safe='')}" if version else base


def _reason(error: OSError | HTTPException) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def _refused(status: int, content: bytes) -> PyserveError:
    try:
        message = str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered with status {status}"
    return InvalidInput(message) if status == 400 else PyserveError(f"{message} (HTTP {status})")
