"""What a model's `build` hands to the zoo: a module ready to run, and how to export it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltModel:
    """A module in eval mode with the arguments of `pyserve.export` that belong to it.

    inputs: an example request, by forward's argument names, batch dimension first.
    dynamic: dimensions of any size, by input name, counted with the batch as 0.
    """

    module: torch.nn.Module
    inputs: Mapping[str, torch.Tensor]
    output_names: Sequence[str]
    max_batch_size: int
    dynamic: Mapping[str, Collection[int]] = field(default_factory=dict)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers that depend on `seed` alone, and sums that do not depend on the cores.

    Puts the caller's random state and number of threads back afterwards.  One thread is also what
    trains `digits` fastest where other programs want the cores too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
