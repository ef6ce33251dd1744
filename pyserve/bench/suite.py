"""`pyserve bench`: which probes a target gets, and the processes that they need.

A model file is measured in-process and behind a server of the benchmark's own, beside its floors;
of a model at a URL only the answers can be measured.
"""

import ipaddress
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import msgspec

from pyserve.bench import bodies, load
from pyserve.bench.bodies import BodyKind, HttpRequest
from pyserve.bench.probes import Probe, Progress, Worker, interleave
from pyserve.bench.processes import start_empty, start_server
from pyserve.bench.values import Measurement, Run
from pyserve.errors import ConfigError, LoadFailed, Unavailable
from pyserve.signature import Signature, read_signature

Mode: TypeAlias = Literal["in-process", "http"]
MODES: tuple[Mode, ...] = ("in-process", "http")

_DEFAULT_MAX_BATCH = 32
_OPEN_LOOP_CONNECTIONS = 256
_METADATA_TIMEOUT_S = 10.0

BARE_CALL = "bare m(x)"
BARE_SAMPLES = "bare m(x), best batch"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; seconds are per probe and repeat."""

    modes: tuple[Mode, ...] = MODES
    connections: tuple[int, ...] = (1, 8, 32, 64)
    rates: tuple[float, ...] = ()
    concurrency: int = 64
    seconds: float = 3.0
    warm_up_s: float = 1.0
    repeats: int = 3
    body: BodyKind = "binary"
    rows: int = 1
    generator: load.Generator = "auto"
    max_requests: int = 1_000_000
    seed: int = 0
    settings: tuple[str, ...] = ()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one model."""

    target: str
    rows: int
    body: BodyKind
    body_bytes: int
    measurements: tuple[Measurement, ...]


def measure_file(path: Path, options: Options, progress: Progress) -> Target:
    """Measure a model file, alone and served."""
    if not path.is_file():
        raise LoadFailed(f"{path}: there is no such file; a model at a server is NAME@URL")
    signature = read_signature(path)
    if signature is None:
        raise ConfigError(
            f"{path.name} has no signature, so no request can be made up for it: write it with "
            "`pyserve export`, or serve it and name it as NAME@URL"
        )
    request = bodies.encode("/", bodies.inputs_for(signature, rows=options.rows), options.body)
    with ExitStack() as resources:
        probes: list[Probe] = []
        if "in-process" in options.modes:
            worker = resources.enter_context(
                Worker(path, rows=options.rows, settings=options.settings)
            )
            probes += _in_process(worker, signature, options)
        if "http" in options.modes:
            settings = [word for one in options.settings for word in ("--set", one)]
            server = resources.enter_context(start_server(str(path), *settings))
            empty = resources.enter_context(start_empty())
            model = next(iter(server.ready["models"]))
            request = msgspec.structs.replace(request, path=bodies.infer_path(model))
            floors = _http("empty", empty.url, request, options)
            served = _http("http", server.url, request, options)
            for floor, probe in zip(floors, served, strict=True):
                probes += [floor, probe._replace(floor=floor.name)]
        return _measured(str(path), probes, request, options, progress)


def measure_url(name: str, url: str, options: Options, progress: Progress) -> Target:
    """Measure a model at a server that runs already."""
    model, _, version = name.partition("/")
    path = bodies.infer_path(model, version or None)
    url = url.rstrip("/")
    inputs = bodies.inputs_for_metadata(_get(url + path.removesuffix("/infer")), rows=options.rows)
    request = bodies.encode(path, inputs, options.body)
    probes = _http("http", url, request, options)
    return _measured(f"{name}@{url}", probes, request, options, progress)


def is_loopback(url: str) -> bool:
    """Whether a URL can only mean this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _measured(
    target: str,
    probes: Sequence[Probe],
    request: HttpRequest,
    options: Options,
    progress: Progress,
) -> Target:
    measurements = interleave(
        probes,
        repeats=options.repeats,
        seconds=options.seconds,
        warm_up_s=options.warm_up_s,
        progress=progress,
    )
    return Target(
        target=target,
        rows=options.rows,
        body=options.body,
        body_bytes=len(request.body),
        measurements=tuple(measurements),
    )


def _in_process(worker: Worker, signature: Signature, options: Options) -> list[Probe]:
    mode, count = "in-process", options.concurrency
    # No more than that many requests can meet in a batch.
    max_batch = min(signature.max_batch_size or _DEFAULT_MAX_BATCH, count)
    return [
        worker.probe(BARE_CALL, "floor", "bare_call", threads=1),
        worker.probe("model(x), 1 thread", mode, "one_by_one", floor=BARE_CALL),
        worker.probe(BARE_SAMPLES, "floor", "bare_samples", cpus=worker.cpus, max_batch=max_batch),
        worker.probe(
            f"model(x), {count} threads", mode, "threads", floor=BARE_SAMPLES, count=count
        ),
        worker.probe(
            f"model.infer(x), {count} tasks", mode, "tasks", floor=BARE_SAMPLES, count=count
        ),
    ]


def _http(what: str, url: str, request: HttpRequest, options: Options) -> list[Probe]:
    """Return the closed and open loops on one server, `what` first in their names."""
    tool = load.choose(options.generator)

    def closed(connections: int) -> Probe:
        def run(seconds: float) -> Run:
            return load.closed_loop(
                url,
                request,
                connections=connections,
                seconds=seconds,
                tool=tool,
                max_requests=options.max_requests,
            )

        name = f"{what}, {connections} connection{'s' if connections > 1 else ''}"
        return Probe(name, mode or "closed", run, {"connections": connections})

    def opened(rate: float) -> Probe:
        def run(seconds: float) -> Run:
            return load.open_loop(
                url,
                request,
                rate=rate,
                connections=_OPEN_LOOP_CONNECTIONS,
                seconds=seconds,
                seed=options.seed,
                max_requests=options.max_requests,
            )

        return Probe(f"{what}, {rate:g} arrivals/s", mode or "open", run, {"rate": rate})

    mode = "floor" if what == "empty" else ""
    return [*map(closed, options.connections), *map(opened, options.rates)]


def _get(url: str) -> dict[str, Any]:
    try:
        with urlopen(url, timeout=_METADATA_TIMEOUT_S) as answer:
            value: dict[str, Any] = json.load(answer)
    except HTTPError as error:
        with error:
            raise ConfigError(f"{url} answers with status {error.code}: no such model?") from None
    except (URLError, OSError, ValueError) as error:
        raise Unavailable(f"cannot read {url}: {error}; is a server running there?") from None
    return value
