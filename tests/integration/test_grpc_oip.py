"""The Open Inference Protocol over gRPC, as plain stubs see it; health; reflection."""

from __future__ import annotations

import re
import struct

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_calls import SERVICE, call, channel, infer, infer_request, refused, stub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from served_models import EVERY
from server_process import PATIENCE_S, Server, floats

from pyserve.protos import message
from pyserve.signature import DTYPES, encode_bytes_elements

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


# --- what the server and its models say ---------------------------------------------------------


def test_the_server_is_live_ready_and_says_who_it_is(server: Server) -> None:
    assert call(server, "ServerLive").live
    assert call(server, "ServerReady").ready
    metadata = call(server, "ServerMetadata")
    rest = server.get("/v2").json
    assert (metadata.name, metadata.version) == (rest["name"], rest["version"])
    assert list(metadata.extensions) == rest["extensions"]


def test_a_model_is_ready_or_not_found(server: Server) -> None:
    assert call(server, "ModelReady", name="affine").ready
    assert call(server, "ModelReady", name="affine", version="1").ready
    with refused(NOT_FOUND, '"nope"'):
        call(server, "ModelReady", name="nope")
    with refused(NOT_FOUND, "2"):
        call(server, "ModelReady", name="affine", version="2")
    with refused(grpc.StatusCode.UNAVAILABLE, "broken"):
        call(server, "ModelReady", name="broken")


def test_metadata_is_that_of_the_rest_api(server: Server) -> None:
    for model in ("affine", "pair", "shout", "every"):
        ours = call(server, "ModelMetadata", name=model)
        rest = server.get(f"/v2/models/{model}").json
        assert (ours.name, ours.platform) == (rest["name"], rest["platform"])
        assert list(ours.versions) == rest["versions"]
        for mine, theirs in ((ours.inputs, rest["inputs"]), (ours.outputs, rest["outputs"])):
            assert [(one.name, one.datatype, list(one.shape)) for one in mine] == [
                (one["name"], one["datatype"], one["shape"]) for one in theirs
            ]


def test_a_configuration_is_tritons_model_config(server: Server) -> None:
    config = call(server, "ModelConfig", name="shout").config
    assert (config.name, config.max_batch_size) == ("shout", 0)
    kinds = config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name
    assert config.input[0].data_type == kinds["TYPE_STRING"].number
    assert list(config.input[0].dims) == [-1]
    assert config.instance_group[0].count >= 1


def test_statistics_count_rows_and_requests(server: Server) -> None:
    def stats() -> tuple[int, int]:
        (found,) = call(server, "ModelStatistics", name="fussy", version="1").model_stats
        return found.inference_count, found.inference_stats.success.count

    before = stats()
    request = message("inference.ModelInferRequest")(model_name="fussy")
    request.inputs.add(name="x", datatype="FP32", shape=[2, 4])
    request.raw_input_contents.append(bytes(32))
    infer(server, request)
    assert stats() == (before[0] + 2, before[1] + 1)
    everyone = call(server, "ModelStatistics").model_stats
    assert {"affine", "fussy", "pair"} <= {one.name for one in everyone}


# --- inference ----------------------------------------------------------------------------------


def test_raw_and_typed_contents_give_the_same_answer(server: Server) -> None:
    raw = infer(server, infer_request("affine", 1, 2, 3, 4, id="seven"))
    assert (raw.model_name, raw.model_version, raw.id) == ("affine", "1", "seven")
    assert raw.outputs[0].name == "y"
    assert not raw.outputs[0].HasField("contents")
    assert list(raw.raw_output_contents) == [floats(3, 5, 7, 9)]
    request = message("inference.ModelInferRequest")(model_name="affine", id="seven")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    assert infer(server, request) == raw


def test_every_dtype_comes_back_as_it_was_sent(server: Server) -> None:
    request = message("inference.ModelInferRequest")(model_name="every")
    sent = []
    for index, name in enumerate(EVERY):
        dtype = name.upper().replace("BOOLEAN", "BOOL")
        # Patterns without a meaning of their own: no NaN, and only 0 and 1 for a bool.
        data = bytes([1, 0]) if dtype == "BOOL" else bytes([index, 0] * DTYPES[dtype].size)
        request.inputs.add(name=name, datatype=dtype, shape=[1, 2])
        sent.append(data)
    request.raw_input_contents.extend(sent)
    answer = infer(server, request)
    assert [one.name for one in answer.outputs] == [f"same_{name}" for name in EVERY]
    assert list(answer.raw_output_contents) == sent


def test_strings_travel_in_both_forms(server: Server) -> None:
    for typed in (True, False):
        request = message("inference.ModelInferRequest")(model_name="shout")
        tensor = request.inputs.add(name="text", datatype="BYTES", shape=[3])
        encoded = [b"", "grüße".encode(), b"x" * 300]
        if typed:
            tensor.contents.bytes_contents.extend(encoded)
        else:
            request.raw_input_contents.append(encode_bytes_elements(encoded))
        # TorchScript knows the capitals of ASCII alone.
        expected = encode_bytes_elements([b"", "GRüßE".encode(), b"X" * 300])
        assert list(infer(server, request).raw_output_contents) == [expected]


def test_a_large_tensor_goes_through(server: Server) -> None:
    count = 300_000
    request = message("inference.ModelInferRequest")(model_name="lengths")
    tensor = request.inputs.add(name="ids", datatype="INT64", shape=[1, count])
    request.raw_input_contents.append(struct.pack("<q", 3) * count)
    raw = infer(server, request)
    assert list(raw.raw_output_contents) == [struct.pack("<q", 3 * count)]
    del request.raw_input_contents[:]
    tensor.contents.int64_contents.extend([3] * count)
    assert infer(server, request) == raw


def test_only_the_outputs_asked_for_come(server: Server) -> None:
    request = message("inference.ModelInferRequest")(model_name="pair")
    for name in ("a", "b"):
        request.inputs.add(name=name, datatype="INT64", shape=[1, 3])
        request.raw_input_contents.append(struct.pack("<3q", 1, 2, 3))
    request.outputs.add(name="sum")
    answer = infer(server, request)
    assert [one.name for one in answer.outputs] == ["sum"]
    assert list(answer.raw_output_contents) == [struct.pack("<3q", 2, 4, 6)]


def test_the_largest_values_come_as_classes(server: Server) -> None:
    request = infer_request("affine", 1, 4, 2, 3)
    request.outputs.add(name="y").parameters["classification"].int64_param = 2
    (answer,) = infer(server, request).raw_output_contents
    values = [one.decode().split(":")[:2] for one in _elements(answer)]
    assert [(float(value), index) for value, index in values] == [(9.0, "1"), (7.0, "3")]


def _elements(data: bytes) -> list[bytes]:
    found = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


def test_the_trailer_says_where_the_time_went(server: Server) -> None:
    with channel(server) as opened:
        _, done = stub(opened, "ModelInfer").with_call(
            infer_request("affine", 1, 2, 3, 4), timeout=PATIENCE_S
        )
    trailers = dict(done.trailing_metadata())
    over_http = server.infer("affine", {"inputs": [_json_row()]}).headers["server-timing"]
    shape = re.compile(r"[0-9.]+")
    assert shape.sub("N", trailers["server-timing"]) == shape.sub("N", over_http)


def _json_row() -> dict[str, object]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


# --- what goes wrong ----------------------------------------------------------------------------


def test_each_error_has_its_status(server: Server) -> None:
    with refused(NOT_FOUND, '"nope"'):
        infer(server, infer_request("nope", 1))
    with refused(NOT_FOUND, ""):
        infer(server, infer_request("affine", 1, 2, 3, 4, model_version="9"))
    with refused(INVALID, 'input "x"'):
        infer(server, infer_request("affine", 1, 2, 3))
    with refused(NOT_FOUND, '"../../etc"'):
        infer(server, infer_request("affine", 1, 2, 3, 4, model_version="../../etc"))
    with refused(grpc.StatusCode.INTERNAL, 'model "fussy" version 1 request "seven"'):
        infer(server, infer_request("fussy", -1, 2, 3, 4, id="seven"))
    with refused(grpc.StatusCode.UNAVAILABLE, "broken"):
        infer(server, infer_request("broken", 1))


def test_bytes_that_are_no_message_are_refused(server: Server) -> None:
    with channel(server) as opened:
        for method in ("ModelInfer", "ModelReady"):
            with refused(INVALID, f"not a valid inference.{method}Request"):
                opened.unary_unary(f"/{SERVICE}/{method}")(b"\xff\xff", timeout=PATIENCE_S)


def test_a_long_message_is_cut_and_arrives(server: Server) -> None:
    with refused(NOT_FOUND, "no model"):
        infer(server, infer_request("é" * 20_000, 1))
    request = infer_request("affine", 1, 2, 3, 4)
    request.inputs[0].shape.extend([1] * 100_000)
    with refused(INVALID, "dimensions"):
        infer(server, request)


def test_an_unknown_method_is_unimplemented(server: Server) -> None:
    with channel(server) as opened, refused(grpc.StatusCode.UNIMPLEMENTED):
        opened.unary_unary(f"/{SERVICE}/CudaSharedMemoryStatus")(b"", timeout=PATIENCE_S)


def test_answers_are_counted_by_method_and_status(server: Server) -> None:
    def counted(code: str) -> float:
        method = f"{SERVICE}/ModelReady"
        return server.metric("pyserve_grpc_responses_total", method=method, code=code)

    before = counted("OK"), counted("NOT_FOUND")
    call(server, "ModelReady", name="affine")
    with refused(NOT_FOUND):
        call(server, "ModelReady", name="nope")
    assert (counted("OK"), counted("NOT_FOUND")) == (before[0] + 1, before[1] + 1)


# --- the smallest service -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "data", "result"),
    [
        ("affine", floats(1, 2, 3, 4), 3.0),
        ("lengths", struct.pack("<5q", 1, 2, 3, 4, 5), 15.0),
        ("typed", struct.pack("<2e", 1.5, 2), 3.0),
        ("scalar", floats(0.5), 1.5),
    ],
)
def test_predict_takes_a_row_and_gives_a_number(
    server: Server, model: str, data: bytes, result: float
) -> None:
    with channel(server) as opened:
        predict = stub(opened, "Predict", "pytorch_model_server.ModelServer")
        request = message("pytorch_model_server.Request")(model_name=model, input_data=data)
        answer = predict(request, timeout=PATIENCE_S)
    assert (answer.model_name, answer.result) == (model, result)


@pytest.mark.parametrize(
    ("model", "data", "code", "said"),
    [
        ("affine", bytes(12), INVALID, "12 bytes, expected 16"),
        ("affine", bytes(32), INVALID, "32 bytes, expected 16"),
        ("pair", bytes(24), INVALID, 'has 2 ("a", "b")'),
        ("shout", b"hello", INVALID, '"loud" is BYTES, expected numbers'),
        ("nope", bytes(16), NOT_FOUND, '"nope"'),
        ("fussy", floats(-1, 0, 0, 0), grpc.StatusCode.INTERNAL, "sad"),
    ],
)
def test_predict_refuses_what_is_no_row(
    server: Server, model: str, data: bytes, code: grpc.StatusCode, said: str
) -> None:
    request = message("pytorch_model_server.Request")(model_name=model, input_data=data)
    with channel(server) as opened, refused(code, said):
        stub(opened, "Predict", "pytorch_model_server.ModelServer")(request, timeout=PATIENCE_S)


# --- health and reflection ----------------------------------------------------------------------


def test_health_knows_the_server_its_services_and_its_models(server: Server) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    with channel(server) as opened:
        check = health_pb2_grpc.HealthStub(opened).Check
        for name in ("", SERVICE, "pytorch_model_server.ModelServer", "affine"):
            request = health_pb2.HealthCheckRequest(service=name)
            assert check(request, timeout=PATIENCE_S).status == serving
        answer = check(health_pb2.HealthCheckRequest(service="broken"), timeout=PATIENCE_S)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with refused(NOT_FOUND):
            check(health_pb2.HealthCheckRequest(service="nope"), timeout=PATIENCE_S)


def test_who_watches_the_health_hears_of_a_model_that_comes_back(server: Server) -> None:
    states = health_pb2.HealthCheckResponse
    with channel(server) as opened:
        watch = health_pb2_grpc.HealthStub(opened).Watch
        unknown = watch(health_pb2.HealthCheckRequest(service="nope"), timeout=PATIENCE_S)
        assert next(unknown).status == states.SERVICE_UNKNOWN
        unknown.cancel()
        typed = watch(health_pb2.HealthCheckRequest(service="typed"), timeout=PATIENCE_S)
        assert next(typed).status == states.SERVING
        call(server, "RepositoryModelUnload", model_name="typed")
        assert next(typed).status == states.SERVICE_UNKNOWN
        call(server, "RepositoryModelLoad", model_name="typed")
        assert any(one.status == states.SERVING for one in typed)
        typed.cancel()


def test_reflection_describes_every_service(server: Server) -> None:
    with channel(server) as opened:
        database = ProtoReflectionDescriptorDatabase(opened)
        services = set(database.get_services())
        pool = DescriptorPool(database)
        methods = {
            name: [one.name for one in pool.FindServiceByName(name).methods] for name in services
        }
    assert {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "pytorch_model_server.ModelServer",
    } <= services
    assert methods["pytorch_model_server.ModelServer"] == ["Predict"]
    assert len(methods[SERVICE]) == 17
