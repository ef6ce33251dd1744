"""Plans threads: how many instances a version gets, and how many threads each one's operators.

Together they never exceed the CPUs that this process may use, unless the user asks for more.
"""

from typing import NamedTuple


class InstancePlan(NamedTuple):
    """Instances of one version, and threads of each; elastic: a lone run may have all of them."""

    instances: int
    threads: int
    elastic: bool


# One copies to and from the GPU while the other computes; a third would only share the same GPU.
_INSTANCES_ON_GPU = 2


def plan_instances(
    cpus: int, count: int | None, threads: int | None, *, on_gpu: bool = False
) -> InstancePlan:
    """Plan for `cpus`, keeping to what the user fixed (`None`: up to us).

    Left alone, every CPU gets an instance of one thread: many that wait are served fastest so.
    (A model so light that its callers are the bottleneck then gets by with one; the core measures
    that at load.)  On a GPU the CPUs only launch: two instances, each with a stream, of one thread.
    """
    if on_gpu:
        return InstancePlan(count or _INSTANCES_ON_GPU, threads or 1, elastic=False)
    elastic = count is None and threads is None
    if count is None:
        count = max(1, cpus // (threads or 1))
    if threads is None:
        threads = max(1, cpus // count)
    return InstancePlan(count, threads, elastic)
