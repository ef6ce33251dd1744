"""Triton's own gRPC clients, unchanged: every method, synchronous and asyncio."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from server_process import PATIENCE_S, Server, eventually, waiting

from pyserve.signature import DTYPES

ROW = np.array([[1, 2, 3, 4]], np.float32)


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc) as opened:
        yield opened


def row(name: str = "x", values: Any = ROW, dtype: str = "FP32") -> Any:
    tensor = triton.InferInput(name, list(values.shape), dtype)
    tensor.set_data_from_numpy(values)
    return tensor


def test_the_server_and_its_models_describe_themselves(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("affine")
    assert client.is_model_ready("affine", "1")
    assert client.get_server_metadata().name == "pyserve"
    assert client.get_model_metadata("affine").inputs[0].name == "x"
    assert client.get_model_config("affine", as_json=True)["config"]["name"] == "affine"
    assert client.get_inference_statistics("affine").model_stats[0].name == "affine"


def test_inference_answers_in_every_way_it_is_asked(client: Any) -> None:
    plain = client.infer("affine", [row()], request_id="7")
    assert plain.get_response().id == "7"
    np.testing.assert_array_equal(plain.as_numpy("y"), 2 * ROW + 1)
    asked = [triton.InferRequestedOutput("y")]
    again = client.infer("affine", [row()], "1", asked, priority=1, timeout=60_000_000)
    np.testing.assert_array_equal(again.as_numpy("y"), 2 * ROW + 1)
    classes = client.infer(
        "affine", [row()], outputs=[triton.InferRequestedOutput("y", class_count=1)]
    )
    assert classes.as_numpy("y").ravel()[0].startswith(b"9")
    for algorithm in ("gzip", "deflate"):
        packed = client.infer("affine", [row()], compression_algorithm=algorithm)
        np.testing.assert_array_equal(packed.as_numpy("y"), 2 * ROW + 1)


def test_strings_and_half_floats_go_there_and_back(client: Any) -> None:
    words = np.array([b"hello", "grüße".encode()], np.object_)
    loud = client.infer("shout", [row("text", words, "BYTES")]).as_numpy("loud")
    assert [one.decode() for one in loud] == ["HELLO", "GRüßE"]
    half = np.array([[1.5, 2]], np.float16)
    answer = client.infer("typed", [row("x", half, "FP16")]).as_numpy("y")
    np.testing.assert_array_equal(answer, half * 2)
    assert DTYPES["FP16"].size == answer.itemsize


def test_callbacks_get_answers_and_errors(client: Any) -> None:
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.async_infer("affine", [row()], lambda result, error: done.put((result, error)))
    result, error = done.get(timeout=PATIENCE_S)
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * ROW + 1)
    client.async_infer("nope", [row()], lambda result, error: done.put((result, error)))
    _, error = done.get(timeout=PATIENCE_S)
    assert error.status() == "StatusCode.NOT_FOUND"


def test_a_stream_answers_in_order_and_survives_a_bad_request(client: Any) -> None:
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: done.put((result, error)))
    for index, tensor in enumerate((row(), row("unknown"), row())):
        client.async_stream_infer(
            "affine", [tensor], request_id=str(index), enable_empty_final_response=True
        )
    answers = [done.get(timeout=PATIENCE_S) for _ in range(3)]
    client.stop_stream()
    assert [error is None for _, error in answers] == [True, False, True]
    assert '"unknown"' in str(answers[1][1])
    for index in (0, 2):
        response = answers[index][0].get_response()
        assert response.id == str(index)
        assert response.parameters["triton_final_response"].bool_param


def test_models_are_listed_loaded_and_unloaded(client: Any) -> None:
    states = {one.name: one.state for one in client.get_model_repository_index().models}
    assert states["pair"] == "READY"
    assert states["broken"] == "UNAVAILABLE"
    client.unload_model("pair")
    with pytest.raises(triton.InferenceServerException, match="NOT_FOUND"):
        client.is_model_ready("pair")
    client.load_model("pair", config='{"max_batch_size": 2}')
    assert client.get_model_config("pair").config.max_batch_size == 2
    client.load_model("pair")
    assert client.is_model_ready("pair")
    with pytest.raises(triton.InferenceServerException, match="not taken from a request"):
        client.load_model("pair", config="{}", files={"file:1/model.pt": b"x"})
    with pytest.raises(triton.InferenceServerException, match="INVALID_ARGUMENT"):
        client.load_model("broken")
    with pytest.raises(triton.InferenceServerException, match="NOT_FOUND"):
        client.load_model("nope")


def test_settings_are_answered_with_what_is_so(client: Any) -> None:
    trace = client.get_trace_settings("affine", as_json=True)["settings"]
    assert trace["trace_level"]["value"] == ["OFF"]
    client.update_trace_settings(settings={"trace_level": ["OFF"], "trace_rate": None})
    with pytest.raises(triton.InferenceServerException, match="no tracing here"):
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    with pytest.raises(triton.InferenceServerException, match="NOT_FOUND"):
        client.get_trace_settings("nope")
    assert client.get_log_settings().settings["log_info"].bool_param
    client.update_log_settings({"log_info": True})
    with pytest.raises(triton.InferenceServerException, match="cannot be changed"):
        client.update_log_settings({"log_verbose_level": 3})


def test_shared_memory_is_off_unless_asked_for(client: Any) -> None:
    assert not client.get_system_shared_memory_status().regions
    with pytest.raises(triton.InferenceServerException, match="--shared-memory"):
        client.register_system_shared_memory("region", "/key", 16)
    with pytest.raises(triton.InferenceServerException, match="--shared-memory"):
        client.unregister_system_shared_memory()
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_shared_memory("region", 16)
    with pytest.raises(triton.InferenceServerException, match="--shared-memory"):
        client.infer("affine", [tensor])


def test_a_deadline_that_passes_is_deadline_exceeded(server: Server, client: Any) -> None:
    for options in ({"client_timeout": 0.05}, {"timeout": 50_000}):
        with pytest.raises(triton.InferenceServerException) as caught:
            client.infer("patient", [row()], **options)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        eventually(lambda: waiting(server) == 0, "nobody waits")


async def test_the_asyncio_client_works_too(server: Server) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for index, name in enumerate(("x", "unknown", "x")):
            yield {"model_name": "affine", "inputs": [row(name)], "request_id": str(index)}

    async with triton_aio.InferenceServerClient(server.grpc) as client:
        assert await client.is_server_ready()
        result = await client.infer("affine", [row()])
        np.testing.assert_array_equal(result.as_numpy("y"), 2 * ROW + 1)
        with pytest.raises(triton.InferenceServerException, match="NOT_FOUND"):
            await client.infer("nope", [row()])
        answers = [answer async for answer in client.stream_infer(requests())]
    assert [error is None for _, error in answers] == [True, False, True]
    assert answers[2][0].get_response().id == "2"


@pytest.mark.parametrize("priority", [0, 1, 2, 3])
def test_priority_and_timeout_are_taken_as_tritons_client_sends_them(
    client: Any, priority: int
) -> None:
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    options = {"priority": priority, "timeout": 60_000_000}
    answer = client.infer("affine", [row()], **options)
    np.testing.assert_array_equal(answer.as_numpy("y"), 2 * ROW + 1)
    client.start_stream(lambda result, error: done.put((result, error)))
    client.async_stream_infer("affine", [row()], **options)
    result, error = done.get(timeout=PATIENCE_S)
    client.stop_stream()
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * ROW + 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"priority": 4}, "priority is 4, expected 1 (high), 2 (normal), 3 (low)"),
        ({"priority": 2**64 - 1}, "priority is a number of 64 bits, expected"),
        ({"timeout": -1}, "timeout is -1, expected microseconds"),
    ],
)
def test_a_priority_or_timeout_that_is_none_is_an_invalid_argument(
    client: Any, options: dict[str, int], said: str
) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("affine", [row()], **options)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 50_000},
        {"timeout": 50_000, "client_timeout": PATIENCE_S},
        {"timeout": 60_000_000, "client_timeout": 0.05},
        {"client_timeout": 0.05},
    ],
)
def test_the_nearer_of_timeout_and_client_timeout_ends_a_request(
    client: Any, server: Server, options: dict[str, Any]
) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("patient", [row()], **options)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    eventually(lambda: waiting(server) == 0, "nobody waits")


@pytest.mark.parametrize("client_timeout", [1e7, 1e9])
def test_a_deadline_of_ages_is_one(client: Any, client_timeout: float) -> None:
    answer = client.infer("affine", [row()], client_timeout=client_timeout)
    np.testing.assert_array_equal(answer.as_numpy("y"), 2 * ROW + 1)
