"""TorchServe's inference API on archives that TorchServe's own archiver made."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from archives import build_store
from PIL import Image
from server_process import PATIENCE_S, Reply, Server, start


@pytest.fixture(scope="module")
def torchserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("torchserve")
    store = build_store(folder)
    config = folder / "config.properties"
    config.write_text(
        "inference_address=http://127.0.0.1:0\nmanagement_address=http://127.0.0.1:0\n"
        "metrics_address=http://127.0.0.1:0\ngrpc_inference_port=0\ngrpc_management_port=0\n"
        "number_of_netty_threads=32\nload_models=all\n"
    )
    options = ("--model-store", str(store), "--ts-config", str(config), "--torchserve-ports")
    with start(folder / "log", *options, "--allow-handlers") as server:
        yield server
        assert server.stop() == 0


def ask_at(url: str, method: str, path: str, body: bytes = b"") -> Reply:
    """Send one request to another port of the server."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    connection = HTTPConnection(host, int(port), timeout=PATIENCE_S)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, headers, response.read())
    finally:
        connection.close()


def picture(colour: tuple[int, int, int], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (300, 260), colour).save(file, kind)
    return file.getvalue()


def form(**fields: bytes) -> tuple[bytes, dict[str, str]]:
    body = b""
    for name, value in fields.items():
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n'
        body += head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + value + b"\r\n"
    return body + b"--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}


def refused(reply: Reply, code: int, kind: str) -> str:
    """Check the one form of an error, and return its message."""
    assert reply.status == code, reply.body
    value = reply.json
    assert list(value) == ["code", "type", "message"]
    assert (value["code"], value["type"]) == (code, kind)
    return str(value["message"])


def test_everything_in_the_store_is_served_and_the_ready_line_says_where(
    torchserve: Server,
) -> None:
    assert torchserve.ready["failed"] == {}
    assert sorted(torchserve.ready["models"]) == [
        *("colours", "doubler", "line", "pair", "segments", "tally")
    ]
    assert set(torchserve.ready["torchserve"]) == {
        *("inference", "management", "metrics", "grpc_inference", "grpc_management")
    }
    assert "number_of_netty_threads" in torchserve.ready["not_understood"][0]


@pytest.mark.parametrize("path", ["/ping", "/ping/"])
def test_ping_is_healthy_when_all_is_loaded(torchserve: Server, path: str) -> None:
    reply = torchserve.get(path)
    assert (reply.status, reply.json) == (200, {"status": "Healthy"})
    assert reply.headers["x-request-id"]
    assert reply.headers["pragma"] == "no-cache"


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
@pytest.mark.parametrize("path", ["/predictions/colours", "/predictions/colours/1.0/"])
def test_a_picture_is_classified_by_each_method_and_path(
    torchserve: Server, method: str, path: str
) -> None:
    reply = torchserve.ask(method, path, picture((250, 120, 10)))
    assert reply.status == 200, reply.body
    assert list(reply.json) == ["red", "green", "blue"]
    assert sum(reply.json.values()) == pytest.approx(1, abs=1e-5)
    assert "preprocess;dur=" in reply.headers["server-timing"]


@pytest.mark.parametrize("field", ["data", "body"])
def test_a_picture_may_come_in_a_form(torchserve: Server, field: str) -> None:
    body, headers = form(**{field: picture((1, 1, 250), "JPEG")})
    reply = torchserve.ask("POST", "/predictions/colours", body, headers)
    assert next(iter(reply.json)) == "blue"


def test_a_large_form_is_read_whole(torchserve: Server) -> None:
    noise = Image.effect_noise((700, 700), 90).convert("RGB")
    file = io.BytesIO()
    noise.save(file, "PNG")
    assert len(file.getvalue()) > 200_000
    body, headers = form(data=file.getvalue())
    assert torchserve.ask("POST", "/predictions/colours", body, headers).status == 200


def test_instances_are_answered_as_predictions(torchserve: Server) -> None:
    text = base64.b64encode(picture((1, 250, 1))).decode()
    instances = {"instances": [{"data": text}, {"b64": text}, text]}
    reply = torchserve.ask("POST", "/predictions/colours", json.dumps(instances).encode())
    best = [next(iter(row)) for row in reply.json["predictions"]]
    assert best == ["green", "green", "green"]


def test_a_picture_is_segmented(torchserve: Server) -> None:
    reply = torchserve.ask("POST", "/predictions/segments", picture((250, 0, 0)))
    assert reply.status == 200, reply.body
    assert (len(reply.json), len(reply.json[0])) == (224, 224)
    kind, probability = reply.json[100][100]
    assert kind == 1
    assert 0.9 < probability <= 1


def test_text_is_classified_into_every_class(torchserve: Server) -> None:
    reply = torchserve.ask("POST", "/predictions/tally", "good good ünknown good".encode())
    assert reply.status == 200, reply.body
    assert list(reply.json) == ["good", "other"]
    assert reply.json["good"] > reply.json["other"]
    reply = torchserve.ask("POST", "/predictions/tally", b'{"instances": ["good", "bad bad"]}')
    assert [next(iter(row)) for row in reply.json["predictions"]] == ["good", "other"]


def test_a_bad_picture_is_the_clients_fault(torchserve: Server) -> None:
    reply = torchserve.ask("POST", "/predictions/colours", b"no picture at all")
    assert "element 0" in refused(reply, 400, "BadRequestException")


@pytest.mark.parametrize(
    "body",
    [b"[1, 2]", b' {"data": [1, 2]}', b'{"body": [1, 2]}', b'{"x": [1, 2]}'],
)
@pytest.mark.parametrize("content_type", ["application/json", "", "text/plain"])
def test_json_is_one_row_and_so_is_the_answer(
    torchserve: Server, body: bytes, content_type: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    reply = torchserve.ask("POST", "/predictions/line", body, headers)
    assert (reply.status, reply.json) == (200, [3.0, 5.0]), reply.body
    assert reply.headers["content-type"] == "application/json"


def test_what_curl_calls_a_form_is_a_body(torchserve: Server) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert torchserve.ask("POST", "/predictions/line", b"[1, 2]", headers).json == [3.0, 5.0]
    reply = torchserve.ask("POST", "/predictions/line", b"data=%5B1%2C+2%5D", headers)
    assert reply.json == [3.0, 5.0]


def test_the_bytes_of_a_row_may_come_as_they_are(torchserve: Server) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    body = struct.pack("<3f", 1, 2, 3)
    assert torchserve.ask("POST", "/predictions/line", body, headers).json == [3.0, 5.0, 7.0]


def test_nested_rows_keep_their_shape(torchserve: Server) -> None:
    reply = torchserve.ask("POST", "/predictions/line", b"[[1, 2], [3, 4]]")
    assert reply.json == [[3.0, 5.0], [7.0, 9.0]]
    reply = torchserve.ask("POST", "/predictions/line", b'{"instances": [[1, 2], [3, 4]]}')
    assert reply.json == {"predictions": [[3.0, 5.0], [7.0, 9.0]]}


def test_several_inputs_and_outputs_go_by_their_names(torchserve: Server) -> None:
    reply = torchserve.ask("POST", "/predictions/pair", b'{"a": [5, 6], "b": [1, 2]}')
    assert reply.json == {"sum": [6.0, 8.0], "difference": [4.0, 4.0]}
    body, headers = form(a=struct.pack("<2f", 5, 6), b=struct.pack("<2f", 1, 2))
    assert torchserve.ask("POST", "/predictions/pair", body, headers).json == reply.json


def test_a_missing_input_is_named(torchserve: Server) -> None:
    reply = torchserve.ask("POST", "/predictions/pair", b'{"a": [5, 6]}')
    assert '"b"' in refused(reply, 400, "BadRequestException")


def test_a_handler_of_the_archives_own_runs_round_the_engine(torchserve: Server) -> None:
    reply = torchserve.ask("POST", "/predictions/doubler", b'{"x": [1, 2]}')
    assert reply.json == {"y": [3.0, 5.0], "version": "1"}


def test_a_handler_that_raises_is_the_models_failure(torchserve: Server) -> None:
    reply = torchserve.ask("POST", "/predictions/doubler", b'{"y": [1, 2]}')
    assert "KeyError" in refused(reply, 500, "InternalServerException")


def test_who_is_not_there_is_not_found(torchserve: Server) -> None:
    reply = torchserve.ask("POST", "/predictions/nobody", b"[1]")
    refused(reply, 404, "ModelNotFoundException")
    reply = torchserve.ask("POST", "/predictions/line/7.5", b"[1]")
    refused(reply, 404, "ModelVersionNotFoundException")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"[1, 2", {"Content-Type": "application/json"}),
        (b'["a"]', {"Content-Type": "application/json"}),
        (b"[[1], [2, 3]]", {"Content-Type": "application/json"}),
        (b"[" * 100_000, {"Content-Type": "application/json"}),
        (b"abc", {"Content-Type": "application/octet-stream"}),
        (b"--b\r\n", {"Content-Type": "multipart/form-data; boundary=b"}),
        (b"junk", {"Content-Type": "multipart/form-data"}),
        (b'{"instances": []}', {}),
    ],
)
def test_bad_bodies_are_refused(torchserve: Server, body: bytes, headers: dict[str, str]) -> None:
    reply = torchserve.ask("POST", "/predictions/line", body, headers)
    refused(reply, 400, "BadRequestException")


def test_explanations_are_refused_in_words(torchserve: Server) -> None:
    reply = torchserve.ask("POST", "/explanations/line", b"[1]")
    refused(reply, 501, "NotImplementedException")
    refused(torchserve.ask("POST", "/explanations/nobody"), 404, "ModelNotFoundException")


@pytest.mark.parametrize("method_and_path", ["GET /api-description", "OPTIONS /"])
def test_the_api_describes_itself(torchserve: Server, method_and_path: str) -> None:
    method, path = method_and_path.split()
    for reply in (
        torchserve.ask(method, path),
        ask_at(torchserve.ready["torchserve"]["inference"], method, path),
    ):
        assert reply.status == 200
        assert "/predictions/{model}" in reply.json["paths"]
        assert "/v2" not in reply.json["paths"]


def test_a_model_describes_how_to_predict_with_it(torchserve: Server) -> None:
    reply = torchserve.ask("OPTIONS", "/predictions/line")
    assert "post" in reply.json["paths"]["/predictions/line"]


def test_each_port_has_its_part_of_the_api_and_its_errors(torchserve: Server) -> None:
    ports = torchserve.ready["torchserve"]
    assert ask_at(ports["inference"], "POST", "/predictions/line", b"[1]").json == [3.0]
    assert ask_at(ports["management"], "GET", "/models").status == 200
    assert b"pyserve_requests_total" in ask_at(ports["metrics"], "GET", "/metrics").body
    reply = ask_at(ports["inference"], "GET", "/models")
    refused(reply, 404, "ResourceNotFoundException")
    refused(ask_at(ports["metrics"], "GET", "/ping"), 404, "ResourceNotFoundException")
    reply = ask_at(ports["management"], "PATCH", "/models")
    refused(reply, 405, "MethodNotAllowedException")
    assert "GET" in reply.headers["allow"]


def test_the_main_port_keeps_its_own_words_for_unknown_paths(torchserve: Server) -> None:
    assert torchserve.get("/nowhere").error
    refused(torchserve.ask("PATCH", "/ping"), 405, "MethodNotAllowedException")


def test_an_archive_is_a_model_for_every_other_door_too(torchserve: Server) -> None:
    inputs = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    reply = torchserve.infer("line", {"inputs": [inputs]})
    assert reply.json["outputs"][0]["data"] == [3.0, 5.0]
    assert torchserve.get("/v2/models/line/versions/1.0/ready").status == 200


def test_a_handler_is_refused_without_being_allowed(tmp_path: Path) -> None:
    store = build_store(tmp_path)
    with start(tmp_path / "log", "--model-store", str(store)) as server:
        assert "doubler" not in server.ready["models"]
        assert "--allow-handlers" in server.ready["failed"]["doubler.mar"]
        assert server.ask("POST", "/predictions/line", b"[1, 2]").json == [3.0, 5.0]
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "torch/_C." not in maps, "torch's Python package was imported"
        assert server.stop() == 0
