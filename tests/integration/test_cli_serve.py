"""`pyserve serve` as a process: its options, its output and its exit codes."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from server_process import environment, one_line, run, start

import models


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["nothing to serve", "--model-repository"]),
        (["nowhere.pt"], ["nowhere.pt", "no such file"]),
        (["--model-repository", "nowhere"], ["nowhere"]),
        (["--model-repository", ".", "--host", " "], ["host"]),
        (["--model-repository", ".", "--http-port", "70000"], ["http_port"]),
        (["--model-repository", ".", "--set", "batchin.max_batch_size=1"], ["batching"]),
        (["--model-repository", ".", "--load-model", "nope"], ["nope"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--model-repository", ".", "--max-body-bytes", "0"], ["max_body_bytes"]),
    ],
)
def test_bad_usage_is_2_and_one_line(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("serve", *arguments)
    assert done.returncode == 2
    line = one_line(done.stderr)
    for word in words:
        assert word in line


@pytest.mark.parametrize("kind", ["empty", "text", "cut off"])
def test_a_bare_file_that_is_no_model_is_2_and_one_line(
    affine: Path, tmp_path: Path, kind: str
) -> None:
    whole = affine.read_bytes()
    path = tmp_path / "bad.pt"
    path.write_bytes({"empty": b"", "text": b"no model", "cut off": whole[:-1000]}[kind])
    done = run("serve", str(path), "--http-port", "0")
    assert done.returncode == 2
    assert "bad.pt: not a whole TorchScript file" in one_line(done.stderr)
    assert done.stdout == ""


def test_a_bare_file_that_the_core_cannot_load_is_2(affine: Path, tmp_path: Path) -> None:
    whole = affine.read_bytes()
    path = tmp_path / "bad.pt"
    path.write_bytes(whole[:200] + bytes(200) + whole[400:])
    done = run("serve", str(path), "--http-port", "0", "--log-level", "error")
    assert done.returncode == 2
    assert "bad" in one_line(done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_bad_model_in_a_repository_does_not_keep_the_others_from_serving(
    affine: Path, tmp_path: Path
) -> None:
    models.build("affine", tmp_path / "models")
    bad = tmp_path / "models" / "bad" / "1" / "model.pt"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"no model")
    with start(tmp_path / "log", "--model-repository", str(tmp_path / "models")) as server:
        assert server.ready["models"] == {"affine": ["1"]}
        assert "not a whole TorchScript file" in server.ready["failed"]["bad"]
        assert server.get("/readyz").status == 200
        assert server.stop() == 0


def test_a_repository_of_bad_models_is_live_and_not_ready(tmp_path: Path) -> None:
    bad = tmp_path / "models" / "bad" / "1" / "model.pt"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"no model")
    with start(tmp_path / "log", "--model-repository", str(tmp_path / "models")) as server:
        assert server.ready["event"] == "not ready"
        assert server.get("/healthz").status == 200
        reply = server.get("/readyz")
        assert reply.status == 503
        assert "failed: bad" in reply.error
        assert server.stop() == 0


def test_an_address_in_use_is_1_and_one_line(affine: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", str(affine), "--http-port", str(port))
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert str(port) in line
    assert "--http-port" in line


def test_a_bare_file_is_served_under_its_stem(affine: Path, tmp_path: Path) -> None:
    path = tmp_path / "my-model.pt"
    path.write_bytes(affine.read_bytes())
    with start(tmp_path / "log", str(path), "--set", "batching.max_batch_size=2") as server:
        config = server.get("/v2/models/my-model/config").json
        assert config["max_batch_size"] == 2
        assert server.stop() == 0


def test_options_come_from_a_file_and_the_command_line_wins(affine: Path, tmp_path: Path) -> None:
    config = tmp_path / "server.yaml"
    config.write_text(
        f"models: [{affine}]\nmax_body_bytes: 10\nlog_level: error\nmodel_control: none\n"
    )
    arguments = ["--config", str(config), "--max-body-bytes", "20"]
    with start(tmp_path / "log", *arguments) as server:
        reply = server.infer("model", b"x" * 21)
        assert reply.status == 413
        assert "20 bytes" in reply.error
        assert server.ask("POST", "/v2/repository/models/model/load").status == 403
        assert server.stop() == 0
    assert (tmp_path / "log").read_text() == ""


def test_the_log_is_json_lines_and_the_request_log_one_line_each(
    affine: Path, tmp_path: Path
) -> None:
    with start(tmp_path / "log", str(affine), "--request-log") as server:
        assert server.ready["event"] == "ready"
        assert server.ready["pid"] == server.process.pid
        assert server.get("/v2").status == 200
        assert server.get("/nowhere").status == 404
        assert server.stop() == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    requests = [(line["path"], line["status"]) for line in lines if "path" in line]
    assert requests == [("/v2", 200), ("/nowhere", 404)]


def test_the_text_ready_line_says_where(affine: Path) -> None:
    arguments = [sys.executable, "-m", "pyserve", "serve", str(affine), "--http-port", "0"]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(), text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    assert process.wait(60) == 0
    process.stdout.close()
    assert line.startswith("pyserve is ready at http://127.0.0.1:")
    assert "model" in line


def test_a_server_imports_no_torch(affine: Path, tmp_path: Path) -> None:
    with start(tmp_path / "log", str(affine)) as server:
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "libtorch_cpu" in maps
        assert "torch/_C." not in maps
        assert server.stop() == 0
