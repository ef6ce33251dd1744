"""TorchServe: a front end in Java, worker processes in Python, a handler of our own.

`java` is started directly: the `torchserve` command would start it as its child and not pass
SIGTERM on.
"""

import json
from typing import NamedTuple

from benchmarks.peers.peer import (
    SERVERS,
    Form,
    HttpRequest,
    Launch,
    ModelCase,
    Peer,
    Place,
    Setting,
)

# A 503 where more are queued: more than there are connections here.
_QUEUE_SIZE = 1000
_SMALL_MODELS = ("tiny", "mlp")

_LOG_CONFIGURATION = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders><Console name="console" target="SYSTEM_OUT"/></Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="console"/></Root></Loggers>
</Configuration>
"""


class _Tuned(NamedTuple):
    workers: int
    torch_threads: int
    max_batch: int
    max_delay_ms: int


class TorchServe(Peer):
    """One Java process and one Python process for each worker."""

    name = "torchserve"
    title = "TorchServe"
    packages = (
        "torchserve==0.12.0",
        "torch-model-archiver==0.12.0",
        # What its workers import without saying so; pkg_resources left setuptools with 81.
        "setuptools<81",
        "psutil",
        "packaging",
        "pyyaml",
    )
    programs = ("java",)
    # Inference, management and metrics over HTTP, two for gRPC, and the number that the first
    # worker's Unix socket is named by.
    port_count = 6

    def settings(self, model: ModelCase, place: Place) -> list[Setting]:
        """As its performance guide and checklist have it: workers for the cores, then batching."""
        tuned = _tuned(model, place)
        return [
            Setting("minWorkers, maxWorkers", str(tuned.workers), "one for each core"),
            Setting(
                "torch threads",
                str(tuned.torch_threads),
                "the guide: workers times threads should be the cores, or they get in each "
                "other's way",
            ),
            Setting(
                "batchSize",
                str(tuned.max_batch),
                "a small model costs a worker less than each hand-over from Java, so its batches "
                "are longer; a large one's are so long that both workers have one of 32 requests",
            ),
            Setting(
                "maxBatchDelay",
                f"{tuned.max_delay_ms} ms",
                "the least there is: a lone request waits all of it",
            ),
            Setting("job_queue_size", str(_QUEUE_SIZE), "the default of 100 refuses bursts"),
            Setting("async_logging", "true", "as the guide advises"),
            Setting("log level", "warn", "no access log, as everywhere here; no line per metric"),
            Setting("disable_system_metrics", "true", "no sampling process beside the workers"),
            Setting("disable_token_authorization", "true", "nobody else here checks a token"),
        ]

    def launch(self, model: ModelCase, place: Place) -> Launch:
        """Write the model archive and the configuration; start Java on them."""
        environment, tuned = place.environment, _tuned(model, place)
        store, temporary = place.folder / "store", place.folder / "t"
        store.mkdir()
        temporary.mkdir()
        environment.run(
            [
                environment.program("torch-model-archiver"),
                f"--model-name={model.name}",
                "--version=1.0",
                f"--handler={SERVERS / 'torchserve_handler.py'}",
                f"--extra-files={SERVERS / 'served_model.py'},{model.case_path}",
                f"--export-path={store}",
            ]
        )
        log_configuration = place.folder / "log4j2.xml"
        log_configuration.write_text(_LOG_CONFIGURATION)
        configuration = place.folder / "config.properties"
        configuration.write_text(_configuration(tuned, model, place))
        front_end = environment.packages / "ts" / "frontend"
        return Launch(
            [
                "java",
                f"-Dmodel_server_home={environment.packages}",
                f"-Dlog4j.configurationFile=file://{log_configuration}",
                f"-Djava.io.tmpdir={temporary}",
                "-cp",
                f".:{front_end}/*",
                "org.pytorch.serve.ModelServer",
                "--python",
                environment.python,
                "-f",
                str(configuration),
                "-s",
                str(store),
                "-ncs",
                "-m",
                f"{model.name}.mar",
            ],
            # The workers inherit it; the handler reads it.
            {"PEER_THREADS": str(tuned.torch_threads)},
        )

    def request(self, model: ModelCase, form: Form) -> HttpRequest | None:
        """The plain forms, at TorchServe's own path."""
        plain = super().request(model, form)
        if plain is None:
            return None
        return HttpRequest(f"/predictions/{model.name}", plain.headers, plain.body)


def _tuned(model: ModelCase, place: Place) -> _Tuned:
    return _Tuned(
        workers=place.cores,
        torch_threads=1,
        max_batch=32 if model.name in _SMALL_MODELS else 16,
        max_delay_ms=1,
    )


def _configuration(tuned: _Tuned, model: ModelCase, place: Place) -> str:
    """Return `config.properties`."""
    inference, management, metrics, grpc, grpc_management, worker = place.ports
    served = {
        "defaultVersion": True,
        "marName": f"{model.name}.mar",
        "minWorkers": tuned.workers,
        "maxWorkers": tuned.workers,
        "batchSize": tuned.max_batch,
        "maxBatchDelay": tuned.max_delay_ms,
        "responseTimeout": 120,
    }
    return f"""\
inference_address=http://127.0.0.1:{inference}
management_address=http://127.0.0.1:{management}
metrics_address=http://127.0.0.1:{metrics}
grpc_inference_port={grpc}
grpc_management_port={grpc_management}
initial_worker_port={worker}
job_queue_size={_QUEUE_SIZE}
async_logging=true
disable_system_metrics=true
disable_token_authorization=true
models={json.dumps({model.name: {"1.0": served}})}
"""
