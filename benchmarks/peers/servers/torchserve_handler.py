"""TorchServe's handler: raw bytes in and out, or JSON; a worker process calls it with a batch.

`served_model.py` and `case.json` are in the same model archive.
"""

import os
from pathlib import Path
from typing import Any

from served_model import ServedModel


class Handler:
    """What TorchServe makes one of in every worker; the methods' names are TorchServe's."""

    def initialize(self, context: Any) -> None:
        """Load the case from where the archive was unpacked to."""
        folder = Path(context.system_properties["model_dir"])
        threads = int(os.environ["PEER_THREADS"])
        self._model = ServedModel(str(folder / "case.json"), threads=threads)

    def handle(self, requests: list[dict[str, Any]], context: Any) -> list[Any]:
        """Answer each request in its own form: JSON has been parsed before it comes here."""
        bodies = [request["body"] for request in requests]
        rows = [
            self._model.from_lists(body) if isinstance(body, dict) else self._model.from_bytes(body)
            for body in bodies
        ]
        return [
            self._model.to_lists(outputs)
            if isinstance(body, dict)
            else self._model.to_bytes(outputs)
            for body, outputs in zip(bodies, self._model.run(rows), strict=True)
        ]
