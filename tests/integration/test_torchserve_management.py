"""TorchServe's management API: the flows of its own Postman collections, in their order."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from archives import HANDLER, OWN_INFERENCE, Affine, Scaled, archive, script
from server_process import Reply, Server, eventually, start


class Store:
    """A model store, and a server that began with nothing of it loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: Server
        self.allowed = ""


def build(folder: Path) -> Path:
    store = folder / "store"
    store.mkdir()
    for version, factor in (("1.0", 10.0), ("2.0", 20.0), ("beta", 30.0)):
        path = script(Scaled(factor), folder / f"scaled{factor}.pt")
        options = ("--serialized-file", str(path))
        archive(store, "scaled", *options, version=version)
        (store / "scaled.mar").rename(store / f"scaled-{version}.mar")
    affine = str(script(Affine(), folder / "affine.pt"))
    archive(store, "line", "--serialized-file", affine)
    archive(store, "folded", "--serialized-file", affine, "--archive-format", "no-archive")
    broken = folder / "broken.pt"
    broken.write_bytes(b"no model")
    archive(store, "broken", "--serialized-file", str(broken))
    (store / "torn.mar").write_bytes((store / "line.mar").read_bytes()[:300])
    alone = folder / "alone.py"
    alone.write_text(OWN_INFERENCE)
    archive(store, "alone", "--serialized-file", affine, handler=str(alone))
    doubler = folder / "doubler.py"
    doubler.write_text(HANDLER)
    archive(store, "doubler", "--serialized-file", affine, handler=str(doubler))
    return store


class Files(BaseHTTPRequestHandler):
    """Serves the model store under /mars/, redirects, and nothing else."""

    store: Path

    def do_GET(self) -> None:
        if self.path.startswith("/mars/away"):
            self.send_response(302)
            self.send_header("Location", "/elsewhere/line.mar")
            self.end_headers()
            return
        if self.path == "/mars/here":
            self.send_response(302)
            self.send_header("Location", "/mars/line.mar")
            self.end_headers()
            return
        file = self.store / Path(self.path).name
        found = file.is_file()
        self.send_response(200 if found else 404)
        self.end_headers()
        if found:
            self.wfile.write(file.read_bytes())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("management")
    made = Store(build(folder))
    handler = type("Handler", (Files,), {"store": made.folder})
    files = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=files.serve_forever)
    thread.start()
    made.allowed = f"http://127.0.0.1:{files.server_port}/mars/"
    config = folder / "config.properties"
    config.write_text(f"load_models=none\nmodel_store={made.folder}\n")
    options = ("--ts-config", str(config), "--allowed-url", made.allowed, "--allow-handlers")
    try:
        with start(folder / "log", *options) as server:
            made.server = server
            yield made
            assert server.stop() == 0
    finally:
        files.shutdown()
        thread.join()
        files.server_close()


@pytest.fixture
def server(running: Store) -> Iterator[Server]:
    """The server, with nothing registered, before and after."""
    yield running.server
    for model in running.server.get("/models").json["models"]:
        name = model["modelName"]
        described = running.server.get(f"/models/{name}/all").json
        first = running.server.get(f"/models/{name}").json[0]["modelVersion"]
        for one in described:
            if one["modelVersion"] != first:
                running.server.ask("DELETE", f"/models/{name}/{one['modelVersion']}")
        running.server.ask("DELETE", f"/models/{name}")


def register(server: Server, url: str, **parameters: object) -> Reply:
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return server.ask("POST", f"/models?url={url}&{query}")


def registered(server: Server, url: str, **parameters: object) -> None:
    reply = register(server, url, initial_workers=1, synchronous="true", **parameters)
    assert reply.status == 200, reply.body


def refused(reply: Reply, code: int, kind: str) -> str:
    assert reply.status == code, reply.body
    value = reply.json
    assert list(value) == ["code", "type", "message"]
    assert (value["code"], value["type"]) == (code, kind)
    return str(value["message"])


def predict(server: Server, path: str) -> object:
    reply = server.ask("POST", f"/predictions/{path}", b"[1]")
    assert reply.status == 200, reply.body
    return reply.json


def test_a_server_with_an_empty_store_is_healthy(server: Server) -> None:
    assert server.get("/models").json == {"models": []}
    assert server.get("/ping").json == {"status": "Healthy"}


def test_registered_without_workers_a_model_is_listed_and_cannot_be_asked(
    server: Server,
) -> None:
    reply = register(server, "line.mar")
    assert reply.status == 200
    assert reply.json["status"] == (
        'Model "line" Version: 1.0 registered with 0 initial workers. Use scale workers API to '
        "add workers for the model."
    )
    assert server.get("/models").json["models"] == [{"modelName": "line", "modelUrl": "line.mar"}]
    assert server.get("/models/line").json[0]["workers"] == []
    reply = server.ask("POST", "/predictions/line", b"[1]")
    assert "has no worker" in refused(reply, 503, "ServiceUnavailableException")


def test_workers_can_be_added_and_taken_away(server: Server) -> None:
    register(server, "line.mar")
    reply = server.ask("PUT", "/models/line?min_worker=2&synchronous=true")
    assert (reply.status, reply.json["status"]) == (200, "Workers scaled to 2 for model: line")
    described = server.get("/models/line").json[0]
    assert (described["minWorkers"], described["maxWorkers"]) == (2, 2)
    assert [one["status"] for one in described["workers"]] == ["READY", "READY"]
    assert predict(server, "line") == [3.0]
    reply = server.ask("PUT", "/models/line/1.0?min_worker=1&max_worker=1&synchronous=true")
    assert reply.json["status"] == "Workers scaled to 1 for model: line, version: 1.0"
    assert len(server.get("/models/line").json[0]["workers"]) == 1
    assert server.ask("PUT", "/models/line?min_worker=0&synchronous=true").status == 200
    reply = server.ask("POST", "/predictions/line", b"[1]")
    refused(reply, 503, "ServiceUnavailableException")


def test_without_synchronous_a_change_is_accepted_and_then_made(server: Server) -> None:
    reply = register(server, "line.mar", initial_workers=1)
    assert (reply.status, reply.json) == (202, {"status": "Processing worker updates..."})
    eventually(lambda: len(server.get("/models/line").json[0]["workers"]) == 1, "it is loaded")
    reply = server.ask("PUT", "/models/line?min_worker=3")
    assert (reply.status, reply.json) == (202, {"status": "Processing worker updates..."})
    eventually(lambda: len(server.get("/models/line").json[0]["workers"]) == 3, "it is scaled")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (
            b'{"url": "line.mar", "model_name": "mine", "initial_workers": 1, "synchronous": true}',
            "application/json",
        ),
        (
            b"url=line.mar&model_name=mine&initial_workers=1&synchronous=true",
            "application/x-www-form-urlencoded",
        ),
    ],
)
def test_parameters_may_come_in_the_body(server: Server, body: bytes, content_type: str) -> None:
    reply = server.ask("POST", "/models", body, {"Content-Type": content_type})
    assert reply.json == {"status": 'Model "mine" Version: 1.0 registered with 1 initial workers'}
    assert predict(server, "mine") == [3.0]


def test_what_is_no_number_is_ignored(server: Server) -> None:
    assert register(server, "line.mar", initial_workers="many", batch_size="x").status == 200
    reply = server.get("/models?limit=lots&next_page_token=-")
    assert len(reply.json["models"]) == 1


def test_batch_size_delay_and_timeout_are_taken_over(server: Server) -> None:
    registered(
        server, "line.mar", batch_size=4, max_batch_delay=200, response_timeout=7, runtime="python"
    )
    described = server.get("/models/line").json[0]
    assert (described["maxBatchDelay"], described["responseTimeout"]) == (200, 7)
    assert described["modelUrl"] == "line.mar"
    assert described["loadedAtStartup"] is False
    assert described["jobQueueStatus"] == {"remainingCapacity": 1024, "pendingRequests": 0}


def test_the_list_comes_in_pages(server: Server) -> None:
    for name in ("a", "b", "c"):
        register(server, "line.mar", model_name=name)
    first = server.get("/models?limit=2").json
    assert [one["modelName"] for one in first["models"]] == ["a", "b"]
    assert first["nextPageToken"] == "2"
    second = server.get(f"/models?limit=2&next_page_token={first['nextPageToken']}").json
    assert [one["modelName"] for one in second["models"]] == ["c"]
    assert "nextPageToken" not in second


def test_versions_have_the_names_of_their_archives(server: Server) -> None:
    for version in ("1.0", "2.0", "beta"):
        registered(server, f"scaled-{version}.mar")
    assert predict(server, "scaled/1.0") == [10.0]
    assert predict(server, "scaled/2.0") == [20.0]
    assert predict(server, "scaled/2") == [20.0]
    assert predict(server, "scaled/beta") == [30.0]
    assert predict(server, "scaled") == [10.0], "the first version is the default one"
    described = server.get("/models/scaled/all").json
    assert [one["modelVersion"] for one in described] == ["1.0", "2.0", "beta"]
    assert [one["defaultVersion"] for one in described] == [True, False, False]
    assert server.get("/models/scaled/2.0").json[0]["modelUrl"] == "scaled-2.0.mar"


def test_another_version_can_be_the_default_and_the_default_goes_last(server: Server) -> None:
    registered(server, "scaled-1.0.mar")
    registered(server, "scaled-2.0.mar")
    refused(server.ask("DELETE", "/models/scaled/1.0"), 403, "InvalidModelVersionException")
    refused(server.ask("DELETE", "/models/scaled"), 403, "InvalidModelVersionException")
    reply = server.ask("PUT", "/models/scaled/2.0/set-default")
    assert reply.status == 200
    assert predict(server, "scaled") == [20.0]
    assert server.ask("DELETE", "/models/scaled/1.0").status == 200
    refused(
        server.ask("POST", "/predictions/scaled/1.0", b"[1]"), 404, "ModelVersionNotFoundException"
    )
    reply = server.ask("DELETE", "/models/scaled/2.0")
    assert reply.json == {"status": 'Model "scaled" unregistered'}
    refused(server.ask("POST", "/predictions/scaled", b"[1]"), 404, "ModelNotFoundException")
    registered(server, "scaled-1.0.mar")
    assert predict(server, "scaled") == [10.0], "it can be registered again"


def test_one_version_may_be_without_workers(server: Server) -> None:
    registered(server, "scaled-1.0.mar")
    register(server, "scaled-2.0.mar")
    assert predict(server, "scaled/1.0") == [10.0]
    reply = server.ask("POST", "/predictions/scaled/2.0", b"[1]")
    refused(reply, 503, "ServiceUnavailableException")


def test_duplicates_are_conflicts(server: Server) -> None:
    registered(server, "line.mar")
    message = refused(register(server, "line.mar"), 409, "ConflictStatusException")
    assert message == "Model version 1.0 is already registered for model line"


def test_a_folder_is_an_archive_too(server: Server) -> None:
    registered(server, "folded")
    assert predict(server, "folded") == [3.0]


def test_customized_metadata_is_text(server: Server) -> None:
    registered(server, "line.mar")
    described = server.get("/models/line?customized=true").json[0]
    assert json.loads(described["customizedMetadata"])["inputs"][0]["name"] == "x"
    assert "customizedMetadata" not in server.get("/models/line").json[0]


@pytest.mark.parametrize(
    ("url", "code", "kind"),
    [
        ("", 400, "BadRequestException"),
        ("nothing.mar", 400, "InvalidModelException"),
        ("../store/line.mar", 400, "InvalidModelException"),
        ("/etc/passwd", 400, "InvalidModelException"),
        ("file:///etc/passwd", 400, "InvalidModelException"),
        ("line.mar%00", 400, "InvalidModelException"),
        ("torn.mar", 400, "InvalidModelException"),
        ("broken.mar", 400, "InvalidModelException"),
        ("http://169.254.1.1/mars/line.mar", 403, "PermissionDeniedException"),
        ("ftp://127.0.0.1/line.mar", 403, "PermissionDeniedException"),
    ],
)
def test_what_cannot_be_registered_is_refused(
    server: Server, url: str, code: int, kind: str
) -> None:
    refused(register(server, url), code, kind)
    assert server.get("/models").json == {"models": []}


def test_archives_come_from_allowed_urls(running: Store, server: Server) -> None:
    registered(server, f"{running.allowed}line.mar")
    assert predict(server, "line") == [3.0]
    registered(server, f"{running.allowed}here", model_name="redirected")
    reply = register(server, f"{running.allowed}away", model_name="away")
    refused(reply, 403, "PermissionDeniedException")
    reply = register(server, f"{running.allowed}missing.mar")
    assert "404" in refused(reply, 400, "DownloadArchiveException")
    reply = register(server, f"{running.allowed}../elsewhere/line.mar")
    refused(reply, 403, "PermissionDeniedException")
    reply = register(server, running.allowed.replace("127.0.0.1", "127.0.0.1.nip.example"))
    refused(reply, 403, "PermissionDeniedException")


def test_an_own_handler_is_loaded_or_says_why_not(server: Server) -> None:
    registered(server, "doubler.mar")
    reply = register(server, "alone.mar", initial_workers=1, synchronous="true")
    message = refused(reply, 500, "InternalServerException")
    assert "Alone.inference runs the model itself" in message
    assert [one["modelName"] for one in server.get("/models").json["models"]] == ["doubler"]


def test_a_default_handler_may_stand_in_for_the_archives_own(server: Server) -> None:
    registered(server, "doubler.mar", handler="serve/ts/torch_handler/base_handler.py:handle")
    assert predict(server, "doubler") == [3.0]


def test_who_is_not_there_cannot_be_changed(server: Server) -> None:
    for method, path in (
        ("GET", "/models/nobody"),
        ("GET", "/models/nobody/all"),
        ("PUT", "/models/nobody?min_worker=1"),
        ("DELETE", "/models/nobody"),
        ("PUT", "/models/nobody/1.0/set-default"),
    ):
        refused(server.ask(method, path), 404, "ModelNotFoundException")
    register(server, "line.mar")
    for method, path in (
        ("GET", "/models/line/9.0"),
        ("PUT", "/models/line/9.0?min_worker=1"),
        ("DELETE", "/models/line/9.0"),
        ("PUT", "/models/line/9.0/set-default"),
    ):
        refused(server.ask(method, path), 404, "ModelVersionNotFoundException")


def test_scaling_makes_sense_or_is_refused(server: Server) -> None:
    register(server, "line.mar")
    reply = server.ask("PUT", "/models/line?min_worker=3&max_worker=2")
    assert refused(reply, 400, "BadRequestException") == (
        "max_worker cannot be less than min_worker."
    )
    refused(server.ask("PUT", "/models/line?min_worker=5000"), 400, "BadRequestException")
    refused(server.ask("PUT", "/models/line?min_worker=-1"), 400, "BadRequestException")


def test_wrong_methods_are_refused(server: Server) -> None:
    refused(server.ask("PATCH", "/models"), 405, "MethodNotAllowedException")
    refused(server.ask("POST", "/models/line"), 405, "MethodNotAllowedException")


def test_web_pages_may_change_nothing(server: Server) -> None:
    origin = {"Origin": "https://evil.example"}
    for method, path in (
        ("POST", "/models?url=line.mar"),
        ("PUT", "/models/line?min_worker=1"),
        ("PUT", "/models/line/1.0/set-default"),
        ("DELETE", "/models/line"),
    ):
        refused(server.ask(method, path, b"", origin), 403, "PermissionDeniedException")


def test_models_of_a_repository_are_managed_in_the_same_words(
    model_repository: Path, tmp_path: Path
) -> None:
    options = ("--model-repository", str(model_repository), "--load-model", "affine")
    with start(tmp_path / "log", *options) as server:
        described = server.get("/models/affine").json[0]
        assert (described["modelName"], described["modelVersion"]) == ("affine", "1")
        assert server.get("/models").json["models"] == [
            {"modelName": "affine", "modelUrl": "affine"}
        ]
        reply = server.ask("POST", "/predictions/affine/1.0", b"[1, 2, 3, 4]")
        assert reply.json == [3.0, 5.0, 7.0, 9.0]
        reply = server.ask("POST", "/predictions/affine", b"[[1, 2, 3, 4], [0, 0, 0, 0]]")
        assert reply.json == [[3.0, 5.0, 7.0, 9.0], [1.0, 1.0, 1.0, 1.0]]
        refused(server.ask("POST", "/predictions/affine", b"[1, 2]"), 400, "BadRequestException")
        assert server.ask("PUT", "/models/affine?min_worker=2&synchronous=true").status == 200
        assert len(server.get("/models/affine").json[0]["workers"]) == 2
        assert server.ask("PUT", "/models/affine/1.0/set-default").status == 200
        reply = server.ask("POST", "/models?url=affine.mar")
        assert "--model-store" in refused(reply, 400, "BadRequestException")
        assert server.ask("DELETE", "/models/affine").status == 200
        refused(server.ask("GET", "/models/affine"), 404, "ModelNotFoundException")
        assert server.stop() == 0


def test_control_none_changes_nothing(tmp_path: Path) -> None:
    store = build(tmp_path)
    (store / "torn.mar").unlink()
    with start(tmp_path / "log", "--model-store", str(store), "--model-control", "none") as server:
        assert predict(server, "line") == [3.0]
        reply = server.ask("DELETE", "/models/line")
        refused(reply, 403, "PermissionDeniedException")
        assert server.stop() == 0
