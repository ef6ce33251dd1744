"""BentoML: a service with two batchable APIs, raw bytes in and out, and JSON.

`bentoml serve bentoml_service:Model` imports it; what is tuned comes in environment variables from
`launchers/bentoml.py`.
"""

import os
from typing import Annotated, Any

import bentoml
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from served_model import ServedModel

_TUNED = {name: int(os.environ[f"PEER_{name}"]) for name in ("WORKERS", "THREADS", "MAX_BATCH")}
# Beyond what any request here takes: one that is estimated to be later gets a 503.
_MAX_LATENCY_MS = 60_000

# A batchable API's one parameter is a list, of one row where it comes from one request; that it is
# a string in the schema makes BentoML hand over the body as it is.
_RAW = WithJsonSchema({"type": "string", "format": "binary"})
Rows = Annotated[list[bytes], BeforeValidator(lambda body: [body]), _RAW]
Answers = Annotated[
    list[bytes],
    BeforeValidator(lambda rows: rows),
    PlainSerializer(lambda rows: rows[0], return_type=bytes),
    _RAW,
    bentoml.validators.ContentType("application/octet-stream"),
]

batchable = bentoml.api(
    batchable=True, max_batch_size=_TUNED["MAX_BATCH"], max_latency_ms=_MAX_LATENCY_MS
)


@bentoml.service(
    workers=_TUNED["WORKERS"],
    threads=1,
    traffic={"timeout": _MAX_LATENCY_MS / 1000},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    runner_probe={"enabled": False},
)
class Model:
    """One worker process each."""

    def __init__(self) -> None:
        self._model = ServedModel(os.environ["PEER_CASE"], threads=_TUNED["THREADS"])

    @batchable
    def predict(self, rows: Rows, /) -> Answers:
        """Run a batch of raw bodies."""
        outputs = self._model.run([self._model.from_bytes(row) for row in rows])
        return [self._model.to_bytes(one) for one in outputs]

    @batchable
    def predict_json(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run a batch of rows, each an object of nested lists by input name."""
        outputs = self._model.run([self._model.from_lists(row) for row in rows])
        return [self._model.to_lists(one) for one in outputs]
