"""`config.properties`: Java's format, what is understood, and the report of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyserve.errors import ConfigError
from pyserve.torchserve.java_properties import parse
from pyserve.torchserve.properties import Properties, read_properties, understand


def read(text: str) -> Properties:
    return understand(parse(text), source="config.properties", folder=Path("/home/ts"))


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a=1\nb: 2\nc 3\n", {"a": "1", "b": "2", "c": "3"}),
        ("  # comment\n! another\n\na = 1  ", {"a": "1  "}),
        ("a=1\\\n   2\\\n\t3", {"a": "123"}),
        ("a=1\\\\\nb=2", {"a": "1\\", "b": "2"}),
        ("a\\=b=c\\:d\\u0041\\t.", {"a=b": "c:dA\t."}),
        ("a=1\r\nb=2\ra=3", {"a": "3", "b": "2"}),
        ("lonely", {"lonely": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("a=\\", {"a": ""}),
        ("# a comment never goes on \\\na=1", {"a": "1"}),
        ("a = x\\u00zz", {"a": "xu00zz"}),
    ],
)
def test_the_format_is_javas(text: str, pairs: dict[str, str]) -> None:
    assert parse(text) == pairs


def test_addresses_store_and_limits_are_understood() -> None:
    found = read(
        "inference_address=http://0.0.0.0:9090\nmanagement_address=http://[::1]:8081\n"
        "grpc_inference_port=7000\nmodel_store=store\nmax_request_size=1000\n"
        "cors_allowed_origin=https://a.example,https://b.example\n"
        "allowed_urls=https://s3.amazonaws.com/.*,file://.*\n"
    )
    assert found.addresses == {"inference": ("0.0.0.0", 9090), "management": ("::1", 8081)}
    assert found.grpc_ports == {"inference": 7000}
    assert found.options == {
        "model_store": "/home/ts/store",
        "max_body_bytes": 1000,
        "cors_origin": ["https://a.example", "https://b.example"],
        "allowed_urls": ["https://s3.amazonaws.com/"],
    }
    assert found.report == ()


@pytest.mark.parametrize(
    ("value", "load"),
    [
        ("all", None),
        ("none", ()),
        ("", ()),
        ("a.mar, b=c.mar", (("", "a.mar"), ("b", "c.mar"))),
    ],
)
def test_what_to_load_is_all_or_listed(value: str, load: object) -> None:
    assert read(f"load_models={value}").load == load


def test_models_have_settings_by_version() -> None:
    found = read(
        'models={"m": {"1.0": {"defaultVersion": true, "marName": "m.mar", "minWorkers": 1, \\\n'
        '  "maxWorkers": 2, "batchSize": 4, "maxBatchDelay": 10, "responseTimeout": 5, \\\n'
        '  "colour": "red"}}}'
    )
    settings = found.models["m", "1.0"]
    assert (settings.min_workers, settings.batch_size, settings.response_timeout) == (1, 4, 5)
    assert found.defaults == {"m": "1.0"}
    assert len(found.report) == 1 and '"colour"' in found.report[0]


def test_every_key_that_is_not_in_force_is_reported() -> None:
    found = read("number_of_netty_threads=4\nvmargs=-Xmx1g\ndefault_workers=3\nplugins_path=x")
    assert len(found.report) == 4
    assert "Netty" in found.report[0]
    assert found.report[3] == 'config.properties: "plugins_path" is not understood'


def test_urls_that_are_no_prefixes_are_reported_and_not_allowed() -> None:
    found = read(r"allowed_urls=https?://.*,http://a\\.example/.*,http://b.example.*,http(s)?://.*")
    assert found.options["allowed_urls"] == ["http://a.example/"]
    assert len(found.report) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inference_address=https://0.0.0.0:8443", "TLS"),
        ("inference_address=8080", "expected such as"),
        ("inference_address=http://h:99999", "expected such as"),
        ("grpc_inference_port=many", "expected a number"),
        ("job_queue_size=-1", "expected a number"),
        ("models=[1]", "expected an object"),
        ("models={", "no JSON"),
        ('models={"m": {"1.0": 3}}', "expected settings"),
        ("models=" + "[" * 100_000, "no JSON"),
    ],
)
def test_what_makes_no_sense_is_an_error_that_names_the_key(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(text)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_properties(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_properties(tmp_path / "binary")
    (tmp_path / "large").write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigError, match="more than"):
        read_properties(tmp_path / "large")
