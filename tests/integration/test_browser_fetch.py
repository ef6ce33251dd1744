"""A web page of another origin asks a model: in a browser, and with the headers that one sends."""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import needs_browser, rendered
from server_process import ROOT, Server, numbers, start

GOOD = json.dumps(numbers(1, 2, 3, 4)).encode()
INFER = "/v2/models/affine/infer"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Where the page comes from: the examples, served by another process's port."""
    handler = functools.partial(Quiet, directory=str(ROOT / "examples"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as pages:
        thread = threading.Thread(target=pages.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{pages.server_port}"
        pages.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(
    origin: str, model_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that allows pages of `origin`; it must end cleanly."""
    log = tmp_path_factory.mktemp("server") / "log"
    options = ["--load-model", "affine", "--cors-origin", origin]
    with start(log, "--model-repository", str(model_repository), *options) as running:
        yield running
        assert running.stop() == 0


def shown(page: str) -> str:
    found = re.search(r"<output.*?>(.*?)</output>", page)
    assert found is not None, page
    return found[1]


@needs_browser
def test_the_example_shows_the_answer(server: Server, origin: str, tmp_path: Path) -> None:
    page, _ = rendered(f"{origin}/browser_fetch.html?server={server.url}", tmp_path)
    assert shown(page) == "3, 5, 7, 9"


@needs_browser
def test_a_page_of_an_origin_that_is_not_listed_gets_nothing(
    server: Server, origin: str, tmp_path: Path
) -> None:
    elsewhere = origin.replace("127.0.0.1", "localhost")
    page, _ = rendered(f"{elsewhere}/browser_fetch.html?server={server.url}", tmp_path)
    assert shown(page).startswith("failed: ")


def test_a_preflight_of_a_listed_origin_is_allowed(server: Server, origin: str) -> None:
    reply = server.ask("OPTIONS", INFER, headers={"Origin": origin} | PREFLIGHT)
    assert reply.status in (200, 204)
    assert reply.headers["access-control-allow-origin"] == origin
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert "content-type" in reply.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in reply.headers


def test_an_answer_and_an_error_to_a_listed_origin_may_be_read(server: Server, origin: str) -> None:
    headers = {"Origin": origin, "Content-Type": "application/json"}
    for body, status in ((GOOD, 200), (b"{}", 400)):
        reply = server.ask("POST", INFER, body, headers)
        assert reply.status == status
        assert reply.headers["access-control-allow-origin"] == origin
        assert "origin" in reply.headers["vary"].lower()


@pytest.mark.parametrize("other", ["http://127.0.0.1:1", "null", "https://example.org"])
def test_another_origin_is_told_nothing(server: Server, other: str) -> None:
    asked = server.ask("OPTIONS", INFER, headers={"Origin": other} | PREFLIGHT)
    sent = server.ask("POST", INFER, GOOD, {"Origin": other})
    for reply in (asked, sent):
        assert not any(name.startswith("access-control") for name in reply.headers)


def test_without_an_origin_nothing_is_said_about_it(server: Server) -> None:
    reply = server.ask("POST", INFER, GOOD)
    assert reply.status == 200
    assert not any(name.startswith("access-control") for name in reply.headers)


def test_a_listed_origin_may_still_not_change_models_without_a_token(
    server: Server, origin: str
) -> None:
    reply = server.ask("POST", "/v2/repository/models/affine/unload", headers={"Origin": origin})
    assert reply.status == 403
    assert server.ask("POST", INFER, GOOD).status == 200
