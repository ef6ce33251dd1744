"""What Triton's Python backend runs, in each of a model's instances: the same TorchScript file.

The backend imports it as `model.py` and brings the module `triton_python_backend_utils` itself.
"""

import json
from typing import Any

import triton_python_backend_utils as pb_utils
from served_model import ServedModel


class TritonPythonModel:
    """One instance, a process of its own; the name is the backend's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the case that the model's configuration names."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._model = ServedModel(
            parameters["case"]["string_value"],
            threads=int(parameters["torch_threads"]["string_value"]),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests that Triton has batched; each has one row."""
        names = [name for name, _, _ in self._model.inputs]
        rows = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names]
            for request in requests
        ]
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, output)
                    for name, output in zip(self._model.output_names, outputs, strict=True)
                ]
            )
            for outputs in self._model.run(rows)
        ]
