"""What a client is told once, for all its requests."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from pyserve.client.address import Address
from pyserve.errors import ConfigError

Compression: TypeAlias = Literal["gzip", "deflate"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Address and options of one client, checked.

    headers: sent with each request, `authorization` for the token among them.
    max_connections: kept open at once (HTTP); requests beyond wait for one.
    """

    address: Address
    connect_timeout_s: float
    max_connections: int
    compression: Compression | None
    headers: Mapping[str, str] = field(repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.compression not in (None, "gzip", "deflate"):
            raise ConfigError(
                f'compression is {self.compression!r}, expected "gzip", "deflate" or None'
            )
        if self.max_connections < 1:
            raise ConfigError(f"max_connections is {self.max_connections}, expected 1 or more")
        if not self.connect_timeout_s > 0:
            raise ConfigError(
                f"connect_timeout is {self.connect_timeout_s}, expected seconds above 0"
            )
        files = (self.ca_file, self.cert_file, self.key_file)
        if any(files) and not self.address.secure:
            raise ConfigError(
                f"certificates are for https:// and grpcs:// addresses, got {self.address.url}"
            )
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("cert_file and key_file go together, got one of them")

    def http_headers(self) -> dict[str, str]:
        """Return the headers of every request; none that says nothing, for they all cost time."""
        if self.compression is None:
            return dict(self.headers)
        return {"accept-encoding": self.compression, **self.headers}

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return what HTTP connections are secured with, None where they are not."""
        if not self.address.secure:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise _unreadable(error) from None
        return context

    def certificates(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return the contents of `ca_file`, `key_file` and `cert_file`, as gRPC wants them."""
        try:
            ca, key, cert = (
                None if one is None else one.read_bytes()
                for one in (self.ca_file, self.key_file, self.cert_file)
            )
        except OSError as error:
            raise _unreadable(error) from None
        return ca, key, cert


def _unreadable(error: OSError) -> ConfigError:
    return ConfigError(f"the certificates cannot be read: {error.strerror or error}")


def merged_headers(headers: Mapping[str, str] | None, token: str | None) -> dict[str, str]:
    """Return the headers of every request, by lower-case names."""
    merged = {name.lower(): value for name, value in (headers or {}).items()}
    if token is not None:
        merged["authorization"] = f"Bearer {token}"
    for name, value in merged.items():
        if any(character in "\r\n\0" for character in name + value):
            raise ConfigError(f"the header {name[:40]!r} contains a line end")
    return merged
