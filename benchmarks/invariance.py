"""What `batching.invariant` costs: CPU time of a row in this process with and without it.

    python -m benchmarks.invariance [MODEL ...]

Both are loaded at once and measured in turns, with as many callers as `CALLERS` says, each of whom
has one request of a row in flight.  CPU time rather than rows/s, and the ratio of two turns that
follow each other, because others use the machine too; the medians are told.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

import models
import pyserve

CALLERS = (1, 32)
MAX_ROWS = 32
SECONDS = 1.0
TURNS = 7


def inputs_of(model: pyserve.Model) -> list[torch.Tensor]:
    """One row for each input: ones where they are whole numbers, token ids and a mask."""
    made = []
    for spec in model.inputs:
        shape = [1, *(32 if size < 0 else size for size in spec.shape)]
        whole = spec.dtype.startswith("INT")
        made.append(torch.ones(shape, dtype=torch.int64) if whole else torch.randn(shape))
    return made


async def cpu_us_per_row(model: pyserve.Model, row: list[torch.Tensor], callers: int) -> float:
    """What this process spent meanwhile, for each row that was answered."""
    rows = 0
    start = time.perf_counter()
    used = time.process_time()

    async def caller() -> None:
        nonlocal rows
        while time.perf_counter() - start < SECONDS:
            await model.infer(*row)
            rows += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    return (time.process_time() - used) / rows * 1e6


def compare(name: str, folder: Path) -> Iterator[str]:
    """A line of the table for each number of callers."""
    path = models.build(name, folder)
    options: dict[str, object] = {"max_batch_size": MAX_ROWS}
    # Sizes that vary cannot all be tried: they are declared, or have buckets.
    if name == "resnet18":
        options["inputs"] = [{"name": "image", "dtype": "FP32", "shape": [3, 64, 64]}]
    if name == "encoder":
        options["lengths"] = {
            "buckets": [32],
            "inputs": {"token_ids": {"dim": 0}},
            "mask": "mask",
        }
    with (
        pyserve.load(path, **options) as plain,  # type: ignore[arg-type]
        pyserve.load(path, batch_invariant=True, **options) as invariant,  # type: ignore[arg-type]
    ):
        row = inputs_of(plain)
        sizes = ", ".join(map(str, invariant.allowed_batch_sizes))
        for callers in CALLERS:
            pairs = [
                [asyncio.run(cpu_us_per_row(model, row, callers)) for model in (plain, invariant)]
                for _ in range(TURNS)
            ]
            ratio = statistics.median(after / before for before, after in pairs)
            before, after = (statistics.median(column) for column in zip(*pairs, strict=True))
            yield f"| {name} | {sizes} | {callers} | {before:,.1f} | {after:,.1f} | {ratio:.2f} |"


def main() -> None:
    """Prints the table."""
    print("| model | sizes | callers | CPU µs a row | invariant | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or ("tiny", "mlp", "resnet18", "encoder"):
            for line in compare(name, Path(folder)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
