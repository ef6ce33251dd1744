"""One table of a GPU: bare module, in-process, HTTP, CUDA graphs or not, 1 and 64 in flight.

`python -m benchmarks.gpu`, or benchmarks/gpu.sh, which builds and tests first.  Every cell is
measured in a process of its own, so that one that fails costs its own figures and no others'.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MODELS = ("mlp", "resnet18", "encoder")
IN_FLIGHT = (1, 64)
# Rows of the table; the bare module at 64 in flight is a batch of 64.
WAYS = ("bare module", "in-process", "in-process, graphs", "HTTP", "HTTP, graphs")

_SECONDS = 1.5
_WARM_UP_RUNS = 20
_FAILED = "failed"

Cell = dict[str, float]  # requests_per_s, p50_us


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget-s", type=float, default=180.0)
    parser.add_argument("--way", choices=WAYS, help="measure this alone, and print it as JSON")
    parser.add_argument("--file", type=Path)
    options = parser.parse_args(arguments)
    if options.way is not None:
        print(json.dumps(_measure(options.way, options.file)))
        return 0
    until = time.monotonic() + options.budget_s
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for name in MODELS:
            file = _built(name, Path(folder))
            for way in WAYS:
                results[name, way] = None if file is None else _cell(way, file, until)
    print(_machine())
    print(table(results))
    return int(any(one is None for one in results.values()))


def table(results: dict[tuple[str, str], dict[str, Cell] | None]) -> str:
    """Return the results as a Markdown table."""
    heads = [f"{n} in flight: requests/s | p50 µs" for n in IN_FLIGHT]
    lines = [f"| model | way | {' | '.join(heads)} |", "|---|---|" + "---:|---:|" * len(IN_FLIGHT)]
    for (model, way), cells in results.items():
        words = []
        for n in IN_FLIGHT:
            cell = None if cells is None else cells.get(str(n))
            if cell is None:
                words += [_FAILED, _FAILED]
            else:
                words += [f"{cell['requests_per_s']:,.0f}", f"{cell['p50_us']:,.0f}"]
        lines.append(f"| {model} | {way} | {' | '.join(words)} |")
    return "\n".join(lines)


def _built(name: str, folder: Path) -> Path | None:
    ended = _run([sys.executable, "-m", "pyserve", "zoo", "build", name, "-o", str(folder)], 60)
    file = folder / name / "1" / "model.pt"
    return file if ended is not None and file.is_file() else None


def _cell(way: str, file: Path, until: float) -> dict[str, Cell] | None:
    left = until - time.monotonic()
    command = [sys.executable, "-m", "benchmarks.gpu", "--way", way, "--file", str(file)]
    text = _run(command, min(60.0, left)) if left > 0 else None
    if text is None:
        return None
    cells: dict[str, Cell] = json.loads(text.strip().splitlines()[-1])
    return cells


def _run(command: Sequence[str], limit_s: float) -> str | None:
    """Return what a command printed; None, and why on standard error, where it failed."""
    what = " ".join(command[2:])
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"{what}: not done in {limit_s:.0f} s", file=sys.stderr)
        return None
    if ended.returncode != 0:
        last = (ended.stderr.strip() or ended.stdout.strip()).splitlines()[-3:]
        print(f"{what}: {' / '.join(last)}", file=sys.stderr)
        return None
    return ended.stdout


def _machine() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__}, no GPU"
    name = torch.cuda.get_device_name(0)
    return f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}"


def _measure(way: str, file: Path) -> dict[str, Cell]:
    settings = {"device": "cuda:0", "cuda_graphs": way.endswith("graphs")}
    if way == WAYS[0]:
        return _bare(file)
    if way.startswith("in-process"):
        return _in_process(file, settings)
    return _http(file, settings)


def _bare(file: Path) -> dict[str, Cell]:
    """The module called from Python: copy in, run, copy out, one stream."""
    import torch

    from pyserve.bench.bare import to_torch
    from pyserve.bench.bodies import inputs_for

    module = torch.jit.load(str(file), map_location="cuda")  # type: ignore[no-untyped-call]
    module = torch.jit.freeze(module.eval())
    cells = {}
    with torch.inference_mode():
        for rows in IN_FLIGHT:
            inputs = [to_torch(one).pin_memory() for one in inputs_for(_signature(file), rows=rows)]

            def run(inputs: Sequence[Any] = inputs) -> None:
                outputs = module(*(one.to("cuda", non_blocking=True) for one in inputs))
                for one in _tensors(outputs):
                    one.cpu()

            cells[str(rows)] = _timed(run, rows)
    return cells


def _in_process(file: Path, settings: dict[str, Any]) -> dict[str, Cell]:
    import pyserve
    from pyserve.bench.bare import to_torch
    from pyserve.bench.bodies import inputs_for

    inputs = [to_torch(one) for one in inputs_for(_signature(file), rows=1)]
    most = max(IN_FLIGHT)
    with pyserve.load(file, max_batch_size=most, **settings) as model:
        cells = {"1": _timed(lambda: model(*inputs), 1)}
        cells[str(most)] = asyncio.run(_tasks(model, inputs, most))
    return cells


async def _tasks(model: Any, inputs: Sequence[Any], count: int) -> Cell:
    latencies: list[float] = []
    end = time.perf_counter() + _SECONDS

    async def caller() -> None:
        while (start := time.perf_counter()) < end:
            await model.infer(*inputs)
            latencies.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(count)))
    return _figures(latencies, len(latencies), time.perf_counter() - start)


def _http(file: Path, settings: dict[str, Any]) -> dict[str, Cell]:
    from pyserve.bench.suite import Options, measure_file

    most = max(IN_FLIGHT)
    given = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    options = Options(
        modes=("http",),
        connections=IN_FLIGHT,
        seconds=_SECONDS,
        warm_up_s=0.5,
        repeats=1,
        settings=(*given, f"batching.max_batch_size={most}"),
    )
    target = measure_file(file, options, lambda *_: None)
    served = [one for one in target.measurements if one.mode == "http"]
    return {
        str(n): {"requests_per_s": one.rate, "p50_us": one.latency_us.p50}
        for n, one in zip(IN_FLIGHT, served, strict=True)
    }


def _timed(run: Callable[[], object], requests: int) -> Cell:
    for _ in range(_WARM_UP_RUNS):
        run()
    latencies = []
    start = now = time.perf_counter()
    while now < start + _SECONDS:
        before = now
        run()
        now = time.perf_counter()
        latencies.append(now - before)
    return _figures(latencies, len(latencies) * requests, now - start)


def _figures(latencies: Sequence[float], requests: int, seconds: float) -> Cell:
    return {"requests_per_s": requests / seconds, "p50_us": statistics.median(latencies) * 1e6}


def _signature(file: Path) -> Any:
    from pyserve.signature import read_signature

    return read_signature(file)


def _tensors(outputs: Any) -> list[Any]:
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]


if __name__ == "__main__":
    raise SystemExit(main())
