"""Triton Inference Server: the `tritonserver` binary that the nvidia-pytriton wheel carries.

The wheel has the Python backend and no other, so the TorchScript file is run from there, by
`servers/triton_model.py`.  Requests are the KServe v2 protocol's, binary or JSON.
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.case import Tensor, flattened, unpacked
from benchmarks.peers.peer import (
    SERVERS,
    Answer,
    Environment,
    Form,
    HttpRequest,
    Launch,
    ModelCase,
    Peer,
    Place,
    Setting,
    json_inputs,
)

_HEADER_LENGTH = "Inference-Header-Content-Length"
_SHARED_MEMORY_BYTES = 64 << 20


class _Tuned(NamedTuple):
    instances: int
    torch_threads: int
    max_batch: int


class Triton(Peer):
    """One server process in C++ and one process for each instance of the model."""

    name = "triton"
    title = "Triton"
    packages = ("nvidia-pytriton==0.7.0",)

    def finish_install(self, environment: Environment) -> None:
        """Put the stub for this Python where the server looks for it: beside its backend."""
        carried = environment.packages / "pytriton" / "tritonserver"
        version = environment.packages.parent.name.removeprefix("python")
        backends = environment.folder / "backends"
        shutil.copytree(carried / "backends", backends, dirs_exist_ok=True)
        stub = carried / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy2(stub, backends / "python")

    def settings(self, model: ModelCase, place: Place) -> list[Setting]:
        """As Triton's performance tuning guide has it: instances for the cores, then batching."""
        tuned = _tuned(place)
        return [
            Setting(
                "instances",
                f"{tuned.instances}, KIND_CPU",
                "one for each core; the guide advises more than one so that copying and "
                "computing overlap",
            ),
            Setting(
                "torch threads",
                str(tuned.torch_threads),
                "instances side by side have the cores; more threads would take turns on them",
            ),
            Setting(
                "dynamic_batching",
                f"max_batch_size {tuned.max_batch}, no delay",
                "batches form while the instances are busy; a delay would cost a lone request its "
                "whole length; 16 is each instance's half of 32 connections",
            ),
            Setting(
                "--http-thread-count",
                str(place.cores),
                "one for each core: the default of 8 only adds switches between threads",
            ),
            Setting(
                "shm-default-byte-size",
                f"{_SHARED_MEMORY_BYTES >> 20} MiB",
                "a whole batch of images passes to an instance without growing the region",
            ),
            Setting("gRPC, metrics, verbose log", "off", "nobody asks for them here"),
        ]

    def launch(self, model: ModelCase, place: Place) -> Launch:
        """Write a model repository of one model; start the binary on it."""
        environment = place.environment
        repository = place.folder / "models"
        version = repository / model.name / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(_configuration(model, _tuned(place)))
        shutil.copy(SERVERS / "triton_model.py", version / "model.py")
        shutil.copy(SERVERS / "served_model.py", version)
        carried = environment.packages / "pytriton" / "tritonserver"
        command = [
            str(carried / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={environment.folder / 'backends'}",
            f"--backend-config=python,shm-default-byte-size={_SHARED_MEMORY_BYTES}",
            "--http-address=127.0.0.1",
            f"--http-port={place.port}",
            f"--http-thread-count={place.cores}",
            "--allow-grpc=false",
            "--allow-metrics=false",
            "--log-info=false",
            # Less than the harness waits before it kills: an instance ends slowly on busy cores.
            "--exit-timeout-secs=12",
        ]
        # The instances embed a Python that heeds no PYTHONPATH and PYTHONHOME: it finds this
        # environment as that of the first python3 on PATH.
        python = Path(environment.python)
        libraries = [
            environment.packages / "nvidia_pytriton.libs",
            python.resolve().parent.parent / "lib",
        ]
        env = {
            "LD_LIBRARY_PATH": os.pathsep.join(str(one) for one in libraries),
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        }
        return Launch(command, env)

    def request(self, model: ModelCase, form: Form) -> HttpRequest | None:
        """The binary tensor extension, a raw body where there is one input, or plain JSON."""
        path = f"/v2/models/{model.name}/infer"
        if form == "binary":
            described = {
                "inputs": [
                    _described(one, parameters={"binary_data_size": one.size_bytes})
                    for one in model.inputs
                ],
                "parameters": {"binary_data_output": True},
            }
            header = json.dumps(described, separators=(",", ":")).encode()
            headers = {
                "Content-Type": "application/octet-stream",
                _HEADER_LENGTH: str(len(header)),
            }
            return HttpRequest(path, headers, header + model.request)
        if form == "raw":
            if len(model.inputs) > 1:
                return None
            headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: "0"}
            return HttpRequest(path, headers, model.request)
        lists = json_inputs(model)
        asked = {
            "inputs": [_described(one, data=lists[one.name]) for one in model.inputs],
        }
        return HttpRequest(path, {"Content-Type": "application/json"}, json.dumps(asked).encode())

    def numbers(self, model: ModelCase, form: Form, answer: Answer) -> list[float]:
        """Binary outputs follow the header, whose length the answer's own header says."""
        if form == "json":
            outputs = {one["name"]: one["data"] for one in json.loads(answer.body)["outputs"]}
            return [number for one in model.outputs for number in flattened(outputs[one.name])]
        return unpacked(model.outputs, answer.body[int(answer.headers[_HEADER_LENGTH.lower()]) :])


def _tuned(place: Place) -> _Tuned:
    return _Tuned(instances=place.cores, torch_threads=1, max_batch=16)


def _described(tensor: Tensor, **more: object) -> dict[str, object]:
    return {"name": tensor.name, "datatype": tensor.dtype, "shape": tensor.shape, **more}


def _configuration(model: ModelCase, tuned: _Tuned) -> str:
    """Return the model's `config.pbtxt`."""
    return f"""\
name: "{model.name}"
backend: "python"
max_batch_size: {tuned.max_batch}
{_declared("input", model.inputs)}
{_declared("output", model.outputs)}
instance_group [{{ kind: KIND_CPU, count: {tuned.instances} }}]
dynamic_batching {{ }}
parameters {{ key: "case", value: {{ string_value: "{model.case_path}" }} }}
parameters {{ key: "torch_threads", value: {{ string_value: "{tuned.torch_threads}" }} }}
"""


def _declared(kind: str, tensors: Iterable[Tensor]) -> str:
    """Return inputs or outputs as the configuration has them: without the batch dimension."""
    return "\n".join(
        f'{kind} {{ name: "{one.name}", data_type: TYPE_{one.dtype}, dims: {list(one.shape[1:])} }}'
        for one in tensors
    )
