"""Whatever changes the server obeys one switch and one token, by whichever alias it is called.

Every alias is sent to a server with a token, to one that allows no changes of models, and, with
names that lead out of the repository, to one that allows them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from hostile_doors import Outcome, call, grpc_channel
from server_process import ROOT, Server, numbers, start

from pyserve.errors import (
    InvalidInput,
    ModelNotFound,
    PermissionDenied,
    PyserveError,
    Unauthenticated,
)
from pyserve.protos import message

Headers = Mapping[str, str]

TOKEN = "a secret"


class Change(NamedTuple):
    """One way to change something; `send` takes the name of a model (or region, or archive).

    models: it changes models, so that model control has a say.
    """

    name: str
    send: Callable[[Server, str, Headers], Outcome]
    models: bool = True


def rest(method: str, path: str, body: bytes = b"", *, models: bool = True) -> Change:
    """A call over HTTP."""

    def send(server: Server, name: str, headers: Headers) -> Outcome:
        target = path.replace("{}", quote(name, safe=""))
        reply = server.ask(method, target, body, dict(headers))
        said = reply.json
        text = "" if reply.status < 300 else said.get("error") or said.get("message")
        return Outcome(reply.status, text)

    return Change(f"{method} {path}", send, models)


def rpc(service: str, method: str, request: str, *, models: bool = True, **fields: Any) -> Change:
    """A call over gRPC; the field that is {} is the name."""

    def send(server: Server, name: str, headers: Headers) -> Outcome:
        filled = {key: name if value == "{}" else value for key, value in fields.items()}
        package = service.rpartition(".")[0]
        data = message(f"{package}.{request}")(**filled).SerializeToString()
        metadata = [(key.lower(), value) for key, value in headers.items()]
        with grpc_channel(server) as channel:
            return call(channel, f"/{service}/{method}", data, metadata)

    return Change(f"{service}/{method}", send, models)


TRITON = "inference.GRPCInferenceService"
TORCHSERVE = "org.pytorch.serve.grpc.management.ManagementAPIsService"
REGION = "/v2/systemsharedmemory/region/{}"

BY_NAME = [
    rest("POST", "/v2/repository/models/{}/load"),
    rest("POST", "/v2/repository/models/{}/unload"),
    rpc(TRITON, "RepositoryModelLoad", "RepositoryModelLoadRequest", model_name="{}"),
    rpc(TRITON, "RepositoryModelUnload", "RepositoryModelUnloadRequest", model_name="{}"),
    rest("PUT", "/models/{}?min_worker=1"),
    rest("PUT", "/models/{}/?min_worker=1"),
    rest("PUT", "/models/{}/1?min_worker=1"),
    rest("PUT", "/models/{}/1/set-default"),
    rest("PUT", "/models/{}/1/set-default/"),
    rest("DELETE", "/models/{}"),
    rest("DELETE", "/models/{}/"),
    rest("DELETE", "/models/{}/1"),
    rpc(TORCHSERVE, "ScaleWorker", "ScaleWorkerRequest", model_name="{}", min_worker=1),
    rpc(TORCHSERVE, "SetDefault", "SetDefaultRequest", model_name="{}", model_version="1"),
    rpc(TORCHSERVE, "UnregisterModel", "UnregisterModelRequest", model_name="{}"),
]
REGISTER = [
    rest("POST", "/models?url={}"),
    rest("POST", "/models/?url={}"),
    rest("POST", "/models?model_url={}"),
    rpc(TORCHSERVE, "RegisterModel", "RegisterModelRequest", url="{}"),
]
MEMORY = [
    rest("POST", f"{REGION}/register", b'{"key": "/nope", "byte_size": 4}', models=False),
    rest("POST", f"{REGION}/unregister", models=False),
    rest("POST", "/v2/systemsharedmemory/unregister", models=False),
    rpc(
        TRITON,
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryRegisterRequest",
        models=False,
        name="{}",
        key="/nope",
        byte_size=4,
    ),
    rpc(
        TRITON,
        "SystemSharedMemoryUnregister",
        "SystemSharedMemoryUnregisterRequest",
        models=False,
        name="{}",
    ),
]
EVERY = [*BY_NAME, *REGISTER, *MEMORY]
OF_MODELS = [*BY_NAME, *REGISTER]

every_change = pytest.mark.parametrize("change", EVERY, ids=lambda change: change.name)


def serving(folder: Path, repository: Path, *options: str) -> Iterator[Server]:
    log = folder / "log"
    store = folder / "store"
    store.mkdir()
    common = ["--model-repository", str(repository), "--load-model", "affine", "--shared-memory"]
    with start(log, *common, "--model-store", str(store), *options) as running:
        yield running
        reply = running.infer("affine", numbers(1, 2, 3, 4))
        assert reply.json["outputs"][0]["data"] == [3, 5, 7, 9]
        assert running.stop() == 0
        assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def guarded(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a token."""
    folder = tmp_path_factory.mktemp("guarded")
    yield from serving(folder, model_repository, "--management-token", TOKEN)


@pytest.fixture(scope="module")
def locked(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose models do not change."""
    folder = tmp_path_factory.mktemp("locked")
    yield from serving(folder, model_repository, "--model-control", "none")


@pytest.fixture(scope="module")
def open_server(
    model_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that lets everybody on this machine change models."""
    yield from serving(tmp_path_factory.mktemp("open"), model_repository)


def check(outcome: Outcome, *errors: type[PyserveError]) -> None:
    assert outcome.code in [outcome.expected(error) for error in errors], outcome.message
    assert "Traceback" not in outcome.message
    assert str(ROOT) not in outcome.message
    assert "/tmp" not in outcome.message


@every_change
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer another secret"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"X-Authorization": f"Bearer {TOKEN}"},
    ],
    ids=json.dumps,
)
def test_without_the_token_nothing_is_changed(
    guarded: Server, change: Change, headers: Headers
) -> None:
    check(change.send(guarded, "affine", headers), Unauthenticated)


@every_change
def test_with_the_token_the_change_itself_is_looked_at(guarded: Server, change: Change) -> None:
    outcome = change.send(guarded, "nope", {"Authorization": f"Bearer {TOKEN}"})
    check(outcome, None, ModelNotFound, InvalidInput)


@pytest.mark.parametrize("change", OF_MODELS, ids=lambda change: change.name)
@pytest.mark.parametrize("name", ["affine", "nope"])
def test_where_models_do_not_change_no_alias_changes_them(
    locked: Server, change: Change, name: str
) -> None:
    check(change.send(locked, name, {}), PermissionDenied)


@every_change
def test_no_web_page_changes_anything_without_a_token(open_server: Server, change: Change) -> None:
    outcome = change.send(open_server, "affine", {"Origin": "https://example.org"})
    check(outcome, PermissionDenied)


OUTSIDE = [
    "..",
    ".",
    "../affine",
    "affine/../affine",
    "affine/1",
    "/etc/passwd",
    "..\\affine",
    "affine\0",
    "affine\n",
    "%2e%2e",
    " ",
    "a" * 5000,
    "\u00e4ffine",
]


@pytest.mark.parametrize("change", BY_NAME, ids=lambda change: change.name)
@pytest.mark.parametrize("name", OUTSIDE, ids=lambda name: ascii(name[:30]))
def test_no_name_leads_out_of_the_repository(
    open_server: Server, change: Change, name: str
) -> None:
    check(change.send(open_server, name, {}), ModelNotFound)


@pytest.mark.parametrize("change", REGISTER, ids=lambda change: change.name)
@pytest.mark.parametrize(
    "url",
    [
        *OUTSIDE,
        "../store.mar",
        "/etc/passwd",
        "/etc/hostname.mar",
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "http://127.0.0.1:1/a.mar",
        "https://example.org/a.mar",
        "s3://bucket/a.mar",
        "http:a.mar",
        "\\\\host\\a.mar",
    ],
    ids=lambda url: ascii(url[:30]),
)
def test_no_archive_comes_from_elsewhere(open_server: Server, change: Change, url: str) -> None:
    check(change.send(open_server, url, {}), ModelNotFound, InvalidInput, PermissionDenied)
