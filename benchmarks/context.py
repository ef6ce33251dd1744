"""What every measurement needs: how long and how often, and the models, built once per run."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pyserve.bench import bodies, load
from pyserve.bench.bodies import BodyKind, HttpRequest
from pyserve.bench.probes import Probe, Progress, interleave
from pyserve.bench.processes import ChildFailed, HttpChild, start_server
from pyserve.bench.values import Measurement, Run
from pyserve.signature import read_signature


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """seconds: of each measurement and repeat; idle_seconds: of each look at an idle server."""

    repeats: int = 5
    seconds: float = 3.0
    warm_up_s: float = 1.5
    idle_seconds: float = 10.0
    generator: load.Generator = "auto"


QUICK = Options(repeats=1, seconds=1.0, warm_up_s=0.5, idle_seconds=2.0)


class Context:
    """One run of the benchmark; `folder` is a temporary one.

    This process imports no torch, so that it shares no memory with what is measured.
    """

    def __init__(self, options: Options, folder: Path, progress: Progress) -> None:
        self.options = options
        self.folder = folder
        self.progress = progress
        self.tool = load.choose(options.generator)

    def model_file(self, name: str) -> Path:
        """Return a model's file, built on first use: of the zoo, or of `benchmarks.models`."""
        path = self.folder / name / name / "1" / "model.pt"
        if not path.is_file():
            self.progress(f"building {name}", 0.0)
            module = "benchmarks.models" if name.startswith("json_") else "pyserve"
            words = [] if name.startswith("json_") else ["zoo", "build"]
            command = [sys.executable, "-m", module, *words, name, "-o", str(self.folder / name)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ChildFailed(f"building {name} failed: {done.stderr.strip()[-400:]}")
        return path

    def serve(self, name: str, *options: str) -> HttpChild:
        """Start a server with one model, with the defaults that a user gets."""
        repository = self.model_file(name).parents[2]
        return start_server("--model-repository", str(repository), *options)

    def request(self, name: str, body: BodyKind = "binary") -> HttpRequest:
        """Return a request of one row to a model."""
        signature = read_signature(self.model_file(name))
        assert signature is not None
        return bodies.encode(bodies.infer_path(name), bodies.inputs_for(signature), body)

    def closed_loop(self, name: str, url: str, request: HttpRequest, *, connections: int) -> Probe:
        """Return a probe that keeps connections busy."""

        def run(seconds: float) -> Run:
            return load.closed_loop(
                url, request, connections=connections, seconds=seconds, tool=self.tool
            )

        return Probe(name, "closed", run)

    def measure(self, probes: Sequence[Probe], *, longer: float = 1) -> list[Measurement]:
        """Measure probes in turn, as often as the options say, and as long (times `longer`).

        wrk leaves out what is unanswered at its end, much of a short run with a slow model.
        """
        options = self.options
        return interleave(
            probes,
            repeats=options.repeats,
            seconds=options.seconds * longer,
            warm_up_s=options.warm_up_s,
            progress=self.progress,
        )


def rates(measurement: Measurement) -> list[float]:
    """Return every repeat's rate; ChildFailed if requests failed, for then it means nothing."""
    if measurement.failures:
        raise ChildFailed(f"{measurement.name}: requests failed: {measurement.failures}")
    return [run.rate for run in measurement.runs]


def p50s(measurement: Measurement) -> list[float]:
    """Return every repeat's median latency in microseconds."""
    rates(measurement)
    return [run.latency_us.p50 for run in measurement.runs]
