"""pyserve.log: text for people, JSON for machines, and the request log off unless asked for."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from pyserve import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    logger = logging.getLogger("pyserve")
    requests = logging.getLogger(log.REQUEST_LOGGER)
    before = (logger.handlers[:], logger.level, logger.propagate, requests.level)
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
    requests.setLevel(before[3])


def test_json_lines_are_one_object_each_with_their_extra_fields() -> None:
    stream = io.StringIO()
    log.set_up("json", stream=stream)
    logger = logging.getLogger("pyserve.server")
    logger.info("ready at %s", "here", extra={"port": 8000, "odd": {1, 2}, "thing": object})
    try:
        raise ValueError("no\nway")
    except ValueError:
        logger.exception("two\nlines")
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert first.pop("time").endswith("Z")
    assert first.pop("odd") is not None
    assert first == {
        "level": "info",
        "logger": "pyserve.server",
        "message": "ready at here",
        "port": 8000,
        "thing": "<class 'object'>",
    }
    assert second["message"] == "two\nlines"
    assert "ValueError: no" in second["exception"]


def test_what_has_no_json_form_is_written_all_the_same() -> None:
    stream = io.StringIO()
    log.set_up("json", stream=stream)
    loop: list[object] = []
    loop.append(loop)
    logging.getLogger("pyserve").info("lone \udc80", extra={"loop": loop, "key": {(1, 2): 3}})
    [line] = stream.getvalue().splitlines()
    assert "lone" in json.loads(line)["message"]


def test_text_lines_carry_time_level_and_message() -> None:
    stream = io.StringIO()
    log.set_up("text", stream=stream)
    logging.getLogger("pyserve.x").warning("careful with %d", 3)
    time, level, message = stream.getvalue().rstrip("\n").split(maxsplit=2)
    assert len(time) == len("12:34:56.789")
    assert (level, message) == ("warning", "careful with 3")


def test_the_level_holds_and_a_second_set_up_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    log.set_up(level="debug", stream=first)
    log.set_up(level="error", stream=second)
    logging.getLogger("pyserve.x").warning("quiet")
    logging.getLogger("pyserve.x").error("loud")
    assert first.getvalue() == ""
    assert second.getvalue().endswith("loud\n")
    assert second.getvalue().count("\n") == 1


def test_the_request_log_is_off_unless_asked_for() -> None:
    stream = io.StringIO()
    log.set_up(stream=stream)
    assert log.request_log() is None
    log.set_up(stream=stream, requests=True)
    logger = log.request_log()
    assert logger is not None
    logger.info("POST /v2 200")
    assert "POST /v2 200" in stream.getvalue()
