"""The messages and services that are compiled when pyserve is built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from tritonclient.grpc import model_config_pb2, service_pb2

from pyserve import protos


def fields(message: Any) -> dict[str, tuple[int, int, bool, str]]:
    return {
        one.name: (
            one.number,
            one.type,
            one.is_repeated,
            one.containing_oneof.name if one.containing_oneof else "",
        )
        for one in message.fields
    }


def check_same(ours: Any, theirs: Any) -> int:
    """Every field and enum of ours is one of theirs; returns how many fields were compared."""
    known = fields(theirs)
    for name, what in fields(ours).items():
        assert known[name] == what, f"{ours.full_name}.{name}"
    for enum in ours.enum_types:
        values = {one.name: one.number for one in theirs.enum_types_by_name[enum.name].values}
        assert {one.name: one.number for one in enum.values} == values
    nested = sum(
        check_same(one, theirs.nested_types_by_name[one.name]) for one in ours.nested_types
    )
    return len(ours.fields) + nested


@pytest.mark.parametrize(
    ("file", "theirs", "at_least"),
    [("inference.proto", service_pb2, 100), ("model_config.proto", model_config_pb2, 60)],
)
def test_names_and_numbers_are_those_that_tritons_client_sends(
    file: str, theirs: Any, at_least: int
) -> None:
    compared = 0
    for name, message in protos.pool().FindFileByName(file).message_types_by_name.items():
        compared += check_same(message, theirs.DESCRIPTOR.message_types_by_name[name])
    assert compared >= at_least


def test_methods_are_those_of_tritons_client() -> None:
    service = theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    known = {one.name: one for one in service.methods}
    ours = protos.methods(theirs.full_name)
    assert len(ours) == 17
    for one in ours:
        assert one.path == f"/inference.GRPCInferenceService/{one.name}"
        assert one.request.DESCRIPTOR.full_name == known[one.name].input_type.full_name
        assert one.response.DESCRIPTOR.full_name == known[one.name].output_type.full_name
        assert one.client_streaming == known[one.name].client_streaming
        assert one.server_streaming == known[one.name].server_streaming


def test_the_small_service_is_word_for_word() -> None:
    (predict,) = protos.methods("pytorch_model_server.ModelServer")
    assert predict.path == "/pytorch_model_server.ModelServer/Predict"
    string, data, number = 9, 12, 2
    assert fields(predict.request.DESCRIPTOR) == {
        "model_name": (1, string, False, ""),
        "input_data": (2, data, False, ""),
    }
    assert fields(predict.response.DESCRIPTOR) == {
        "model_name": (1, string, False, ""),
        "result": (2, number, False, ""),
    }
    assert fields(protos.message("pytorch_model_server.ModelSpec").DESCRIPTOR) == {
        "model_name": (1, string, False, ""),
        "model_path": (2, string, False, ""),
    }


def test_services_lists_what_the_files_have() -> None:
    assert protos.services() == [
        "inference.GRPCInferenceService",
        "pytorch_model_server.ModelServer",
        "org.pytorch.serve.grpc.inference.InferenceAPIsService",
        "org.pytorch.serve.grpc.management.ManagementAPIsService",
    ]


def test_messages_are_not_in_the_pool_that_other_libraries_share() -> None:
    ours = protos.message("inference.ModelInferRequest")
    assert ours.DESCRIPTOR is not service_pb2.ModelInferRequest.DESCRIPTOR
    same = service_pb2.ModelInferRequest.FromString(ours(model_name="m").SerializeToString())
    assert same.model_name == "m"
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("pytorch_model_server.Request")


def test_a_build_that_did_not_compile_them_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(protos, "_DESCRIPTORS", tmp_path / "protos.binpb")
    with pytest.raises(ImportError, match=r"python pyserve/protos/build\.py"):
        protos.pool.__wrapped__()


def test_compiling_gives_the_file_that_is_there() -> None:
    """Who changed a .proto and forgot to compile sees it here."""
    folder = Path(protos.__file__).parent
    before = (folder / "protos.binpb").read_bytes()
    subprocess.run([sys.executable, folder / "build.py"], check=True, timeout=60)
    assert (folder / "protos.binpb").read_bytes() == before
