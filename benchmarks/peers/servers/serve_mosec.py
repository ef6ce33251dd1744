"""A mosec worker; mosec reads its own options from the command line, the rest is the environment.

A worker sees no headers, so bytes are told from JSON by their length.
"""

import json
import os

from mosec import Server, Worker
from served_model import ServedModel


class Predict(Worker):
    """Bodies of one row each; batches of them."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ServedModel(os.environ["CASE"], threads=1)

    def deserialize(self, data: bytes):
        """Return the inputs, and whether they came as JSON."""
        if _is_json(data, self.model):
            return self.model.from_lists(json.loads(data)), True
        return self.model.from_bytes(data), False

    def forward(self, data):
        """Run a batch."""
        outputs = self.model.run([row for row, _ in data])
        return [(one, as_json) for one, (_, as_json) in zip(outputs, data, strict=True)]

    def serialize(self, data) -> bytes:
        """Answer in the form of the question."""
        outputs, as_json = data
        if as_json:
            return json.dumps(self.model.to_lists(outputs)).encode()
        return self.model.to_bytes(outputs)


def _is_json(data: bytes, model: ServedModel) -> bool:
    return len(data) != model.request_bytes


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Predict,
        num=int(os.environ["WORKERS"]),
        max_batch_size=int(os.environ["BATCH"]),
        max_wait_time=int(os.environ["WAIT_MS"]),
    )
    server.run()
