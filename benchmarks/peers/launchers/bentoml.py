"""BentoML: worker processes of uvicorn that share a socket, with adaptive batching in each.

The service is `servers/bentoml_service.py`.
"""

import json
from typing import NamedTuple

from benchmarks.peers.case import flattened
from benchmarks.peers.peer import (
    SERVERS,
    Answer,
    Form,
    HttpRequest,
    Launch,
    ModelCase,
    Peer,
    Place,
    Setting,
    json_inputs,
)

_SMALL_MODELS = ("tiny", "mlp")


class _Tuned(NamedTuple):
    workers: int
    torch_threads: int
    max_batch: int


class BentoML(Peer):
    """A process that watches and one process for each worker."""

    name = "bentoml"
    title = "BentoML"
    # uvicorn takes uvloop and httptools where it finds them.
    packages = ("bentoml==1.4.40", "uvloop", "httptools")

    def settings(self, model: ModelCase, place: Place) -> list[Setting]:
        """Workers for the cores, as its page on them advises, and adaptive batching."""
        tuned = _tuned(model, place)
        return [
            Setting(
                "workers",
                str(tuned.workers),
                "one for each core: most of the time goes into Python",
            ),
            Setting(
                "torch threads",
                str(tuned.torch_threads),
                "workers side by side have the cores",
            ),
            Setting(
                "max_batch_size",
                str(tuned.max_batch),
                "adaptive batching finds its own delay below that; a worker has half of 32 or 64 "
                "connections",
            ),
            Setting(
                "max_latency_ms",
                "60000, its default",
                "less makes it refuse with 503 what it estimates to be late",
            ),
            Setting("uvloop, httptools", "installed", "uvicorn is faster with both"),
            Setting("access log, metrics, tracking", "off", "as everywhere here"),
        ]

    def launch(self, model: ModelCase, place: Place) -> Launch:
        """`bentoml serve`; the service reads in the environment what is tuned."""
        tuned = _tuned(model, place)
        env = {
            "BENTOML_HOME": str(place.folder / "home"),
            "BENTOML_DO_NOT_TRACK": "True",
            # The service imports `served_model`.
            "PYTHONPATH": str(SERVERS),
            "PEER_CASE": str(model.case_path),
            "PEER_WORKERS": str(tuned.workers),
            "PEER_THREADS": str(tuned.torch_threads),
            "PEER_MAX_BATCH": str(tuned.max_batch),
        }
        command = [
            place.environment.program("bentoml"),
            "serve",
            "bentoml_service:Model",
            f"--working-dir={SERVERS}",
            "--host=127.0.0.1",
            f"--port={place.port}",
        ]
        return Launch(command, env)

    def request(self, model: ModelCase, form: Form) -> HttpRequest | None:
        """Raw bytes, or JSON with a list of one row: what a batchable API takes."""
        if form == "json":
            body = json.dumps({"rows": [json_inputs(model)]}).encode()
            return HttpRequest("/predict_json", {"Content-Type": "application/json"}, body)
        return super().request(model, form)

    def numbers(self, model: ModelCase, form: Form, answer: Answer) -> list[float]:
        """Raw bytes, or JSON with a list of one row."""
        if form == "json":
            (outputs,) = json.loads(answer.body)
            return [number for one in model.outputs for number in flattened(outputs[one.name])]
        return super().numbers(model, form, answer)


def _tuned(model: ModelCase, place: Place) -> _Tuned:
    return _Tuned(
        workers=place.cores,
        torch_threads=1,
        max_batch=32 if model.name in _SMALL_MODELS else 16,
    )
