"""pyserve.client.address and options: where a server is, and what a client is told once."""

from pathlib import Path

import pytest

from pyserve import AsyncClient, Client
from pyserve.client.address import Address, parse_address
from pyserve.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:8000", Address("http", False, "127.0.0.1", 8000, "")),
        ("https://example.org", Address("http", True, "example.org", 443, "")),
        ("grpc://host:8001", Address("grpc", False, "host", 8001, "")),
        ("grpcs://host", Address("grpc", True, "host", 8001, "")),
        ("host:9000", Address("http", False, "host", 9000, "")),
        ("http://[::1]:8000/", Address("http", False, "::1", 8000, "")),
        ("http://proxy/models/", Address("http", False, "proxy", 80, "/models")),
    ],
)
def test_an_address_says_protocol_host_and_port(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


def test_the_url_of_an_address_has_everything() -> None:
    assert parse_address("[::1]:8000").url == "http://[::1]:8000"
    assert parse_address("grpcs://host/").url == "grpcs://host:8001"
    assert parse_address("https://h/base/").url == "https://h:443/base"


@pytest.mark.parametrize(
    "text",
    ["", "http://", "ftp://x", "http://h:99999", "http://h:x", "http://h/?a", "grpc://h:1/p"],
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="expected http://HOST:PORT or grpc://HOST:PORT"):
        parse_address(text)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="token") as caught:
        Client("http://user:geheim@host")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 0}, "timeout is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"connect_timeout": 0}, "connect_timeout is 0"),
        ({"max_connections": 0}, "max_connections is 0"),
        ({"compression": "br"}, "compression is 'br'"),
        ({"headers": {"x": "a\r\nb"}}, "line end"),
        ({"token": "a\nb"}, "line end"),
        ({"ca_file": "ca.pem"}, "https:// and grpcs://"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_options_that_make_no_sense_are_refused_at_once(
    kind: type, options: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        kind("http://127.0.0.1:1", **options)


def test_certificates_that_cannot_be_read_are_a_config_error(tmp_path: Path) -> None:
    for url in ("https://127.0.0.1:1", "grpcs://127.0.0.1:1"):
        with pytest.raises(ConfigError, match="certificates cannot be read"):
            Client(url, ca_file=tmp_path / "none.pem")
        with pytest.raises(ConfigError, match="go together"):
            Client(url, cert_file=tmp_path / "one.pem")


def test_secrets_are_in_no_repr() -> None:
    options = Client("http://127.0.0.1:1", token="geheim")._core.options
    assert options.headers == {"authorization": "Bearer geheim"}
    assert "geheim" not in repr(options)
