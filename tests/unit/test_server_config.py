"""server.yaml and the command line: what they accept, how they refuse, what stays secret."""

import re
from pathlib import Path

import pytest

from pyserve.config import (
    ModelConfig,
    ServerConfig,
    load_server_config,
)
from pyserve.errors import ConfigError


def test_a_server_file_is_read_with_paths_relative_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text("model_repository: [repo, /abs]\nmodels: [m.pt]\nhttp_port: 0\n")
    config = load_server_config(path)
    assert config.model_repository == (str(tmp_path / "repo"), "/abs")
    assert config.models == (str(tmp_path / "m.pt"),)
    assert config.http_port == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("htp_port: 3", 'unknown key "htp_port", did you mean "http_port"?'),
        ("http_port: 65536", "http_port: expected a whole number from 0 to 65535, got 65536"),
        ("model_repository: x", 'model_repository: expected a list of text, got "x"'),
        ("poll_interval_s: 0", "poll_interval_s: expected a number above 0"),
        ("drain_timeout_s: .nan", "drain_timeout_s: expected a number"),
        ("host: ''", "host: expected an address"),
        ("settings: [a=3]", 'settings: --set "a=3": unknown key "a"'),
        ("device: gpu", 'got "gpu"'),
    ],
)
def test_a_wrong_server_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_server_config(path)


def test_a_management_token_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text("management_token: 987654321")
    with pytest.raises(ConfigError, match="management_token") as caught:
        load_server_config(path)
    assert "987654321" not in str(caught.value)
    config = ServerConfig(management_token="s3cret")
    assert "s3cret" not in repr(config)
    assert "s3cret" not in str(config)


def test_command_line_options_win_where_given() -> None:
    config = ServerConfig(http_port=1, host="::1")
    assert config.with_options({"http_port": 2, "host": None}) == ServerConfig(
        http_port=2, host="::1"
    )
    assert config.with_options({}) is config
    with pytest.raises(ConfigError, match="command line: http_port"):
        config.with_options({"http_port": -1})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("example.org", False),
    ],
)
def test_model_control_is_explicit_by_default_only_on_loopback(host: str, loopback: bool) -> None:
    config = ServerConfig(host=host)
    assert config.loopback is loopback
    assert config.control == ("explicit" if loopback else "none")
    assert ServerConfig(host=host, model_control="poll").control == "poll"


def test_the_servers_device_stands_in_for_auto_only() -> None:
    server = ServerConfig(device="cuda:1", settings=("b:device=cpu",))
    assert server.configure("a", ModelConfig()).device == "cuda:1"
    assert server.configure("a", ModelConfig(device="cpu")).device == "cpu"
    assert server.configure("b", ModelConfig()).device == "cpu"
