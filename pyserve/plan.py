"""Plans threads: how many instances a version gets, and how many threads each one's operators.

Together they never exceed the CPUs that this process may use, unless the user asks for more.
"""

from typing import NamedTuple


class InstancePlan(NamedTuple):
    """Instances of one version, and threads of each; elastic: a lone run may have all of them."""

    instances: int
    threads: int
    elastic: bool


def plan_instances(cpus: int, count: int | None, threads: int | None) -> InstancePlan:
    """Plan for `cpus`, keeping to what the user fixed (`None`: up to us).

    Left alone, every CPU gets an instance of one thread: many that wait are served fastest so.
    (A model so light that its callers are the bottleneck then gets by with one; the core measures
    that at load.)
    """
    elastic = count is None and threads is None
    if count is None:
        count = max(1, cpus // (threads or 1))
    if threads is None:
        threads = max(1, cpus // count)
    return InstancePlan(count, threads, elastic)
