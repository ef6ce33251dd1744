"""System shared memory over HTTP, against a real server and real objects of /dev/shm."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from server_process import Server, numbers, start, tensor
from tritonclient.utils import shared_memory as shm

KEY = f"/pyserve_test_{os.getpid()}"
OBJECT = Path("/dev/shm") / KEY[1:]
SIZE = 4 << 20
BASE = "/v2/systemsharedmemory"
ROWS = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)


@pytest.fixture(scope="module")
def server(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    models = ["affine", "shout", "fussy", "pair"]
    options = [part for name in models for part in ("--load-model", name)]
    options += ["--shared-memory", "--no-grpc", "--max-body-bytes", str(SIZE)]
    with start(log, "--model-repository", str(model_repository), *options) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in log.read_text()


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as one:
        yield one
        one.unregister_system_shared_memory()


@pytest.fixture
def memory(client: triton.InferenceServerClient) -> Iterator[shm.SharedMemoryRegion]:
    """An object of SIZE bytes, registered whole as `r`."""
    handle = shm.create_shared_memory_region("memory", KEY, SIZE, create_only=True)
    client.register_system_shared_memory("r", KEY, SIZE)
    yield handle
    shm.destroy_shared_memory_region(handle)


def there(offset: int, size: int, region: str = "r") -> dict[str, Any]:
    return {
        "shared_memory_region": region,
        "shared_memory_offset": offset,
        "shared_memory_byte_size": size,
    }


def shared(name: str, datatype: str, shape: list[int], **parameters: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


def test_tensors_come_and_go_through_shared_memory(
    client: triton.InferenceServerClient, memory: shm.SharedMemoryRegion
) -> None:
    shm.set_shared_memory_region(memory, [ROWS], offset=64)
    one = triton.InferInput("x", [2, 4], "FP32")
    one.set_shared_memory("r", 32, offset=64)
    output = triton.InferRequestedOutput("y")
    output.set_shared_memory("r", 32, offset=128)
    result = client.infer("affine", [one], outputs=[output], request_id="7")
    assert result.get_response() == {
        "model_name": "affine",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 4], "parameters": there(128, 32)}
        ],
    }
    found = shm.get_contents_as_numpy(memory, np.float32, [2, 4], 128)
    np.testing.assert_array_equal(found, ROWS * 2 + 1)


def test_megabytes_come_and_go_too(
    client: triton.InferenceServerClient, memory: shm.SharedMemoryRegion
) -> None:
    rows = np.arange(64 * 4, dtype=np.float32).reshape(64, 4)
    shout = np.array([b"a" * 400_000, b"b" * 400_000], object)
    packed = b"".join(len(one).to_bytes(4, "little") + one for one in shout)
    shm.set_shared_memory_region(memory, [np.frombuffer(packed, np.uint8)])
    one = triton.InferInput("text", [2], "BYTES")
    one.set_shared_memory("r", len(packed))
    output = triton.InferRequestedOutput("loud")
    output.set_shared_memory("r", len(packed), offset=2 << 20)
    client.infer("shout", [one], outputs=[output])
    loud = shm.get_contents_as_numpy(memory, np.object_, [2], 2 << 20)
    assert loud.tolist() == [b"A" * 400_000, b"B" * 400_000]
    assert client.infer("affine", [given(rows)]).as_numpy("y")[63, 3] == 511


def given(rows: np.ndarray[Any, Any]) -> triton.InferInput:
    one = triton.InferInput("x", list(rows.shape), "FP32")
    one.set_data_from_numpy(rows)
    return one


def test_shared_and_sent_tensors_mix(server: Server, memory: shm.SharedMemoryRegion) -> None:
    shm.set_shared_memory_region(memory, [np.array([1, 9, 5], np.int64)])
    inputs = [shared("a", "INT64", [1, 3], **there(0, 24)), tensor("b", "INT64", [1, 3], [2, 2, 2])]
    outputs = [{"name": "sum", "parameters": there(32, 24)}, {"name": "large"}]
    reply = server.infer("pair", {"inputs": inputs, "outputs": outputs})
    assert reply.status == 200
    assert reply.json["outputs"][1]["data"] == [False, True, True]
    assert shm.get_contents_as_numpy(memory, np.int64, [3], 32).tolist() == [3, 11, 7]


def test_regions_are_told_and_forgotten(
    server: Server, client: triton.InferenceServerClient, memory: shm.SharedMemoryRegion
) -> None:
    client.register_system_shared_memory("part", KEY, 16, offset=8)
    part = {"name": "part", "key": KEY, "offset": 8, "byte_size": 16}
    assert server.get(f"{BASE}/region/part/status").json == [part]
    for path in (BASE, f"{BASE}/status"):
        assert [one["name"] for one in server.get(path).json] == ["r", "part"]
    assert server.ask("POST", f"{BASE}/region/part/unregister").json == {}
    assert server.ask("POST", f"{BASE}/region/part/unregister").json == {}
    assert server.get(f"{BASE}/region/part/status").status == 400
    assert server.ask("POST", f"{BASE}/unregister").json == {}
    assert server.get(f"{BASE}/status").json == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"key": "/k"}',
        b'{"key": "/k", "byte_size": -1}',
        b'{"key": "/k", "byte_size": 1, "offset": -1}',
        b'{"key": "/../../etc/passwd", "byte_size": 1}',
        b'{"key": "/etc", "byte_size": 1}',
        b'{"key": "\\u0000", "byte_size": 1}',
        json.dumps({"key": KEY, "byte_size": SIZE + 1}).encode(),
        json.dumps({"key": KEY, "byte_size": 2**63, "offset": 2**63}).encode(),
        json.dumps({"key": KEY, "byte_size": 0}).encode(),
        json.dumps({"key": KEY, "byte_size": 10**30}).encode(),
        b"[" * 50_000,
    ],
)
def test_a_registration_that_makes_no_sense_is_refused(
    server: Server, memory: shm.SharedMemoryRegion, body: bytes
) -> None:
    reply = server.ask("POST", f"{BASE}/region/new/register", body)
    assert reply.status == 400
    assert "/dev/shm" not in reply.error
    assert len(server.get(BASE).json) == 1


def test_a_name_cannot_be_registered_twice(server: Server, memory: shm.SharedMemoryRegion) -> None:
    body = json.dumps({"key": KEY, "byte_size": 16}).encode()
    reply = server.ask("POST", f"{BASE}/region/r/register", body)
    assert (reply.status, "registered already" in reply.error) == (400, True)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (there(0, 16, "nope"), "no system shared memory region"),
        (there(SIZE - 8, 16), "region"),
        (there(2**63, 16), "region"),
        (there(0, 15), "expected 16"),
        (there(0, 32), "expected 16"),
        ({"shared_memory_region": "r"}, "no shared_memory_byte_size"),
        (there(0, 16) | {"binary_data_size": 16}, "binary_data_size"),
        (there(0, 16) | {"shared_memory_offset": -1}, "not as expected"),
    ],
)
def test_an_input_that_is_not_there_is_refused(
    server: Server, memory: shm.SharedMemoryRegion, parameters: dict[str, Any], words: str
) -> None:
    reply = server.infer("affine", {"inputs": [shared("x", "FP32", [1, 4], **parameters)]})
    assert (reply.status, words in reply.error) == (400, True), reply.error


def test_bytes_that_are_no_strings_are_refused(
    server: Server, memory: shm.SharedMemoryRegion
) -> None:
    lying = (1 << 31).to_bytes(4, "little") + b"abcd"
    shm.set_shared_memory_region(memory, [np.frombuffer(lying, np.uint8)])
    reply = server.infer("shout", {"inputs": [shared("text", "BYTES", [1], **there(0, 8))]})
    assert reply.status == 400


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (there(0, 15), "needs 16 bytes of shared memory, 15 are there"),
        (there(SIZE, 16), "region"),
        (there(0, 16, "nope"), "no system shared memory region"),
        ({"shared_memory_region": "r"}, "no shared_memory_byte_size"),
    ],
)
def test_an_output_without_room_is_refused(
    server: Server, memory: shm.SharedMemoryRegion, parameters: dict[str, Any], words: str
) -> None:
    outputs = [{"name": "y", "parameters": parameters}]
    reply = server.infer("affine", numbers(1, 2, 3, 4) | {"outputs": outputs})
    assert (reply.status, words in reply.error) == (400, True), reply.error


def test_more_than_a_body_may_have_is_refused(
    server: Server, client: triton.InferenceServerClient
) -> None:
    handle = shm.create_shared_memory_region("large", KEY, 2 * SIZE, create_only=True)
    try:
        client.register_system_shared_memory("r", KEY, 2 * SIZE)
        one = shared("text", "BYTES", [1], **there(0, SIZE + 1))
        reply = server.infer("shout", {"inputs": [one]})
        assert (reply.status, str(SIZE) in reply.error) == (413, True)
    finally:
        shm.destroy_shared_memory_region(handle)


def test_an_object_cut_while_in_use_never_ends_the_server(
    server: Server, memory: shm.SharedMemoryRegion
) -> None:
    """A mapped object would: touching what was cut off is SIGBUS."""
    size = 1 << 20
    packed = (size - 4).to_bytes(4, "little") + b"a" * (size - 4)
    one = shared("text", "BYTES", [1], **there(0, size))
    output = {"name": "loud", "parameters": there(2 << 20, size)}
    request = {"inputs": [one], "outputs": [output]}

    def ask(_: int) -> int:
        return server.infer("shout", request).status

    def fill() -> None:
        with OBJECT.open("r+b") as file:
            file.write(packed)

    fill()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, number) for number in range(40)]
        while not all(one.done() for one in asked):
            os.truncate(OBJECT, 0)
            os.truncate(OBJECT, SIZE)
            fill()
        statuses = {one.result() for one in asked}
    assert statuses <= {200, 400}
    assert server.infer("shout", request).status == 200
    os.truncate(OBJECT, 100)
    reply = server.infer("shout", request)
    assert (reply.status, "its object has 100 bytes" in reply.error) == (400, True)


def test_a_model_that_fails_writes_nothing(server: Server, memory: shm.SharedMemoryRegion) -> None:
    outputs = [{"name": "y", "parameters": there(0, 16)}]
    reply = server.infer("fussy", numbers(-1, 2, 3, 4) | {"outputs": outputs})
    assert reply.status == 500
    assert bytes(OBJECT.read_bytes()[:16]) == bytes(16)


def test_cuda_memory_is_answered_honestly(server: Server) -> None:
    base = "/v2/cudasharedmemory"
    assert server.get(f"{base}/status").json == []
    body = json.dumps({"raw_handle": {"b64": ""}, "device_id": 0, "byte_size": 1}).encode()
    reply = server.ask("POST", f"{base}/region/r/register", body)
    assert (reply.status, "not supported" in reply.error) == (400, True)


def test_off_it_says_how_to_switch_it_on(affine: Path, tmp_path: Path) -> None:
    with start(tmp_path / "log", str(affine), "--no-grpc") as server:
        assert server.get(BASE).json == []
        for path in (f"{BASE}/region/r/register", f"{BASE}/unregister"):
            reply = server.ask("POST", path, b'{"key": "/k", "byte_size": 1}')
            assert (reply.status, "--shared-memory" in reply.error) == (403, True)
        model = affine.stem
        one = shared("x", "FP32", [1, 4], **there(0, 16))
        reply = server.infer(model, {"inputs": [one]})
        assert (reply.status, "--shared-memory" in reply.error) == (400, True)
        assert "system_shared_memory" not in server.get("/v2").json["extensions"]
        assert server.stop() == 0


def test_registering_is_guarded_whatever_the_model_control(affine: Path, tmp_path: Path) -> None:
    arguments = ["--shared-memory", "--no-grpc", "--model-control", "none"]
    with start(tmp_path / "log", str(affine), *arguments) as server:
        assert server.ask("POST", f"{BASE}/unregister").status == 200
        page = {"Origin": "https://evil.example"}
        for path in (f"{BASE}/unregister", f"{BASE}/region/r/register"):
            assert server.ask("POST", path, headers=page).status == 403
        assert server.stop() == 0
    arguments += ["--management-token", "s3cret"]
    with start(tmp_path / "log", str(affine), *arguments) as server:
        for path in (f"{BASE}/unregister", f"{BASE}/region/r/register"):
            assert server.ask("POST", path).status == 401
        token = {"Authorization": "Bearer s3cret"}
        assert server.ask("POST", f"{BASE}/unregister", headers=token).status == 200
        assert server.stop() == 0
