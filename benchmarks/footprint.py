"""What a server takes when it serves, and when nobody asks: memory and idle CPU."""

import shutil
import statistics
import sys
import time
from pathlib import Path

from benchmarks.context import Context
from benchmarks.finding import Finding, ratios
from pyserve.bench import load, proc
from pyserve.bench.processes import Child, start_server

MEMORY = Finding(
    key="memory",
    what="resident memory of the server serving `resnet18` ÷ bare Python process with the module "
    "loaded and run",
    limit=1.25,
    at_most=True,
)
IDLE = Finding(
    key="idle-cpu",
    what="idle CPU with 20 models loaded",
    limit=1,
    at_most=True,
    unit="% of a core",
)

_MODELS = 20
_SETTLE_S = 2.0
_CONNECTIONS = 32


def measure_memory(context: Context) -> list[Finding]:
    """Pss of the process tree, each alone: nothing else that maps torch runs meanwhile.

    The server is looked at after it has served 32 connections, the bare process after 50 calls.
    """
    request = context.request("resnet18")
    served: list[proc.Memory] = []
    bare: list[proc.Memory] = []
    for repeat in range(context.options.repeats):
        context.progress(f"memory, repeat {repeat + 1}", repeat / context.options.repeats)
        with context.serve("resnet18") as server:
            load.closed_loop(
                server.url,
                request,
                connections=_CONNECTIONS,
                seconds=context.options.seconds,
                tool=context.tool,
            )
            served.append(proc.memory(server.pid))
        path = str(context.model_file("resnet18"))
        command = [sys.executable, "-m", "benchmarks.bare_process", path]
        with Child("the bare process", command) as process:
            bare.append(proc.memory(process.pid))
    mib = 1 << 20
    details = {
        "server_pss_mib": statistics.median(one.pss for one in served) / mib,
        "bare_pss_mib": statistics.median(one.pss for one in bare) / mib,
        "server_rss_mib": statistics.median(one.rss for one in served) / mib,
        "bare_rss_mib": statistics.median(one.rss for one in bare) / mib,
        "rss_ratio": statistics.median(
            ratios([one.rss for one in served], [one.rss for one in bare])
        ),
    }
    values = ratios([one.pss for one in served], [one.pss for one in bare])
    return [MEMORY.with_values(values, tool="/proc/PID/smaps_rollup", details=details)]


def measure_idle(context: Context) -> list[Finding]:
    """CPU time of every thread of a server that nobody talks to, from the scheduler's clocks."""
    repository = context.folder / "twenty"
    for number in range(_MODELS):
        path = repository / f"model{number:02}" / "1" / "model.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(context.model_file("tiny"), path)
    seconds = context.options.idle_seconds
    values = []
    with start_server("--model-repository", str(repository)) as server:
        time.sleep(_SETTLE_S)
        for repeat in range(max(context.options.repeats, 3)):
            context.progress(f"idle server, look {repeat + 1}", 0.0)
            before = sum(proc.thread_cpu_seconds(server.pid).values())
            started = time.monotonic()
            time.sleep(seconds)
            spent = sum(proc.thread_cpu_seconds(server.pid).values()) - before
            values.append(spent / (time.monotonic() - started) * 100)
        threads = len(list(Path(f"/proc/{server.pid}/task").iterdir()))
    details = {"models": len(server.ready["models"]), "threads": threads, "seconds_each": seconds}
    return [IDLE.with_values(values, tool="/proc/PID/task/*/schedstat", details=details)]
