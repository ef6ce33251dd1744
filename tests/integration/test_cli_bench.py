"""`pyserve bench` from the command line, against real files and a real server."""

import json
from pathlib import Path
from typing import Any

import pytest
from server_process import Server, run

SHORT = ("--seconds", "0.1", "--warm-up", "0.05", "--repeats", "1", "--generator", "builtin")


def test_bench_of_a_file_measures_engine_server_and_floors(
    model_repository: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.json"
    path = model_repository / "affine" / "1" / "model.pt"
    options = ("--connections", "1,2", "--rate", "200", "--concurrency", "4")
    done = run("bench", str(path), *SHORT, *options, "--json", str(results))
    assert done.returncode == 0, done.stderr
    document = json.loads(results.read_text())
    assert document["format"] == 1
    assert document["command"].startswith("pyserve bench ")
    assert document["machine"]["cores"] >= 1
    (target,) = document["targets"]
    assert (target["rows"], target["body"]) == (1, "binary")
    measured: dict[str, Any] = {one["name"]: one for one in target["measurements"]}
    assert list(measured) == [
        "bare m(x)",
        "model(x), 1 thread",
        "bare m(x), best batch",
        "model(x), 4 threads",
        "model.infer(x), 4 tasks",
        "empty, 1 connection",
        "http, 1 connection",
        "empty, 2 connections",
        "http, 2 connections",
        "empty, 200 arrivals/s",
        "http, 200 arrivals/s",
    ]
    for name, one in measured.items():
        assert one["requests_per_s"] > 0, name
        assert one["failures"] == {}, name
        assert len(one["runs"]) == 1
        assert name in done.stdout
    latency = measured["http, 200 arrivals/s"]["latency_us"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]
    assert measured["http, 1 connection"]["of_floor"] > 0
    assert measured["bare m(x)"]["of_floor"] is None


def test_bench_of_a_model_at_a_server_needs_no_file(server: Server) -> None:
    options = (*SHORT, "--connections", "2", "--body", "json", "--json", "-")
    done = run("bench", f"lengths@{server.url}", *options)
    assert done.returncode == 0, done.stderr
    (target,) = json.loads(done.stdout)["targets"]
    (measured,) = target["measurements"]
    assert measured["failures"] == {}
    assert measured["requests_per_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pt"], "there is no such file"),
        (["m@http://198.51.100.1:8000"], "--url http://198.51.100.1:8000"),
        (["model.pt", "--connections", "1,x"], "not a list of numbers"),
        (["model.pt", "--seconds", "0"], "--seconds"),
        ([], "TARGET"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = run("bench", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_model_is_told(server: Server) -> None:
    done = run("bench", f"nobody@{server.url}", *SHORT)
    assert done.returncode == 2
    assert "404" in done.stderr
