"""TorchServe's gRPC services, on their own ports and on the main one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from archives import Scaled, archive, script
from grpc_calls import refused
from server_process import PATIENCE_S, Server, floats, start

from pyserve.grpc.torchserve import INFERENCE, MANAGEMENT
from pyserve.protos import methods


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("grpc")
    store = folder / "store"
    store.mkdir()
    for version, factor in (("1.0", 10.0), ("2.0", 20.0)):
        path = script(Scaled(factor), folder / f"scaled{factor}.pt")
        archive(store, "scaled", "--serialized-file", str(path), version=version)
        (store / "scaled.mar").rename(store / f"scaled-{version}.mar")
    config = folder / "config.properties"
    config.write_text(
        "load_models=scaled=scaled-1.0.mar\nmodel_store=store\n"
        "inference_address=http://127.0.0.1:0\nmanagement_address=http://127.0.0.1:0\n"
        "metrics_address=http://127.0.0.1:0\ngrpc_inference_port=0\ngrpc_management_port=0\n"
    )
    with start(folder / "log", "--ts-config", str(config), "--torchserve-ports") as running:
        yield running
        assert running.stop() == 0


def call(address: str, service: str, method: str, **fields: Any) -> Any:
    found = next(one for one in methods(service) if one.name == method)
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            found.path,
            request_serializer=found.request.SerializeToString,
            response_deserializer=found.response.FromString,
        )
        return ask(found.request(**fields), timeout=PATIENCE_S)


def manage(server: Server, method: str, **fields: Any) -> Any:
    """Call the management service on its own port; its messages are JSON."""
    address = server.ready["torchserve"]["grpc_management"]
    return json.loads(call(address, MANAGEMENT, method, **fields).msg)


def predict(server: Server, **fields: Any) -> Any:
    address = server.ready["torchserve"]["grpc_inference"]
    return json.loads(call(address, INFERENCE, "Predictions", **fields).prediction)


def test_ping_is_healthy_on_every_port(server: Server) -> None:
    ports = server.ready["torchserve"]
    for address in (ports["grpc_inference"], ports["grpc_management"], server.ready["grpc"]):
        health = call(address, INFERENCE, "Ping").health
        assert json.loads(health) == {"status": "Healthy"}


@pytest.mark.parametrize("version", ["", "1.0", "1"])
def test_predictions_take_json_or_bytes(server: Server, version: str) -> None:
    for data in (b"[1, 2]", floats(1, 2)):
        answer = predict(server, model_name="scaled", model_version=version, input={"data": data})
        assert answer == [10.0, 20.0]


def test_a_model_lives_from_register_to_unregister(server: Server) -> None:
    said = manage(server, "RegisterModel", url="scaled-2.0.mar", model_name="other")
    assert "registered with 0 initial workers" in said["status"]
    with refused(grpc.StatusCode.UNAVAILABLE, "no worker"):
        predict(server, model_name="other", input={"data": b"[1]"})
    said = manage(server, "ScaleWorker", model_name="other", min_worker=2, synchronous=True)
    assert said == {"status": "Workers scaled to 2 for model: other"}
    described = manage(server, "DescribeModel", model_name="other")
    assert (described[0]["modelVersion"], described[0]["minWorkers"]) == ("2.0", 2)
    listed = manage(server, "ListModels", limit=1)
    assert (listed["models"][0]["modelName"], listed["nextPageToken"]) == ("other", "1")
    assert predict(server, model_name="other", input={"body": b"[1]"}) == [20.0]
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        manage(server, "RegisterModel", url="scaled-2.0.mar", model_name="other")
    said = manage(server, "UnregisterModel", model_name="other")
    assert said == {"status": 'Model "other" unregistered'}


def test_the_default_version_can_be_set_and_goes_last(server: Server) -> None:
    manage(server, "RegisterModel", url="scaled-2.0.mar", initial_workers=1, synchronous=True)
    with refused(grpc.StatusCode.PERMISSION_DENIED, "default version"):
        manage(server, "UnregisterModel", model_name="scaled", model_version="1.0")
    manage(server, "SetDefault", model_name="scaled", model_version="2.0")
    assert predict(server, model_name="scaled", input={"data": b"[1]"}) == [20.0]
    manage(server, "SetDefault", model_name="scaled", model_version="1.0")
    manage(server, "UnregisterModel", model_name="scaled", model_version="2.0")
    assert predict(server, model_name="scaled", input={"data": b"[1]"}) == [10.0]


def test_errors_have_the_codes_of_every_door(server: Server) -> None:
    with refused(grpc.StatusCode.NOT_FOUND):
        predict(server, model_name="nobody", input={"data": b"[1]"})
    with refused(grpc.StatusCode.NOT_FOUND):
        predict(server, model_name="scaled", model_version="9.0", input={"data": b"[1]"})
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "empty"):
        predict(server, model_name="scaled")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "model_name"):
        predict(server, input={"data": b"[1]"})
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        predict(server, model_name="scaled", input={"data": b"[1, "})


def test_no_model_is_changed_where_models_are_not_to_change(
    tmp_path: Path, model_repository: Path
) -> None:
    options = ("--model-repository", str(model_repository), "--load-model", "affine")
    with start(tmp_path / "log", *options, "--model-control", "none") as fixed:
        for method in ("UnregisterModel", "ScaleWorker", "RegisterModel"):
            with refused(grpc.StatusCode.PERMISSION_DENIED, "model control"):
                call(fixed.ready["grpc"], MANAGEMENT, method, model_name="affine")
        answer = call(
            *(fixed.ready["grpc"], INFERENCE, "Predictions"),
            model_name="affine",
            input={"data": b"[1, 2, 3, 4]"},
        )
        assert json.loads(answer.prediction) == [3.0, 5.0, 7.0, 9.0]
        assert fixed.stop() == 0
