"""Triton's extensions over HTTP, as Triton's own client asks for them, synchronous and asyncio."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from served_models import EVERY
from server_process import Server, numbers, start, tensor
from tritonclient.utils import InferenceServerException, triton_to_np_dtype
from tritonclient.utils import shared_memory as shm

from pyserve.scripting import quiet_torchscript

HEADER_LENGTH = "Inference-Header-Content-Length"
ROW = np.array([[1, 2, 3, 4]], np.float32)
PBTXT = """
name: "triton"
platform: "pytorch_libtorch"
max_batch_size: 8
input [
  { name: "INPUT__1" data_type: TYPE_FP32 dims: [ 2 ] },
  { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 2 ] }
]
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" }
default_model_filename: "net.pt"
optimization { graph { level: 1 } }
"""


class Minus(torch.nn.Module):
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return first - second


@pytest.fixture(scope="module")
def triton_repository(affine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as Triton's users have it, and one of ours with names for its classes."""
    repository = tmp_path_factory.mktemp("triton")
    version = repository / "triton" / "1"
    version.mkdir(parents=True)
    with quiet_torchscript():
        torch.jit.script(Minus()).save(version / "net.pt")
    (repository / "triton" / "config.pbtxt").write_text(PBTXT)
    (repository / "triton" / "labels.txt").write_text("cat\ndog\n")
    ours = repository / "labelled" / "1"
    ours.mkdir(parents=True)
    (ours / "model.pt").write_bytes(affine.read_bytes())
    (repository / "labelled" / "config.yaml").write_text("class_labels: [a, b, c, d]")
    lost = repository / "lost"
    (lost / "1").mkdir(parents=True)
    (lost / "1" / "model.pt").write_bytes(affine.read_bytes())
    (lost / "config.yaml").write_text("class_labels: nowhere.txt")
    return repository


@pytest.fixture(scope="module")
def server(
    model_repository: Path, triton_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    folders = [str(model_repository), str(triton_repository)]
    options = [part for one in folders for part in ("--model-repository", one)]
    with start(log, *options, "--shared-memory", "--no-grpc") as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in log.read_text()


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as one:
        yield one


def given(name: str, values: Any, datatype: str = "FP32") -> triton.InferInput:
    one = triton.InferInput(name, list(values.shape), datatype)
    one.set_data_from_numpy(values)
    return one


# --- every method of the client -----------------------------------------------------------------

Call = tuple[str, tuple[Any, ...], dict[str, Any], Callable[[Any], object]]


def calls() -> list[Call]:
    """Each method with its arguments and what its result must satisfy; in an order that works."""
    inputs = [given("x", ROW)]
    off = {"trace_level": ["OFF"]}
    return [
        ("is_server_live", (), {}, lambda live: live is True),
        ("is_server_ready", (), {}, lambda ready: ready is True),
        ("is_model_ready", ("affine",), {}, lambda ready: ready is True),
        ("is_model_ready", ("affine", "1"), {}, lambda ready: ready is True),
        ("is_model_ready", ("affine", "2"), {}, lambda ready: ready is False),
        ("is_model_ready", ("nope",), {}, lambda ready: ready is False),
        ("get_server_metadata", (), {}, lambda found: found["name"] == "pyserve"),
        ("get_model_metadata", ("affine",), {}, lambda found: found["versions"] == ["1"]),
        ("get_model_metadata", ("affine", "1"), {}, lambda found: found["inputs"][0]["name"]),
        ("get_model_config", ("affine", "1"), {}, lambda found: found["max_batch_size"] == 64),
        (
            "get_model_repository_index",
            (),
            {},
            lambda found: {"affine", "triton"} <= {one["name"] for one in found},
        ),
        ("load_model", ("affine",), {"config": '{"max_batch_size": 8}'}, lambda _: True),
        ("get_model_config", ("affine",), {}, lambda found: found["max_batch_size"] == 8),
        ("unload_model", ("affine",), {"unload_dependents": True}, lambda _: True),
        ("is_model_ready", ("affine",), {}, lambda ready: ready is False),
        ("load_model", ("affine",), {}, lambda _: True),
        ("get_model_config", ("affine",), {}, lambda found: found["max_batch_size"] == 64),
        ("infer", ("affine", inputs), {}, lambda result: result.as_numpy("y")[0, 3] == 9),
        (
            "infer",
            ("affine", inputs),
            {"request_id": "7", "timeout": 10_000_000, "priority": 1, "parameters": {"mine": 1}},
            lambda result: result.get_response()["id"] == "7",
        ),
        (
            "get_inference_statistics",
            ("affine", "1"),
            {},
            lambda found: found["model_stats"][0]["inference_count"] >= 2,
        ),
        (
            "get_inference_statistics",
            (),
            {},
            lambda found: len(found["model_stats"]) > 5,
        ),
        ("get_trace_settings", (), {}, lambda found: found["trace_level"] == ["OFF"]),
        ("get_trace_settings", ("affine",), {}, lambda found: found["trace_level"] == ["OFF"]),
        ("update_trace_settings", (), {"settings": off}, lambda found: found["trace_rate"]),
        ("update_trace_settings", ("affine", off), {}, lambda found: found["trace_rate"]),
        ("get_log_settings", (), {}, lambda found: found["log_info"] is True),
        (
            "update_log_settings",
            ({"log_verbose_level": 0},),
            {},
            lambda found: found["log_verbose_level"] == 0,
        ),
        ("register_system_shared_memory", ("r", "/pyserve_test_calls", 16), {}, lambda _: True),
        (
            "get_system_shared_memory_status",
            (),
            {},
            lambda found: (
                found == [{"name": "r", "key": "/pyserve_test_calls", "offset": 0, "byte_size": 16}]
            ),
        ),
        ("get_system_shared_memory_status", ("r",), {}, lambda found: len(found) == 1),
        ("unregister_system_shared_memory", ("r",), {}, lambda _: True),
        ("unregister_system_shared_memory", (), {}, lambda _: True),
        ("get_system_shared_memory_status", (), {}, lambda found: found == []),
        ("get_cuda_shared_memory_status", (), {}, lambda found: found == []),
        ("unregister_cuda_shared_memory", (), {}, lambda _: True),
        ("unregister_cuda_shared_memory", ("r",), {}, lambda _: True),
    ]


REFUSED: list[tuple[str, tuple[Any, ...], str]] = [
    ("register_cuda_shared_memory", ("r", b"handle", 0, 16), "not supported"),
    ("register_system_shared_memory", ("r", "/pyserve_test_missing", 16), "cannot be opened"),
    ("get_system_shared_memory_status", ("nope",), "no system shared memory region"),
    ("get_cuda_shared_memory_status", ("nope",), "not supported"),
    ("update_trace_settings", (None, {"trace_level": ["TIMESTAMPS"]}), "no tracing here"),
    ("update_trace_settings", ("affine", {"trace_levels": ["OFF"]}), "unknown trace setting"),
    ("update_trace_settings", ("nope", {}), "nope"),
    ("get_trace_settings", ("nope",), "nope"),
    ("update_log_settings", ({"log_verbose_level": 2},), "cannot be changed"),
    ("update_log_settings", ({"log_colour": "red"},), "unknown log setting"),
]


@pytest.fixture
def region() -> Iterator[shm.SharedMemoryRegion]:
    handle = shm.create_shared_memory_region("calls", "/pyserve_test_calls", 16)
    yield handle
    shm.destroy_shared_memory_region(handle)


async def check_calls(client: Any) -> set[str]:
    """Make every call of either client; returns the names of the methods called."""
    for name, arguments, options, satisfied in calls():
        result = getattr(client, name)(*arguments, **options)
        if inspect.isawaitable(result):
            result = await result
        assert satisfied(result), (name, arguments, result)
    for name, refused, words in REFUSED:
        with pytest.raises(InferenceServerException, match=words):
            result = getattr(client, name)(*refused)
            if inspect.isawaitable(result):
                await result
    return {name for name, *_ in (*calls(), *REFUSED)}


def methods(kind: type) -> set[str]:
    return {
        name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")
    }


# Methods of a client that say nothing to the server.
LOCAL = {"close", "plugin", "register_plugin", "unregister_plugin"}


async def test_every_method_of_the_synchronous_client_works(
    server: Server, client: triton.InferenceServerClient, region: object
) -> None:
    called = await check_calls(client)
    body, length = client.generate_request_body([given("x", ROW)])
    reply = server.infer("affine", body, {HEADER_LENGTH: str(length)})
    answer = client.parse_response_body(
        reply.body, header_length=int(reply.headers[HEADER_LENGTH.lower()])
    )
    np.testing.assert_array_equal(answer.as_numpy("y"), ROW * 2 + 1)
    pending = [client.async_infer("affine", [given("x", ROW * n)]) for n in range(3)]
    assert [one.get_result().as_numpy("y")[0, 0] for one in pending] == [1, 3, 5]
    called |= {"generate_request_body", "parse_response_body", "async_infer"}
    assert methods(triton.InferenceServerClient) - LOCAL == called


async def test_every_method_of_the_asyncio_client_works(server: Server, region: object) -> None:
    async with triton_aio.InferenceServerClient(server.url.removeprefix("http://")) as client:
        called = await check_calls(client)
        for coding in ("gzip", "deflate"):
            rows = np.repeat(ROW, 64, axis=0)
            result = await client.infer(
                "affine",
                [given("x", rows)],
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            np.testing.assert_array_equal(result.as_numpy("y"), rows * 2 + 1)
    called |= {"generate_request_body", "parse_response_body"}  # those of the synchronous client
    assert methods(triton_aio.InferenceServerClient) - LOCAL == called


# --- classification -----------------------------------------------------------------------------


@pytest.mark.parametrize("as_binary", [True, False])
def test_outputs_come_by_class(client: triton.InferenceServerClient, as_binary: bool) -> None:
    rows = np.array([[1, 4, 2, 3], [9, 8, 7, 6]], np.float32)
    output = triton.InferRequestedOutput("y", binary_data=as_binary, class_count=2)
    result = client.infer("affine", [given("x", rows)], outputs=[output])
    found = result.as_numpy("y").astype(bytes).tolist()
    assert found == [[b"9.000000:1", b"7.000000:3"], [b"19.000000:0", b"17.000000:1"]]
    assert result.get_output("y")["datatype"] == "BYTES"
    result = client.infer("labelled", [given("x", rows)], outputs=[output])
    assert result.as_numpy("y").astype(bytes).tolist()[0] == [b"9.000000:1:b", b"7.000000:3:d"]


def test_one_output_by_class_and_another_as_it_is(server: Server) -> None:
    inputs = [tensor("a", "INT64", [1, 3], [1, 9, 5]), tensor("b", "INT64", [1, 3], [2, 2, 2])]
    outputs = [{"name": "large"}, {"name": "sum", "parameters": {"classification": 9}}]
    reply = server.infer("pair", {"inputs": inputs, "outputs": outputs})
    assert [one["data"] for one in reply.json["outputs"]] == [
        [False, True, True],
        ["11:1", "7:2", "3:0"],
    ]
    assert reply.json["outputs"][1]["shape"] == [1, 3]
    assert "compute;dur=" in reply.headers["server-timing"]


def test_what_is_no_number_has_no_classes(server: Server) -> None:
    top = {"outputs": [{"name": "large", "parameters": {"classification": 1}}]}
    inputs = [tensor("a", "INT64", [1, 3], [1, 9, 5]), tensor("b", "INT64", [1, 3], [2, 2, 2])]
    reply = server.infer("pair", {"inputs": inputs} | top)
    assert (reply.status, reply.error) == (
        400,
        'output "large" is BOOL: only numbers can be classified',
    )
    reply = server.infer("affine", numbers(1, 2, 3, 4) | top)
    assert reply.status == 400


def test_labels_that_are_not_there_are_an_error_of_their_model(server: Server) -> None:
    index = {one["name"]: one for one in server.ask("POST", "/v2/repository/index").json}
    assert index["lost"]["state"] == "UNAVAILABLE"
    assert index["lost"]["reason"] == (
        'class_labels: there is no file "nowhere.txt" beside the model'
    )


# --- Triton's repositories and load requests ----------------------------------------------------


def test_a_repository_of_tritons_is_served_as_it_is(
    server: Server, client: triton.InferenceServerClient
) -> None:
    metadata = client.get_model_metadata("triton")
    assert [one["name"] for one in metadata["inputs"]] == ["INPUT__0", "INPUT__1"]
    first, second = np.array([[5, 1]], np.float32), np.array([[1, 2]], np.float32)
    inputs = [given("INPUT__1", second), given("INPUT__0", first)]
    output = triton.InferRequestedOutput("OUTPUT__0", class_count=2)
    found = client.infer("triton", inputs, outputs=[output]).as_numpy("OUTPUT__0")
    assert found.astype(bytes).tolist() == [[b"4.000000:0:cat", b"-1.000000:1:dog"]]
    assert client.get_model_config("triton")["max_batch_size"] == 8
    assert "config.pbtxt: optimization: no effect here" in server.log.read_text()


def test_a_models_own_configuration_may_be_sent_back(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("fussy")
    changed = config | {"instance_group": [{"count": 2, "kind": "KIND_CPU"}]}
    client.load_model("fussy", config=json.dumps(changed))
    assert client.get_model_config("fussy")["instance_group"][0]["count"] == 2
    client.load_model("fussy")
    assert client.get_model_config("fussy") == config


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "not valid JSON"),
        ('{"max_batch_siz": 8}', "max_batch_size"),
        ('{"backend": "onnxruntime"}', "expected pytorch"),
        ('{"max_batch_size": -1}', "max_batch_size"),
        ('{"batching": {"max_batch_size": "many"}}', "batching.max_batch_size"),
        ('{"class_labels": "../../secret"}', "beside the model"),
    ],
)
def test_a_load_that_cannot_be_done_leaves_what_served(
    client: triton.InferenceServerClient, config: str, words: str
) -> None:
    with pytest.raises(InferenceServerException, match=words):
        client.load_model("labelled", config=config)
    assert client.is_model_ready("labelled")


def test_model_files_are_not_taken_from_a_request(client: triton.InferenceServerClient) -> None:
    request = json.dumps({"parameters": {"config": "{}", "file:1/model.pt": "QUJD"}})
    reply = client._post("v2/repository/models/affine/load", request, None, None)
    assert reply.status_code == 400
    assert b"model files are not taken" in reply.read()


# --- what is true of this server ----------------------------------------------------------------


def test_extensions_are_those_that_are_there(server: Server) -> None:
    assert server.get("/v2").json["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "statistics",
        "system_shared_memory",
    ]


def test_statistics_have_tritons_fields(server: Server) -> None:
    (found,) = server.get("/v2/models/affine/versions/1/stats").json["model_stats"]
    theirs = {
        "name",
        "version",
        "last_inference",
        "inference_count",
        "execution_count",
        "inference_stats",
        "response_stats",
        "batch_stats",
        "memory_usage",
    }
    assert set(found) == theirs


def test_bf16_comes_and_goes_as_binary_data(client: triton.InferenceServerClient) -> None:
    values = np.array([[1.5, -256.0]], ml_dtypes.bfloat16)
    inputs = []
    for name in EVERY:
        datatype = "BOOL" if name == "boolean" else name.upper()
        kind = ml_dtypes.bfloat16 if name == "bf16" else triton_to_np_dtype(datatype)
        inputs.append(given(name, values if name == "bf16" else np.ones((1, 2), kind), datatype))
    result = client.infer("every", inputs, outputs=[triton.InferRequestedOutput("same_bf16")])
    np.testing.assert_array_equal(result.as_numpy("same_bf16"), values)
    by_class = [triton.InferRequestedOutput("same_bf16", class_count=1)]
    result = client.infer("every", inputs, outputs=by_class)
    assert result.as_numpy("same_bf16").tolist() == [[b"1.500000:0"]]


# --- cross-origin requests ----------------------------------------------------------------------


def test_without_listed_origins_pages_are_told_nothing(server: Server) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    reply = server.ask("OPTIONS", "/v2/models/affine/infer", headers=headers)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    body = json.dumps(numbers(1, 2, 3, 4)).encode()
    reply = server.ask("POST", "/v2/models/affine/infer", body, headers)
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_a_page_of_a_listed_origin_needs_the_token_all_the_same(
    model_repository: Path, tmp_path: Path
) -> None:
    page = {"Origin": "https://app.example"}
    arguments = ["--model-repository", str(model_repository), "--load-model", "affine"]
    arguments += ["--no-grpc", "--cors-origin", page["Origin"], "--cors-origin", "null"]
    load = "/v2/repository/models/affine/load"
    with start(tmp_path / "log", *arguments) as server:
        reply = server.infer("affine", numbers(1, 2, 3, 4), page)
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == page["Origin"]
        reply = server.ask("POST", load, b"", page)
        assert (reply.status, "token" in reply.error) == (403, True)
        assert server.stop() == 0
    with start(tmp_path / "log", *arguments, "--management-token", "s3cret") as server:
        assert server.ask("POST", load, b"", page).status == 401
        token = {"Authorization": "Bearer s3cret"}
        reply = server.ask("POST", load, b"", page | token)
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == page["Origin"]
        assert server.stop() == 0


def _ask(server: Server, model: str, **options: Any) -> Any:
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(ROW)
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        return client.infer(model, [tensor], **options).as_numpy("y")


@pytest.mark.parametrize("priority", [0, 1, 2, 3])
@pytest.mark.parametrize("timeout", [None, 0, 60_000_000, 2**63 - 1, 2**64])
def test_priority_and_timeout_are_taken_as_tritons_client_sends_them(
    server: Server, priority: int, timeout: int | None
) -> None:
    answer = _ask(server, "affine", priority=priority, timeout=timeout)
    np.testing.assert_array_equal(answer, 2 * ROW + 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"priority": 4}, "priority is 4, expected 1 (high), 2 (normal), 3 (low)"),
        ({"priority": "high"}, 'priority is "high", expected 1 (high)'),
        ({"timeout": -1}, "timeout is -1, expected microseconds"),
        ({"timeout": 0.5}, "timeout is 0.5, expected microseconds"),
    ],
)
def test_a_priority_or_timeout_that_is_none_is_400(
    server: Server, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        _ask(server, "affine", **options)
    assert caught.value.status() == "400"
    assert said in str(caught.value)


def test_a_timeout_that_passes_is_504(server: Server) -> None:
    with pytest.raises(InferenceServerException) as caught:
        _ask(server, "patient", timeout=50_000)
    assert caught.value.status() == "504"
