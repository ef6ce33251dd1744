"""Images, recordings, text, tables and arrays sent to a real server."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import soundfile
import tritonclient.http as triton
from PIL import Image
from processed_models import build_repository
from server_process import Reply, Server, start, tensor
from tokenizers import Tokenizer

from pyserve.signature import decode_bytes_elements, encode_bytes_elements

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_repository(tmp_path_factory.mktemp("processed"))


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    arguments = ("--model-repository", str(repository), "--allow-handlers")
    with start(log, *arguments) as running:
        yield running
        assert running.stop() == 0


def rows(name: str, *elements: bytes, outputs: list[dict[str, Any]] | None = None) -> bytes:
    """A request in binary form with one file in each row."""
    blob = encode_bytes_elements(elements)
    header: dict[str, Any] = {
        "inputs": [
            {
                "name": name,
                "datatype": "BYTES",
                "shape": [len(elements), 1],
                "parameters": {"binary_data_size": len(blob)},
            }
        ]
    }
    if outputs is not None:
        header["outputs"] = outputs
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "big") + text + blob


def send(server: Server, model: str, request: bytes) -> Reply:
    length = int.from_bytes(request[:4], "big")
    headers = {"Inference-Header-Content-Length": str(length)}
    return server.infer(model, request[4:], headers)


def answers(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, reply.body
    return {one["name"]: one["data"] for one in reply.json["outputs"]}


def photo(colour: tuple[int, int, int], size: tuple[int, int] = (30, 20)) -> Image.Image:
    return Image.new("RGB", size, colour)


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


RED = encoded(photo((250, 10, 5)), "JPEG")
BLUE = encoded(photo((5, 60, 250)), "PNG")
NOISE = encoded(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG"
)
GREEN = encoded(photo((5, 250, 60), (9, 40)), "WEBP")


def softmax(*values: float) -> Array:
    powers = np.exp(np.array(values))
    return np.asarray(powers / powers.sum())


# --- images and classes -------------------------------------------------------------------


def test_pictures_in_classes_out(server: Server) -> None:
    found = answers(send(server, "colours", rows("image", RED, BLUE, GREEN)))
    assert found["labels"] == ["red", "green", "blue", "green", "green", "blue"]
    scores = np.reshape(found["scores"], (3, 2))
    expected = softmax(5 / 255, 60 / 255, 250 / 255)
    np.testing.assert_allclose(scores[1], [expected[2], expected[1]], rtol=1e-5)


def test_a_raw_body_is_one_picture(server: Server) -> None:
    reply = server.infer("colours", RED, {"Inference-Header-Content-Length": "0"})
    assert reply.status == 200, reply.body
    header = json.loads(reply.body[: int(reply.headers["inference-header-content-length"])])
    blob = reply.body[int(reply.headers["inference-header-content-length"]) :]
    size = header["outputs"][0]["parameters"]["binary_data_size"]
    assert decode_bytes_elements(blob[:size]) == [b"red", b"green"]


def test_tensors_and_outputs_of_the_models_own_still_work(server: Server) -> None:
    values = [float(number) for number in range(192)]
    request = {
        "inputs": [tensor("image", "FP32", [1, 3, 8, 8], values)],
        "outputs": [{"name": "logits"}],
    }
    reply = server.infer("colours", request)
    assert answers(reply)["logits"] == [31.5, 95.5, 159.5]


def test_metadata_say_what_clients_send_and_get(server: Server) -> None:
    metadata = server.get("/v2/models/colours").json
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}]
    assert metadata["outputs"] == [
        {"name": "labels", "datatype": "BYTES", "shape": [-1, 2]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, 2]},
    ]
    properties = metadata["properties"]
    assert (properties["preprocess"], properties["postprocess"]) == (["image"], ["classification"])
    assert properties["tensors"]["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [-1, 3, 8, 8]}
    ]
    config = server.get("/v2/models/colours/config").json
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    assert config["input"][0]["dims"] == [1]


def test_the_time_of_processing_is_in_the_timing(server: Server) -> None:
    timing = send(server, "colours", rows("image", RED)).headers["server-timing"]
    times = {name: float(ms) for name, ms in re.findall(r"([a-z-]+);dur=([\d.]+)", timing)}
    assert times["preprocess"] > 0
    assert times["postprocess"] > 0


def test_tritonclient_sends_pictures(server: Server) -> None:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        given = triton.InferInput("image", [2, 1], "BYTES")
        given.set_data_from_numpy(np.array([[RED], [GREEN]], dtype=object))
        result = client.infer("colours", [given])
        assert result.as_numpy("labels").tolist() == [[b"red", b"green"], [b"green", b"blue"]]


def test_many_pictures_at_once_get_each_its_own_answer(server: Server) -> None:
    pictures = {colour: encoded(photo(colour), "PNG") for colour in _colours(60)}

    def ask(item: tuple[tuple[int, int, int], bytes]) -> tuple[tuple[int, int, int], Any]:
        wanted = [{"name": "logits"}]
        return item[0], answers(send(server, "colours", rows("image", item[1], outputs=wanted)))

    with ThreadPoolExecutor(12) as pool:
        for colour, found in pool.map(ask, pictures.items()):
            np.testing.assert_allclose(found["logits"], np.array(colour) / 255, rtol=1e-5)


def _colours(count: int) -> list[tuple[int, int, int]]:
    random = np.random.default_rng(11)
    return [(int(r), int(g), int(b)) for r, g, b in random.integers(0, 256, (count, 3))]


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (b"not a picture", 'input "image", element 1: 13 bytes that are no JPEG, PNG, WebP'),
        (NOISE[:-100], 'input "image", element 1: a damaged or cut off JPEG image'),
        (RED[: len(RED) // 2], 'input "image", element 1: a damaged JPEG, PNG, WebP'),
        (encoded(Image.new("1", (9000, 9000)), "PNG"), "9000 x 9000 pixels are too large"),
    ],
)
def test_a_bad_picture_is_a_400_that_says_so(server: Server, element: bytes, message: str) -> None:
    reply = send(server, "colours", rows("image", RED, element))
    assert reply.status == 400
    assert message in reply.error


def test_too_many_rows_are_refused_before_they_are_decoded(server: Server) -> None:
    reply = send(server, "colours", rows("image", *[b""] * 17))
    assert reply.status == 400
    assert reply.error == 'input "image" has 17 rows, the model takes at most 16'


def test_the_event_loop_answers_while_pictures_are_decoded(server: Server) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)
    large = encoded(Image.fromarray(noise), "PNG")
    replies: list[Reply] = []
    thread = threading.Thread(
        target=lambda: replies.append(send(server, "colours", rows("image", large)))
    )
    thread.start()
    while thread.is_alive():
        assert server.get("/healthz").status == 200
    thread.join()
    timing = replies[0].headers["server-timing"]
    assert float(re.findall(r"preprocess;dur=([\d.]+)", timing)[0]) > 10


# --- the others ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_recordings_are_heard_at_the_models_rate(server: Server, kind: str) -> None:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([wave, wave], axis=1), 16000, format=kind, subtype="PCM_16")
    found = answers(send(server, "loudness", rows("recording", buffer.getvalue())))["y"]
    assert found[1] == 8000
    assert abs(found[0] - 0.5 / np.sqrt(2)) < 0.01


def test_texts_are_tokenized_as_the_library_does(server: Server, repository: Path) -> None:
    tokenizer = Tokenizer.from_file(str(repository / "tokens" / "tokenizer.json"))
    texts = ["the quick dog", "over", "", "größe"]
    request = {"inputs": [tensor("text", "BYTES", [len(texts)], texts)]}
    expected = [sum(tokenizer.encode(text).ids) for text in texts]
    assert answers(server.infer("tokens", request))["y"] == expected


def test_a_table_is_as_many_rows_as_it_has(server: Server) -> None:
    csv = b"c,name,a,b\n3,Ann,1,2\n6,Bob,4,5\n"
    assert answers(send(server, "weighted", rows("features", csv)))["y"] == [321, 654]
    sink = pa.BufferOutputStream()
    table = pa.table({"a": [1, 4], "b": [2, 5], "c": [3, 6]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    arrow = bytes(sink.getvalue())
    assert answers(send(server, "weighted", rows("features", arrow)))["y"] == [321, 654]
    raw = server.infer("weighted", csv, {"Inference-Header-Content-Length": "0"})
    assert raw.status == 200


def test_arrays_of_numpy_are_found_by_name(server: Server) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, b=np.array([[10.0, 20.0]]), a=np.array([[1.0, 2.0]]))
    assert answers(send(server, "sum", rows("arrays", buffer.getvalue())))["y"] == [11, 22]


def test_a_json_array_is_a_row(server: Server) -> None:
    request = {"inputs": [tensor("x", "BYTES", [2], ["[1, 2]", "[3, 4]"])]}
    assert answers(server.infer("listed", request))["y"] == [2, 4, 6, 8]


# --- Python of the model's ----------------------------------------------------------------


def test_a_class_of_the_models_own_runs_where_it_is_allowed(server: Server) -> None:
    request = {"inputs": [tensor("word", "BYTES", [2, 1], ["one", "two"])]}
    assert answers(server.infer("words", request)) == {"spoken": ["two", "four"]}
    metadata = server.get("/v2/models/words").json
    assert metadata["inputs"] == [{"name": "word", "datatype": "BYTES", "shape": [-1, 1]}]
    assert metadata["properties"]["preprocess"] == ["custom"]


def test_its_errors_are_told_without_what_is_not_for_clients(server: Server) -> None:
    bad = server.infer("words", {"inputs": [tensor("word", "BYTES", [1, 1], ["nine"])]})
    assert (bad.status, bad.error) == (400, "'nine' is no number from one to four")
    crash = server.infer("words", {"inputs": [tensor("word", "BYTES", [1, 1], ["crash"])]})
    assert crash.status == 500
    assert crash.error == 'model "words" version 1: preprocess raised RuntimeError'
    assert "not for clients: /secret/path" in server.log.read_text()


def test_a_configuration_that_does_not_fit_is_in_the_index(server: Server) -> None:
    index = server.ask("POST", "/v2/repository/index").json
    (line,) = [one for one in index if one["name"] == "misfit"]
    assert line["state"] == "UNAVAILABLE"
    assert 'preprocess[0]: input "x" is FP32, expected INT64 or INT32' in line["reason"]


def test_without_leave_python_of_a_model_is_not_run(repository: Path, tmp_path: Path) -> None:
    with start(tmp_path / "log", "--model-repository", str(repository), "--load-model", "words",
               "--load-model", "listed") as running:  # fmt: skip
        assert "--allow-handlers" in running.ready["failed"]["words"]
        maps = Path(f"/proc/{running.process.pid}/maps").read_text()
        assert "torch/_C." not in maps
        assert running.stop() == 0
