"""The in-process engine against the bare module, in one process."""

from benchmarks.context import Context, p50s, rates
from benchmarks.finding import Finding, ratios
from pyserve.bench.probes import Worker

CALL = Finding(
    key="in-process-call",
    what="in-process synchronous call, batch of one, p50 ÷ bare `m(x)` p50 (tiny MLP 16→32→4)",
    limit=1.25,
    at_most=True,
)
THREADS = Finding(
    key="in-process-threads",
    what="in-process, 64 threads on `mlp` ÷ best bare samples/s with the same thread count",
    limit=0.90,
    at_most=False,
)
TASKS = Finding(
    key="in-process-tasks",
    what="in-process, 64 tasks on `mlp` ÷ best bare samples/s with the same thread count",
    limit=0.90,
    at_most=False,
)

_CALLERS = 64


def measure_call(context: Context) -> list[Finding]:
    """One thread, one request after the other."""
    with Worker(context.model_file("tiny")) as worker:
        bare, engine = context.measure(
            [
                worker.probe("bare m(x)", "floor", "bare_call", threads=1),
                worker.probe("model(x)", "in-process", "one_by_one"),
            ]
        )
    details = {
        "bare_p50_us": bare.latency_us.p50,
        "engine_p50_us": engine.latency_us.p50,
        "engine_p99_us": engine.latency_us.p99,
    }
    return [CALL.with_values(ratios(p50s(engine), p50s(bare)), tool="python", details=details)]


def measure_throughput(context: Context) -> list[Finding]:
    """Many callers of one row each; the bare module may take as large a batch as they could fill.

    Engine and bare module run on as many threads: instances times threads is the same product.
    What the bare module does on every CPU, with none left for callers, is in the details.
    """
    with Worker(context.model_file("mlp")) as worker:
        bare, everywhere, threads, tasks = context.measure(
            [
                worker.probe("bare", "floor", "bare_samples", cpus=0, max_batch=_CALLERS),
                worker.probe(
                    "bare, all CPUs", "floor", "bare_samples", cpus=worker.cpus, max_batch=_CALLERS
                ),
                worker.probe("threads", "in-process", "threads", count=_CALLERS),
                worker.probe("tasks", "in-process", "tasks", count=_CALLERS),
            ]
        )
    floor = {
        "bare_samples_per_s": bare.rate,
        "bare_batch": bare.detail("batch"),
        "bare_instances": bare.detail("instances"),
        "bare_threads": bare.detail("threads"),
        "bare_samples_per_s_on_all_cpus": everywhere.rate,
        "cpus": worker.cpus,
    }
    return [
        line.with_values(
            ratios(rates(engine), rates(bare)),
            tool="python",
            details={
                "engine_per_s": engine.rate,
                "engine_p50_us": engine.latency_us.p50,
                "engine_p99_us": engine.latency_us.p99,
                **floor,
            },
        )
        for line, engine in ((THREADS, threads), (TASKS, tasks))
    ]
