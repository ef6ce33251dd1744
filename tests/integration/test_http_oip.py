"""The Open Inference Protocol over HTTP, against a real server."""

import gzip
import json
import re
import struct
import threading
import zlib

import numpy as np
import pytest
import tritonclient.http as triton
from server_process import (
    Server,
    binary,
    both_lanes,
    floats,
    numbers,
    raw_post,
    read_reply,
    tensor,
)
from tritonclient.utils import InferenceServerException

import pyserve

pytestmark = both_lanes

GOOD = numbers(1, 2, 3, 4)
TIMING = re.compile(
    r"parse;dur=[\d.]+, queue;dur=[\d.]+, batch;desc=(\d+), "
    r"copy-in;dur=[\d.]+, compute;dur=([\d.]+), copy-out;dur=[\d.]+"
)


def test_the_server_says_what_it_is(server: Server) -> None:
    reply = server.get("/v2")
    assert reply.json["name"] == "pyserve"
    assert reply.json["version"] == pyserve.__version__
    assert {"binary_tensor_data", "statistics"} <= set(reply.json["extensions"])


def test_a_live_and_ready_server_says_so_in_every_dialect(server: Server) -> None:
    assert server.get("/healthz").json["live"] is True
    assert server.get("/v2/health/live").json["live"] is True
    assert server.get("/readyz").json["ready"] is True
    assert server.get("/v2/health/ready").json["ready"] is True


@pytest.mark.parametrize("base", ["/v2/models/affine", "/v2/models/affine/versions/1"])
def test_a_model_describes_itself(server: Server, base: str) -> None:
    metadata = server.get(base).json
    assert metadata["name"] == "affine"
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]
    assert server.get(f"{base}/ready").json == {"name": "affine", "ready": True}
    config = server.get(f"{base}/config").json
    assert config["max_batch_size"] == 64
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]


def test_a_model_that_is_not_there_is_not_ready(server: Server) -> None:
    assert server.get("/v2/models/nope/ready").status == 404
    assert server.get("/v2/models/broken/ready").status == 503


@pytest.mark.parametrize("path", ["affine", "affine/versions/1"])
def test_json_in_json_out(server: Server, path: str) -> None:
    reply = server.infer(path, GOOD)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in reply.headers
    assert reply.json == {
        "model_name": "affine",
        "model_version": "1",
        "outputs": [tensor("y", "FP32", [1, 4], [3.0, 5.0, 7.0, 9.0])],
    }


def test_the_content_type_does_not_matter(server: Server) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.infer("affine", GOOD, headers).status == 200


def test_an_id_comes_back_only_when_given(server: Server) -> None:
    assert server.infer("affine", GOOD | {"id": "a7é"}).json["id"] == "a7é"
    assert "id" not in server.infer("affine", GOOD).json


def test_nested_numbers_are_as_good_as_flat_ones(server: Server) -> None:
    nested = {"inputs": [tensor("x", "FP32", [2, 4], [[1, 2, 3, 4], [5, 6, 7, 8]])]}
    assert server.infer("affine", nested).json["outputs"][0]["data"] == [3, 5, 7, 9, 11, 13, 15, 17]


def described(size: int) -> dict[str, object]:
    one = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
    return {"inputs": [one | {"parameters": {"binary_data_size": size}}]}


def test_binary_in_json_out(server: Server) -> None:
    reply = server.infer("affine", *binary(described(16), floats(1, 2, 3, 4)))
    assert reply.json["outputs"][0]["data"] == [3, 5, 7, 9]


def test_binary_in_binary_out(server: Server) -> None:
    request = described(16) | {"parameters": {"binary_data_output": True}}
    reply = server.infer("affine", *binary(request, floats(1, 2, 3, 4)))
    assert reply.headers["content-type"] == "application/octet-stream"
    length = int(reply.headers["inference-header-content-length"])
    header = json.loads(reply.body[:length])
    assert header["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert reply.body[length:] == floats(3, 5, 7, 9)


def test_json_in_binary_out(server: Server) -> None:
    outputs = [{"name": "y", "parameters": {"binary_data": True}}]
    reply = server.infer("affine", GOOD | {"outputs": outputs})
    length = int(reply.headers["inference-header-content-length"])
    assert reply.body[length:] == floats(3, 5, 7, 9)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_raw_body_gives_a_binary_answer(server: Server, rows: int) -> None:
    body = floats(*range(4 * rows))
    reply = server.infer("affine", body, {"Inference-Header-Content-Length": "0"})
    length = int(reply.headers["inference-header-content-length"])
    assert json.loads(reply.body[:length])["outputs"][0]["shape"] == [rows, 4]
    assert reply.body[length:] == floats(*(2 * value + 1 for value in range(4 * rows)))


def test_a_raw_body_fills_a_variable_dimension(server: Server) -> None:
    body = struct.pack("<5q", 1, 2, 3, 4, 5)
    reply = server.infer("lengths", body, {"Inference-Header-Content-Length": "0"})
    length = int(reply.headers["inference-header-content-length"])
    assert reply.body[length:] == struct.pack("<q", 15)


PAIR = {
    "inputs": [tensor("a", "INT64", [1, 3], [1, 5, 3]), tensor("b", "INT64", [1, 3], [2, 4, 3])]
}


def test_several_inputs_and_outputs(server: Server) -> None:
    outputs = {one["name"]: one for one in server.infer("pair", PAIR).json["outputs"]}
    assert outputs["sum"]["data"] == [3, 9, 6]
    assert outputs["large"]["datatype"] == "BOOL"
    assert outputs["large"]["data"] == [False, True, False]


def test_inputs_in_another_order_are_the_same(server: Server) -> None:
    swapped = {"inputs": PAIR["inputs"][::-1]}
    assert server.infer("pair", swapped).json == server.infer("pair", PAIR).json


def test_only_requested_outputs_come_back(server: Server) -> None:
    reply = server.infer("pair", PAIR | {"outputs": [{"name": "large"}]})
    assert [one["name"] for one in reply.json["outputs"]] == ["large"]
    reply = server.infer("pair", PAIR | {"outputs": [{"name": "large"}, {"name": "sum"}]})
    assert {one["name"] for one in reply.json["outputs"]} == {"large", "sum"}


def test_each_output_comes_in_the_form_asked_for(server: Server) -> None:
    outputs = [{"name": "sum", "parameters": {"binary_data": True}}, {"name": "large"}]
    reply = server.infer("pair", PAIR | {"outputs": outputs})
    length = int(reply.headers["inference-header-content-length"])
    header = {one["name"]: one for one in json.loads(reply.body[:length])["outputs"]}
    assert header["large"]["data"] == [False, True, False]
    assert reply.body[length:] == struct.pack("<3q", 3, 9, 6)


def test_large_integers_are_exact(server: Server) -> None:
    large = 2**53 + 1
    request = {"inputs": [tensor("ids", "INT64", [1, 2], [large, 0])]}
    assert server.infer("lengths", request).json["outputs"][0]["data"] == [large]


def test_a_tensor_without_dimensions(server: Server) -> None:
    request = {"inputs": [tensor("x", "FP32", [], [1.5])]}
    assert server.infer("scalar", request).json["outputs"] == [tensor("y", "FP32", [], [2.5])]


def test_strings_come_through(server: Server) -> None:
    request = {"inputs": [tensor("text", "BYTES", [3], ["hello", "", "größe"])]}
    assert server.infer("shout", request).json["outputs"][0]["data"] == ["HELLO", "", "GRößE"]


def test_every_answer_says_where_its_time_went(server: Server) -> None:
    for reply in (
        server.infer("affine", GOOD),
        server.infer("affine", floats(1, 2, 3, 4), {"Inference-Header-Content-Length": "0"}),
    ):
        timing = TIMING.fullmatch(reply.headers["server-timing"])
        assert timing is not None
        assert int(timing[1]) >= 1


def test_requests_at_once_share_a_batch(server: Server) -> None:
    """`patient` waits for four rows: none of these would come back alone."""
    timings = []

    def ask(number: int) -> None:
        reply = server.infer("patient", numbers(number, 0, 0, 0))
        assert reply.json["outputs"][0]["data"][0] == 2 * number
        timings.append(reply.headers["server-timing"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    two = {"inputs": [tensor("x", "FP32", [2, 4], [7] * 8)]}
    assert server.infer("patient", two).json["outputs"][0]["data"] == [14] * 8
    for thread in threads:
        thread.join()
    assert all("batch;desc=4," in timing for timing in timings)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_large_answer_is_compressed_for_who_asks(server: Server, coding: str) -> None:
    rows = {"inputs": [tensor("x", "FP32", [64, 4], [0.5] * 256)]}
    plain = server.infer("affine", rows)
    assert "content-encoding" not in plain.headers
    reply = server.infer("affine", rows, {"Accept-Encoding": coding})
    assert reply.headers["content-encoding"] == coding
    inflate = gzip.decompress if coding == "gzip" else zlib.decompress
    assert inflate(reply.body) == plain.body


def test_errors_are_never_compressed(server: Server) -> None:
    name = "x" * 3000
    request = {"inputs": [tensor(name, "FP32", [1, 4], [1, 2, 3, 4])]}
    reply = server.infer("affine", request, {"Accept-Encoding": "gzip, deflate"})
    assert reply.status == 400
    assert "content-encoding" not in reply.headers
    assert reply.error


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    path = "/v2/models/affine/infer"
    with server.connect() as peer, peer.makefile("rb") as stream:
        requests = []
        for number in range(100):
            body = json.dumps(numbers(number, 0, 0, 0) | {"id": str(number)}).encode()
            requests.append(raw_post(path, body))
            if number % 10 == 3:
                requests.append(raw_post(path, b"bad"))
        peer.sendall(b"".join(requests))
        for number in range(100):
            reply = read_reply(stream)
            assert reply.json["id"] == str(number)
            assert reply.json["outputs"][0]["data"][0] == 2 * number + 1
            if number % 10 == 3:
                assert read_reply(stream).status == 400


def test_a_connection_serves_many_requests(server: Server) -> None:
    with server.connect() as peer, peer.makefile("rb") as stream:
        for number in range(20):
            peer.sendall(raw_post("/v2/models/affine/infer", json.dumps(GOOD).encode()))
            assert read_reply(stream).status == 200, number
            peer.sendall(raw_post("/v2/models/nope/infer", json.dumps(GOOD).encode()))
            assert read_reply(stream).status == 404


def test_statistics_count_requests_rows_and_calls(server: Server) -> None:
    def stats() -> dict[str, int]:
        one = server.get("/v2/models/typed/stats").json["model_stats"][0]
        ended = one["inference_stats"]
        return {
            "success": ended["success"]["count"],
            "fail": ended["fail"]["count"],
            "rows": one["inference_count"],
            "calls": one["execution_count"],
            "last": one["last_inference"],
        }

    before = stats()
    blob = np.ones((3, 2), np.float16).tobytes()
    described = {
        "inputs": [
            {
                "name": "x",
                "datatype": "FP16",
                "shape": [3, 2],
                "parameters": {"binary_data_size": 12},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    assert server.infer("typed", *binary(described, blob)).status == 200
    assert server.infer("typed", b"{").status == 400
    wrong = {"inputs": [tensor("x", "FP32", [1, 2], [1, 2])]}
    assert server.infer("typed", wrong).status == 400
    after = stats()
    assert after["success"] == before["success"] + 1
    assert after["fail"] == before["fail"] + 1
    assert after["rows"] == before["rows"] + 3
    assert after["calls"] == before["calls"] + 1
    assert after["last"] > before["last"]
    every = server.get("/v2/models/stats").json["model_stats"]
    assert {"affine", "typed", "pair"} <= {one["name"] for one in every}


# --- tritonclient -------------------------------------------------------------------------------


def test_tritonclient_finds_its_way(server: Server) -> None:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("affine")
    assert client.is_model_ready("affine", "1")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["name"] == "pyserve"
    assert client.get_model_metadata("affine")["inputs"][0]["name"] == "x"
    assert client.get_model_config("affine")["max_batch_size"] == 64
    assert client.get_inference_statistics("affine")["model_stats"][0]["name"] == "affine"
    assert client.get_inference_statistics()["model_stats"]
    index = {one["name"]: one for one in client.get_model_repository_index()}
    assert index["affine"]["state"] == "READY"
    assert index["broken"]["state"] == "UNAVAILABLE"
    assert "not a whole TorchScript file" in index["broken"]["reason"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_tritonclient_round_trip(
    server: Server, binary_in: bool, binary_out: bool | None, coding: str | None
) -> None:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    data = np.arange(64 * 4, dtype=np.float32).reshape(64, 4)
    one = triton.InferInput("x", [64, 4], "FP32")
    one.set_data_from_numpy(data, binary_data=binary_in)
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput("y", binary_data=binary_out)]
    result = client.infer(
        "affine",
        [one],
        outputs=outputs,
        request_id="7",
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), data * 2 + 1)
    assert result.get_response()["id"] == "7"


def test_tritonclient_sends_strings(server: Server) -> None:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    for as_binary in (True, False):
        one = triton.InferInput("text", [2], "BYTES")
        one.set_data_from_numpy(np.array(["hello", ""], dtype=object), binary_data=as_binary)
        result = client.infer("shout", [one])
        assert result.as_numpy("loud").tolist() == [b"HELLO", b""]


def test_tritonclient_reads_our_errors(server: Server) -> None:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    one = triton.InferInput("x", [1, 3], "FP32")
    one.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with pytest.raises(InferenceServerException, match=r"\[1, 3\], expected \[-1, 4\]"):
        client.infer("affine", [one])
