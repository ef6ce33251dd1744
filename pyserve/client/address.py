"""Where a server is and what it speaks, as one line of text says."""

from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from pyserve.errors import ConfigError

_DEFAULT_PORTS = {"http": 80, "https": 443, "grpc": 8001, "grpcs": 8001}


class Address(NamedTuple):
    """A server's address; `path` is what a proxy puts before every path, "" for nothing."""

    protocol: Literal["http", "grpc"]
    secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """HOST:PORT, with brackets round an IPv6 address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address in full, for requests and for messages."""
        return f"{self.protocol}{'s' if self.secure else ''}://{self.authority}{self.path}"


def parse_address(text: str) -> Address:
    """Return the address in `text`; one without a scheme is HTTP. ConfigError where it is none."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
        host = parts.hostname
    except ValueError:
        raise _no_address(text) from None
    if parts.scheme not in _DEFAULT_PORTS or not host or parts.query or parts.fragment:
        raise _no_address(text)
    if parts.username is not None:
        # The text is not shown: it holds a password.
        raise ConfigError("an address with a user's name is not supported, give `token` instead")
    protocol: Literal["http", "grpc"] = "http" if parts.scheme.startswith("http") else "grpc"
    path = parts.path.rstrip("/")
    if protocol == "grpc" and path:
        raise _no_address(text)
    secure = parts.scheme.endswith("s")
    return Address(protocol, secure, host, port or _DEFAULT_PORTS[parts.scheme], path)


def _no_address(text: str) -> ConfigError:
    return ConfigError(
        f"{text[:100]!r} is not a server's address, expected http://HOST:PORT or grpc://HOST:PORT"
    )
