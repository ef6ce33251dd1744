"""pyserve itself, with the defaults that a user gets."""

import json
import os
import sys

from benchmarks.peers.case import flattened, unpacked
from benchmarks.peers.peer import Answer, Form, HttpRequest, Launch, ModelCase, Peer, Place, Setting
from pyserve.bench import bodies
from pyserve.messages import InputTensor

_HEADER_LENGTH = "inference-header-content-length"


class Pyserve(Peer):
    """From the checkout that runs the comparison."""

    name = "pyserve"
    title = "pyserve"
    port_count = 2

    def settings(self, model: ModelCase, place: Place) -> list[Setting]:
        """None."""
        return [Setting("all", "the defaults", "they are what a user gets; logs only warnings")]

    def launch(self, model: ModelCase, place: Place) -> Launch:
        """`pyserve serve`; packages of the checkout are found as this process finds them."""
        command = [sys.executable, "-m", "pyserve", "serve"]
        command += ["--model-repository", str(model.folder / "repository")]
        command += ["--http-port", str(place.ports[0]), "--grpc-port", str(place.ports[1])]
        command += ["--log-format", "json", "--log-level", "warning"]
        path = os.environ.get("PYTHONPATH")
        return Launch(command, {"PYTHONPATH": path} if path else {})

    def request(self, model: ModelCase, form: Form) -> HttpRequest | None:
        """The binary tensor extension, JSON, and for one input a raw body."""
        if form == "raw" and len(model.inputs) > 1:
            return None
        inputs = []
        offset = 0
        for one in model.inputs:
            data = model.request[offset : offset + one.size_bytes]
            inputs.append(InputTensor(one.name, one.dtype, one.shape, data))
            offset += one.size_bytes
        return bodies.encode(bodies.infer_path(model.name), inputs, form)

    def numbers(self, model: ModelCase, form: Form, answer: Answer) -> list[float]:
        """The Open Inference Protocol's answers."""
        return oip_numbers(model, answer)


def oip_numbers(model: ModelCase, answer: Answer) -> list[float]:
    """Return the numbers of an Open Inference Protocol answer, binary or JSON."""
    length = answer.headers.get(_HEADER_LENGTH)
    if length is not None:
        return unpacked(model.outputs, answer.body[int(length) :])
    outputs = {one["name"]: one["data"] for one in json.loads(answer.body)["outputs"]}
    return [float(number) for one in model.outputs for number in flattened(outputs[one.name])]
