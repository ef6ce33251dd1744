"""One running server, and every kind of client at once: the doors share models, not faults."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import grpc
import numpy as np
import pytest
from archives import build_store
from PIL import Image
from server_process import PATIENCE_S, ROOT, Server, floats, start

import models
import pyserve
from pyserve.protos import message

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.grpc
    import tritonclient.grpc.aio
    import tritonclient.http
    import tritonclient.http.aio
    from tritonclient.utils import shared_memory

ROUNDS = 12
X = [1.0, 2.0, 3.0, 4.0]
Y = [3.0, 5.0, 7.0, 9.0]  # affine: 2x + 1
ORIGIN = "http://pages.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A repository, a store of TorchServe's archives, and all that is off by default."""
    folder = tmp_path_factory.mktemp("doors")
    models.build("affine", folder / "models")
    options = ("--model-repository", str(folder / "models"))
    options += ("--model-store", str(build_store(folder)), "--allow-handlers")
    options += ("--shared-memory", "--cors-origin", ORIGIN)
    with start(folder / "log", *options) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in (folder / "log").read_text()


def address(server: Server) -> str:
    return server.url.removeprefix("http://")


def question() -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": X}
    return json.dumps({"inputs": [tensor]}).encode()


# --- the clients: each asks ROUNDS times for what it knows the answer to --------------------


def curl(server: Server) -> None:
    for _ in range(ROUNDS):
        command = ["curl", "-sS", f"{server.url}/v2/models/affine/infer", "-d", question()]
        done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S)
        assert json.loads(done.stdout)["outputs"][0]["data"] == Y


def browser(server: Server) -> None:
    """What `fetch` sends from a page of a listed origin."""
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    path = "/v2/models/affine/infer"
    assert server.ask("OPTIONS", path, headers=asked).status in (200, 204)
    for _ in range(ROUNDS):
        reply = server.ask("POST", path, question(), {"Origin": ORIGIN})
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert reply.json["outputs"][0]["data"] == Y


def raw_bodies(server: Server) -> None:
    connection = HTTPConnection(*server.address, timeout=PATIENCE_S)
    for _ in range(ROUNDS):
        headers = {"Inference-Header-Content-Length": "0"}
        connection.request("POST", "/v2/models/affine/infer", floats(*X), headers)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        assert body[int(response.headers["Inference-Header-Content-Length"]) :] == floats(*Y)
    connection.close()


def triton_http(server: Server) -> None:
    with tritonclient.http.InferenceServerClient(address(server)) as client:
        for _ in range(ROUNDS):
            tensor = tritonclient.http.InferInput("x", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.array([X], np.float32))
            answer = client.infer("affine", [tensor])
            assert answer.as_numpy("y").tolist() == [Y]


def triton_shared_memory(server: Server) -> None:
    name, size = "every-door", 16
    region = shared_memory.create_shared_memory_region(name, f"/{name}", 2 * size)
    try:
        shared_memory.set_shared_memory_region(region, [np.array([X], np.float32)])
        with tritonclient.http.InferenceServerClient(address(server)) as client:
            client.register_system_shared_memory(name, f"/{name}", 2 * size)
            for _ in range(ROUNDS):
                tensor = tritonclient.http.InferInput("x", [1, 4], "FP32")
                tensor.set_shared_memory(name, size)
                wanted = tritonclient.http.InferRequestedOutput("y", binary_data=True)
                wanted.set_shared_memory(name, size, offset=size)
                client.infer("affine", [tensor], outputs=[wanted])
                found = shared_memory.get_contents_as_numpy(region, np.float32, [1, 4], size)
                assert found.tolist() == [Y]
            client.unregister_system_shared_memory(name)
    finally:
        shared_memory.destroy_shared_memory_region(region)


def triton_http_aio(server: Server) -> None:
    async def ask() -> None:
        async with tritonclient.http.aio.InferenceServerClient(address(server)) as client:
            for _ in range(ROUNDS):
                tensor = tritonclient.http.InferInput("x", [1, 4], "FP32")
                tensor.set_data_from_numpy(np.array([X], np.float32))
                answer = await client.infer("affine", [tensor])
                assert answer.as_numpy("y").tolist() == [Y]

    asyncio.run(ask())


def grpc_tensor() -> tritonclient.grpc.InferInput:
    tensor = tritonclient.grpc.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.array([X], np.float32))
    return tensor


def triton_grpc(server: Server) -> None:
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        for _ in range(ROUNDS):
            assert client.infer("affine", [grpc_tensor()]).as_numpy("y").tolist() == [Y]


def triton_grpc_stream(server: Server) -> None:
    async def ask() -> None:
        async with tritonclient.grpc.aio.InferenceServerClient(server.grpc) as client:

            async def requests():  # type: ignore[no-untyped-def]
                for number in range(ROUNDS):
                    model = "nobody" if number == 3 else "affine"
                    yield {
                        "model_name": model,
                        "inputs": [grpc_tensor()],
                        "request_id": str(number),
                    }

            ids = []
            async for answer, error in client.stream_infer(requests()):
                if error is None:
                    ids.append(answer.get_response().id)
                    assert answer.as_numpy("y").tolist() == [Y]
            assert ids == [str(number) for number in range(ROUNDS) if number != 3]

    asyncio.run(ask())


def plain_stub(server: Server) -> None:
    path = "/pytorch_model_server.ModelServer/Predict"
    with grpc.insecure_channel(server.grpc) as channel:
        predict = channel.unary_unary(
            path,
            request_serializer=message("pytorch_model_server.Request").SerializeToString,
            response_deserializer=message("pytorch_model_server.Response").FromString,
        )
        request = message("pytorch_model_server.Request")(
            model_name="affine", input_data=struct.pack("<4f", *X)
        )
        for _ in range(ROUNDS):
            assert predict(request, timeout=PATIENCE_S).result == Y[0]


def torchserve_script(server: Server) -> None:
    script = str(ROOT / "examples" / "torchserve_client.py")
    where = ("--inference", server.url, "--management", server.url)
    done = subprocess.run(
        [sys.executable, script, *where, "line.tar.gz", "guest", json.dumps(X)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert str(Y) in done.stdout


def torchserve_json(server: Server) -> None:
    for _ in range(ROUNDS):
        reply = server.ask("POST", "/predictions/line", json.dumps(X).encode())
        assert (reply.status, reply.json) == (200, Y)


def torchserve_pictures(server: Server) -> None:
    file = io.BytesIO()
    Image.new("RGB", (300, 260), (0, 255, 0)).save(file, "JPEG")
    for _ in range(ROUNDS):
        reply = server.ask("POST", "/predictions/colours", file.getvalue())
        assert reply.status == 200
        assert max(reply.json, key=reply.json.get) == "green"


def torchserve_handler(server: Server) -> None:
    for _ in range(ROUNDS):
        reply = server.ask("POST", "/predictions/doubler", json.dumps({"x": X}).encode())
        assert reply.json["y"] == Y


def torchserve_grpc(server: Server) -> None:
    path = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
    kind = "org.pytorch.serve.grpc.inference"
    with grpc.insecure_channel(server.grpc) as channel:
        predict = channel.unary_unary(
            path,
            request_serializer=message(f"{kind}.PredictionsRequest").SerializeToString,
            response_deserializer=message(f"{kind}.PredictionResponse").FromString,
        )
        request = message(f"{kind}.PredictionsRequest")(
            model_name="line", input={"data": json.dumps(X).encode()}
        )
        for _ in range(ROUNDS):
            assert json.loads(predict(request, timeout=PATIENCE_S).prediction) == Y


def sdk(url: str) -> None:
    with pyserve.Client(url) as client:
        model = client.model("affine")
        for _ in range(ROUNDS):
            assert model(np.array([X], np.float32)).tolist() == [Y]


def sdk_http(server: Server) -> None:
    sdk(server.url)


def sdk_grpc(server: Server) -> None:
    sdk(f"grpc://{server.grpc}")


def sdk_async(server: Server) -> None:
    async def ask() -> None:
        for url in (server.url, f"grpc://{server.grpc}"):
            async with pyserve.AsyncClient(url) as client:
                inputs = [{"x": np.array([X], np.float32)} for _ in range(ROUNDS)]
                async for result in client.stream("affine", inputs):
                    assert result["y"].tolist() == [Y]

    asyncio.run(ask())


def scraper(server: Server) -> None:
    for _ in range(ROUNDS):
        for path in ("/metrics", "/v2/models/stats", "/models", "/openapi.json", "/readyz"):
            assert server.get(path).status == 200


CLIENTS: Sequence[Callable[[Server], None]] = (
    curl,
    browser,
    raw_bodies,
    triton_http,
    triton_shared_memory,
    triton_http_aio,
    triton_grpc,
    triton_grpc_stream,
    plain_stub,
    torchserve_script,
    torchserve_json,
    torchserve_pictures,
    torchserve_handler,
    torchserve_grpc,
    sdk_http,
    sdk_grpc,
    sdk_async,
    scraper,
)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.filterwarnings("ignore")
def test_one_server_answers_every_kind_of_client_at_once(server: Server) -> None:
    with ThreadPoolExecutor(len(CLIENTS)) as pool:
        futures = {client.__name__: pool.submit(client, server) for client in CLIENTS}
        failed = {name: repr(error) for name, one in futures.items() if (error := one.exception())}
    assert failed == {}
    # No request was counted twice, and none was lost.
    asked = 8 * ROUNDS + (ROUNDS - 1) + ROUNDS + 3 * ROUNDS
    done = server.metric("pyserve_requests_total", model="affine", outcome="success")
    assert done == asked
