"""The script that wrk runs, and what is read out of what it prints."""

from pathlib import Path

import pytest

from pyserve.bench import wrk
from pyserve.bench.bodies import HttpRequest
from pyserve.bench.processes import ChildFailed

OUTPUT = """\
Running 1s test @ http://127.0.0.1:9999/
  1 threads and 2 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.52ms    2.37ms  13.42ms   83.80%
Requests/sec:    915.89
pyserve-bench 1000 2000000 10 0 1 0 3
pyserve-bench histogram 100:990 200:9 5000:1
"""


def test_counts_and_seconds_are_read() -> None:
    run = wrk.parse(OUTPUT)
    assert run.tool == "wrk"
    assert run.seconds == 2.0
    assert run.requests == 990, "answers with a bad status are not good ones"
    assert run.rate == 495
    assert run.failures == {"status not 2xx or 3xx": 10, "read": 1, "timeout": 3}


def test_histogram_becomes_percentiles_in_microseconds() -> None:
    latency = wrk.parse(OUTPUT).latency_us
    assert latency.count == 1000
    assert latency.p50 == pytest.approx(100, rel=2e-3)
    assert latency.p99_9 == pytest.approx(200, rel=2e-3)
    assert latency.max == 5000


def test_a_run_without_one_answer_is_read_too() -> None:
    run = wrk.parse("pyserve-bench 0 1000000 0 2 0 0 0\npyserve-bench histogram \n")
    assert run.requests == 0
    assert run.failures == {"connect": 2}
    assert run.latency_us.count == 0


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1", "pyserve-bench 1 1"])
def test_output_without_a_result_is_an_error_that_quotes_it(output: str) -> None:
    with pytest.raises(ChildFailed, match=output or "no result"):
        wrk.parse(output)


def test_script_names_the_body_and_every_header() -> None:
    request = HttpRequest("/infer", {"A": "1", "Content-Type": 'a"b'}, b"body")
    text = wrk.script(request, Path("/tmp/it's here/body"))
    assert 'io.open("/tmp/it\'s here/body", "rb")' in text
    assert 'wrk.headers["A"] = "1"' in text
    assert 'wrk.headers["Content-Type"] = "a\\034b"' in text


def test_lua_literals_hold_any_byte() -> None:
    assert wrk.quoted('a\\"\n0é') == '"a\\092\\034\\0100\\195\\169"'
