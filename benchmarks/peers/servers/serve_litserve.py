"""A LitServe API: `serve_litserve.py CASE PORT WORKERS BATCH`."""

import sys
from typing import Annotated, Any

import litserve as ls
from fastapi import Body, Response
from fastapi.responses import JSONResponse
from served_model import ServedModel


class Predict(ls.LitAPI):
    """Bodies of one row each; batches of them."""

    def __init__(self, case_path: str, **options) -> None:
        super().__init__(**options)
        self.case_path = case_path

    def setup(self, device: str) -> None:
        """Load the model in the worker process."""
        self.model = ServedModel(self.case_path, threads=1)

    # FastAPI hands over what the content type says: a body's bytes, or what its JSON holds.
    def decode_request(self, request: Annotated[Any, Body()], **kwargs):
        """Return the inputs, and whether they came as JSON."""
        if isinstance(request, bytes):
            return self.model.from_bytes(request), False
        return self.model.from_lists(request), True

    def batch(self, inputs):
        """Leave the rows as they are: the model puts them together."""
        return inputs

    def predict(self, x):
        """Run a batch."""
        outputs = self.model.run([row for row, _ in x])
        return [(one, as_json) for one, (_, as_json) in zip(outputs, x, strict=True)]

    def unbatch(self, output):
        """One for each request, as they are."""
        return output

    def encode_response(self, output, **kwargs) -> Response:
        """Answer in the form of the question."""
        outputs, as_json = output
        if as_json:
            return JSONResponse(self.model.to_lists(outputs))
        return Response(self.model.to_bytes(outputs), media_type="application/octet-stream")


def main() -> None:
    """Serve until SIGTERM."""
    case_path, port, workers, batch = sys.argv[1], *map(int, sys.argv[2:])
    api = Predict(case_path, max_batch_size=batch, batch_timeout=0.0)
    server = ls.LitServer(
        api, accelerator="cpu", workers_per_device=workers, fast_queue=True, timeout=60
    )
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=workers,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
