"""The four clients against a real server: the same calls, the same answers, the same errors."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
import torch
from served_models import EVERY
from server_process import Server, environment, eventually, start, three_waiting, waiting

from pyserve import AsyncClient, Client, InferResult, errors
from pyserve.client import ModelMetadata, ServerMetadata
from pyserve.protos import message

KINDS = [(protocol, kind) for protocol in ("http", "grpc") for kind in (Client, AsyncClient)]
X = np.array([[1, 2, 3, 4]], np.float32)
Y = [[3.0, 5.0, 7.0, 9.0]]


class Blocking:
    """An AsyncClient with the methods of a Client: each runs to its end on one event loop."""

    def __init__(self, client: AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self.client = client
        self._loop = loop

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        def call(*values: Any, **options: Any) -> Any:
            if name == "model":
                handle = method(*values, **options)
                return lambda *x, **named: self._loop.run_until_complete(handle(*x, **named))
            if name == "stream":
                return self._iterate(method(*values, **options))
            return self._loop.run_until_complete(method(*values, **options))

        return call

    def _iterate(self, stream: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._loop.run_until_complete(anext(stream))
            except StopAsyncIteration:
                return


def address(server: Server, protocol: str) -> str:
    return server.url if protocol == "http" else f"grpc://{server.ready['grpc']}"


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Make clients of the kind that the test is run with, closed at its end."""
    protocol, kind = request.param
    loop = asyncio.new_event_loop()
    made: list[Any] = []

    def make(
        server: Server | str, *, on_sleep: Callable[[float], None] | None = None, **options: Any
    ) -> Any:
        async def sleep(seconds: float) -> None:
            assert on_sleep is not None
            on_sleep(seconds)

        if on_sleep is not None:
            options["sleep"] = on_sleep if kind is Client else sleep
        url = server if isinstance(server, str) else address(server, protocol)
        client = kind(url, **options)
        made.append(client if kind is Client else Blocking(client, loop))
        return made[-1]

    yield make
    for client in made:
        client.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture
def client(connect: Callable[..., Any], server: Server) -> Any:
    return connect(server)


each_client = pytest.mark.parametrize(
    "connect", KINDS, indirect=True, ids=[f"{kind.__name__}-{one}" for one, kind in KINDS]
)


@each_client
def test_inputs_come_as_arrays_tensors_and_plain_values(client: Any) -> None:
    for inputs in ({"x": X}, X, (X,), [X], {"x": torch.from_numpy(X)}, [1, 2, 3, 4], X.tolist()):
        result = client.infer("affine", inputs)
        assert isinstance(result, InferResult)
        assert result["y"].tolist() == Y
        assert (result.model, result.version, result.id) == ("affine", "1", "")
    assert client.infer("affine", X, version=1, id="mine").id == "mine"


@each_client
def test_a_model_answers_in_kind(client: Any) -> None:
    affine = client.model("affine")
    found = affine(torch.from_numpy(X))
    assert isinstance(found, torch.Tensor)
    assert found.tolist() == Y
    for found in (affine(X), affine(x=X), affine({"x": X}), affine(x=[1, 2, 3, 4])):
        assert isinstance(found, np.ndarray)
        assert found.tolist() == Y
    both = client.model("pair")(np.array([[1, 5, 3]]), np.array([[2, 4, 3]]))
    assert {name: value.tolist() for name, value in both.items()} == {
        "sum": [[3, 9, 6]],
        "large": [[False, True, False]],
    }


@each_client
def test_every_dtype_goes_there_and_back(client: Any) -> None:
    inputs = {name: torch.tensor([[0, 1]]).to(dtype) for name, dtype in EVERY.items()}
    result = client.infer("every", inputs)
    for name, sent in inputs.items():
        found = result.torch(f"same_{name}")
        assert found.dtype == sent.dtype
        assert torch.equal(found, sent)
    assert client.infer("shout", ["grüß", ""]).strings("loud").tolist() == ["GRüß", ""]
    assert client.infer("scalar", 1.5)["y"].tolist() == 2.5


@each_client
def test_an_answer_says_where_the_time_went(client: Any) -> None:
    timing = client.infer("affine", X).timing
    assert {"parse", "queue", "compute"} <= set(timing.seconds)
    assert all(0 <= seconds < 60 for seconds in timing.seconds.values())
    assert timing.batch_size == 1


@each_client
def test_outputs_and_classes_are_asked_for_by_name(client: Any) -> None:
    pair = {"a": np.array([[1, 5, 2]]), "b": np.array([[1, 1, 1]])}
    assert list(client.infer("pair", pair, outputs=["sum"])) == ["sum"]
    (row,) = client.infer("pair", pair, outputs=["sum"], classification=2).classes("sum")
    assert [(one.index, one.value) for one in row] == [(1, 6.0), (2, 3.0)]
    ((best,),) = client.infer("affine", X, classification=1).classes("y")
    assert (best.index, best.value) == (3, 9.0)


@each_client
def test_the_server_describes_itself_and_its_models(client: Any) -> None:
    assert client.live()
    assert client.ready()
    assert client.ready("affine")
    assert client.ready("affine", 1)
    assert not client.ready("nope")
    assert not client.ready("affine", 9)
    about = client.metadata()
    assert isinstance(about, ServerMetadata)
    assert about.name == "pyserve"
    model = client.metadata("affine")
    assert isinstance(model, ModelMetadata)
    assert (model.versions, model.inputs[0].name) == (("1",), "x")
    assert (model.inputs[0].datatype, model.inputs[0].shape) == ("FP32", (-1, 4))
    config = client.config("affine")
    assert config["name"] == "affine"
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    client.infer("affine", X)
    (statistics,) = client.statistics("affine")
    assert statistics.inference_count >= 1
    assert statistics.inference_stats["success"].count >= 1
    assert {one.name for one in client.statistics()} >= {"affine", "pair"}
    index = {one.name: one for one in client.index()}
    assert index["affine"].state == "READY"
    assert index["broken"].reason
    assert "broken" not in {one.name for one in client.index(ready_only=True)}


@each_client
def test_models_come_and_go_by_name(client: Any) -> None:
    client.unload("lengths")
    assert not client.ready("lengths")
    with pytest.raises(errors.PyserveError):
        client.infer("lengths", {"ids": np.array([[1, 2]])})
    client.load("lengths", {"max_batch_size": 3})
    assert client.config("lengths")["max_batch_size"] == 3
    client.load("lengths")
    assert client.infer("lengths", {"ids": np.array([[1, 2]])})["total"].tolist() == [3]
    with pytest.raises(errors.InvalidInput, match="broken"):
        client.load("broken")


@each_client
@pytest.mark.parametrize(
    ("model", "inputs", "error", "words"),
    [
        ("nope", {"x": X}, errors.ModelNotFound, 'no model "nope"'),
        ("affine", {"x": X[:, :3]}, errors.InvalidInput, r"\[1, 3\], expected \[-1, 4\]"),
        ("affine", {"x": X.astype(np.float64)}, errors.InvalidInput, "FP64"),
        ("affine", {"z": X}, errors.InvalidInput, '"z"'),
        ("affine", ["a"], errors.InvalidInput, "no number"),
        ("fussy", {"x": -X}, errors.ModelFailed, "negative numbers make me sad"),
    ],
)
def test_errors_are_those_of_the_table(
    client: Any, model: str, inputs: Any, error: type[errors.PyserveError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        client.infer(model, inputs)
    assert type(caught.value) is error


@each_client
def test_a_timeout_ends_the_wait_and_frees_the_queue(client: Any, server: Server) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        client.infer("patient", X, timeout=0.2)
    eventually(lambda: waiting(server) == 0, "the queue is empty")


@each_client
def test_a_full_queue_is_told_apart_and_says_when(
    connect: Callable[..., Any], server: Server
) -> None:
    client = connect(server, retries=0)
    with three_waiting(server), pytest.raises(errors.QueueFull) as caught:
        client.infer("patient", {"x": X})
    assert caught.value.retry_after_s >= 1
    eventually(lambda: waiting(server) == 0, "the queue is empty")


@each_client
def test_a_refused_request_is_sent_again_after_the_wait_the_server_asks_for(
    connect: Callable[..., Any], server: Server
) -> None:
    slept: list[float] = []
    with ExitStack() as full:
        full.enter_context(three_waiting(server))

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            full.close()
            eventually(lambda: waiting(server) == 0, "the queue is empty")

        client = connect(server, on_sleep=sleep)
        # The second time it is admitted, and waits for three more that never come.
        with pytest.raises(errors.DeadlineExceeded):
            client.infer("patient", {"x": X}, timeout=2.5)
    assert len(slept) == 1
    assert slept[0] >= 1
    eventually(lambda: waiting(server) == 0, "the queue is empty")


@each_client
def test_a_stream_keeps_order_and_survives_a_bad_request(client: Any) -> None:
    rows = [np.full((1, 4), number, np.float32) for number in range(40)]
    assert [one["y"][0, 0] for one in client.stream("affine", rows, max_in_flight=8)] == [
        2 * number + 1 for number in range(40)
    ]
    mixed = [rows[1], -rows[2], rows[3], np.zeros((1, 3), np.float32), rows[4]]
    found = list(client.stream("fussy", mixed, return_errors=True))
    assert [type(one) for one in found] == [
        InferResult,
        errors.ModelFailed,
        InferResult,
        errors.InvalidInput,
        InferResult,
    ]
    assert [one["y"][0, 0] for one in found[::2]] == [2, 6, 8]
    assert list(client.stream("affine", [])) == []


@each_client
def test_what_fails_in_a_stream_is_run_once(client: Any, server: Server) -> None:
    def failed() -> float:
        name = "pyserve_requests_total"
        return sum(
            server.metric(name, model="fussy", outcome=one)
            for one in ("model_failed", "invalid_input")
        )

    before = failed()
    found = list(client.stream("fussy", [-X, X[:, :3]], return_errors=True))
    assert [type(one) for one in found] == [errors.ModelFailed, errors.InvalidInput]
    assert failed() == before + 2


@each_client
@pytest.mark.parametrize("priority", [None, 0, 1, 2, 3])
def test_a_request_may_have_a_priority(client: Any, priority: int | None) -> None:
    assert client.infer("affine", X, priority=priority)["y"].tolist() == Y
    (found,) = client.stream("affine", [X], priority=priority, timeout=60)
    assert found["y"].tolist() == Y


@each_client
@pytest.mark.parametrize("priority", [4, -1, "high", 1.0, True])
def test_a_priority_that_is_none_is_refused(client: Any, priority: Any) -> None:
    with pytest.raises(errors.InvalidInput, match=r"priority is .*, expected 1 \(high\)"):
        client.infer("affine", X, priority=priority)


@each_client
@pytest.mark.parametrize("parameter", [{"priority": 4}, {"timeout": -1}, {"timeout": 1.5}])
def test_the_server_words_its_refusals_alike_in_every_protocol(
    client: Any, parameter: dict[str, Any]
) -> None:
    ((key, value),) = parameter.items()
    with pytest.raises(errors.InvalidInput, match=rf"^{key} is {value}, expected "):
        client.infer("affine", {"x": X}, parameters=parameter)
    (found,) = client.stream("affine", [X], parameters=parameter, return_errors=True)
    assert isinstance(found, errors.InvalidInput)
    assert found.message.startswith(f"{key} is {value}, expected ")


@each_client
@pytest.mark.parametrize("timeout", [1e7, 1e9, 1e10, 1e300])
def test_a_timeout_of_ages_is_one(client: Any, timeout: float) -> None:
    assert client.infer("affine", X, timeout=timeout)["y"].tolist() == Y


@each_client
def test_a_stream_left_early_leaves_the_client_usable(client: Any) -> None:
    stream = client.stream("affine", (X for _ in range(1000)), max_in_flight=2)
    assert next(iter(stream))["y"].tolist() == Y
    del stream
    assert client.infer("affine", X)["y"].tolist() == Y


@each_client
def test_a_request_of_a_stream_has_the_timeout_to_itself(client: Any, server: Server) -> None:
    found = list(client.stream("patient", [X, X], timeout=0.3, return_errors=True))
    assert [type(one) for one in found] == [errors.DeadlineExceeded] * 2
    eventually(lambda: waiting(server) == 0, "the queue is empty")


@each_client
@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_large_tensors_travel_compressed_and_whole(
    connect: Callable[..., Any], server: Server, compression: str
) -> None:
    rows = np.tile(X, (64, 1))
    large = np.arange(300_000, dtype=np.int64).reshape(1, -1)
    client = connect(server, compression=compression)
    assert client.infer("affine", {"x": rows})["y"].tolist() == Y * 64
    assert client.infer("lengths", {"ids": large})["total"].tolist() == [int(large.sum())]
    assert connect(server).infer("lengths", {"ids": large})["total"].tolist() == [large.sum()]


@each_client
def test_nobody_there_is_unavailable_and_says_what_to_do(connect: Callable[..., Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        for url in (f"http://{where}", f"grpc://{where}"):
            client = Client(url, retries=0)
            with pytest.raises(errors.Unavailable, match=f"cannot reach {url}: .*pyserve serve"):
                client.infer("affine", {"x": X})
            assert not client.live()
            client.close()


@each_client
def test_a_token_opens_what_is_closed(
    connect: Callable[..., Any], affine: Path, tmp_path: Path, request: Any
) -> None:
    protocol, _ = request.node.callspec.params["connect"]
    options = ("--management-token", "secret")
    with start(tmp_path / "log", str(affine), *options) as server:
        url = address(server, protocol)
        with pytest.raises(errors.Unauthenticated):
            connect(url).load("model")
        connect(url, token="secret").unload("model")
        assert not connect(url).ready("model")


def test_metrics_are_prometheus_text_over_http_only(server: Server) -> None:
    with Client(server.url) as client:
        assert "pyserve_requests_total" in client.metrics()
    with (
        Client(address(server, "grpc")) as client,
        pytest.raises(errors.InvalidInput, match="HTTP only"),
    ):
        client.metrics()


def test_threads_share_one_client(server: Server) -> None:
    for protocol in ("http", "grpc"):
        with Client(address(server, protocol), max_connections=3) as client:
            with ThreadPoolExecutor(8) as pool:
                rows = [np.full((1, 4), number, np.float32) for number in range(64)]
                found = list(pool.map(lambda row: client.model("affine")(row)[0, 0], rows))
            assert found == [2 * number + 1 for number in range(64)]


async def test_a_cancelled_request_leaves_the_queue(server: Server) -> None:
    for protocol in ("http", "grpc"):
        async with AsyncClient(address(server, protocol)) as client:
            asking = asyncio.create_task(client.infer("patient", {"x": X}))
            await asyncio.to_thread(eventually, lambda: waiting(server) == 1, "it waits")
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.to_thread(eventually, lambda: waiting(server) == 0, "it has left")


# --- without torch, and with other servers -------------------------------------------------------

BLOCKED = """
import sys
for name in ("torch", "pyserve._C"):
    sys.modules[name] = None
import pyserve
assert not {"numpy", "aiohttp", "urllib3", "grpc", "google.protobuf"} & set(sys.modules)
with pyserve.Client(sys.argv[1]) as client:
    assert "numpy" not in sys.modules
    print(client.model("affine")(x=[1, 2, 3, 4]).tolist())
    assert not {"aiohttp", "grpc"} & set(sys.modules)
"""


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_client_needs_no_torch_and_imports_only_what_it_uses(
    server: Server, protocol: str
) -> None:
    script = BLOCKED if protocol == "http" else BLOCKED.replace('"grpc"}', '"urllib3"}')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, address(server, protocol)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.stdout == f"{Y}\n", done.stderr


class Odd(BaseHTTPRequestHandler):
    """Answers by path as no pyserve would."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/v2/models/cut/"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            self.close_connection = True
        elif self.path.startswith("/v2/models/gone/"):
            self.close_connection = True
        elif self.path.startswith("/v2/models/squeezed/"):
            text = b'{"model_name": "squeezed", "outputs": []}'
            assert zlib.decompress(body) is not None
            self._answer(zlib.compress(text), "deflate")
        else:
            self._answer(b"<html>a page</html>")

    def _answer(self, body: bytes, coding: str = "identity") -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", coding)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *values: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def odd() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Odd) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


http_clients = pytest.mark.parametrize(
    "connect", [KINDS[0], KINDS[1]], indirect=True, ids=["Client", "AsyncClient"]
)


@http_clients
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("cut", "hung up in the middle"),
        ("gone", "hung up before it answered"),
        ("page", "answers, but not as a model server does"),
    ],
)
def test_a_server_that_is_odd_is_unavailable(
    connect: Callable[..., Any], odd: str, model: str, words: str
) -> None:
    with pytest.raises(errors.Unavailable, match=words):
        connect(odd, retries=0).infer(model, {"x": X})


@http_clients
def test_compression_is_of_both_ways(connect: Callable[..., Any], odd: str) -> None:
    client = connect(odd, compression="deflate")
    large = {"x": np.zeros(1000, np.float32)}
    assert client.infer("squeezed", large).outputs == {}


# --- over TLS ------------------------------------------------------------------------------------


class Certificate(NamedTuple):
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate of nobody's but ours, made for this run."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    command += ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def secure_http(own: Certificate) -> Iterator[str]:
    """The odd server over TLS, for who shows the same certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=own.certificate)
    context.load_cert_chain(own.certificate, own.key)
    context.verify_mode = ssl.CERT_REQUIRED

    class Secure(ThreadingHTTPServer):
        def get_request(self) -> Any:
            plain, where = self.socket.accept()
            return context.wrap_socket(plain, server_side=True), where

        def handle_error(self, *values: object) -> None:
            """Say nothing."""

    with Secure(("127.0.0.1", 0), Odd) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def secure_grpc(own: Certificate) -> Iterator[str]:
    """A server with a ModelInfer that answers nothing, over TLS."""
    answer = message("inference.ModelInferResponse")(model_name="m").SerializeToString()
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer)
    service = "inference.GRPCInferenceService"
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, {"ModelInfer": handler})]
        )
        ca = own.certificate.read_bytes()
        credentials = grpc.ssl_server_credentials([(own.key.read_bytes(), ca)], ca, True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        yield f"grpcs://localhost:{port}"
        server.stop(0).wait()


@each_client
def test_tls_is_for_who_is_trusted_on_both_sides(
    connect: Callable[..., Any], own: Certificate, request: pytest.FixtureRequest
) -> None:
    protocol, _ = request.node.callspec.params["connect"]
    url = request.getfixturevalue("secure_http" if protocol == "http" else "secure_grpc")
    known = {"ca_file": own.certificate, "cert_file": own.certificate, "key_file": own.key}
    large = {"x": np.zeros(1000, np.float32)}
    client = connect(url, compression="deflate", **known)
    assert client.infer("squeezed", large).outputs == {}
    with pytest.raises(errors.Unavailable, match=r"no secure connection to .* `ca_file`"):
        connect(url, retries=0).infer("squeezed", large)
