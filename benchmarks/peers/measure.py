"""Visits: one server at a time, each with one model, and the floors in between."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.peers import environment
from benchmarks.peers.launchers.own import Pyserve
from benchmarks.peers.peer import Environment, Form, HttpRequest, ModelCase, Peer, Place
from benchmarks.peers.results import Cell, Plan, Visit, cell_of
from benchmarks.peers.running import Server, free_ports
from benchmarks.peers.tree import ProcessTree
from pyserve.bench import load
from pyserve.bench.probes import Worker
from pyserve.bench.processes import start_empty
from pyserve.errors import PyserveError

BARE = "bare"
EMPTY = "empty"
FLOORS = (BARE, EMPTY)

# The open loop's part of what the same server did with all connections busy, and the most that
# the generator, an asyncio process, can send on time beside a server on the same cores.
_OPEN_PART = 0.5
_OPEN_MOST_PER_S = 6000.0

# What the warm-up's last requests may take.
_REST_TIMEOUT_S = 2.0

_One = TypeVar("_One")


def rotated(values: Sequence[_One], turn: int) -> list[_One]:
    """Return the values beginning further back each turn: nobody is always first."""
    shift = turn % len(values) if values else 0
    return [*values[shift:], *values[:shift]]


def visit_peer(
    peer: Peer, environment_: Environment, model: ModelCase, plan: Plan, turn: int
) -> Visit:
    """Start a peer's server, measure it, stop it; what goes wrong is in the visit."""
    folder = Path(tempfile.mkdtemp(prefix=f"{peer.name}-", dir=environment_.folder))
    place = Place(environment=environment_, folder=folder, ports=free_ports(peer.port_count))
    try:
        with Server(peer, model, place) as server:
            cells = _cells(server.url, server.requests, server.tree, plan)
            server.check()
            return Visit(
                turn=turn,
                model=model.name,
                peer=peer.name,
                version=environment.version_of(peer, environment_),
                cold_start_s=server.cold_start_s,
                memory_bytes=server.tree.memory_bytes(),
                cells=tuple(cells),
            )
    except (PyserveError, OSError) as error:
        message = error.message if isinstance(error, PyserveError) else str(error)
        return Visit(turn=turn, model=model.name, peer=peer.name, error=message)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def visit_empty(model: ModelCase, plan: Plan, turn: int) -> Visit:
    """Measure the empty aiohttp handler with the bytes that pyserve gets."""
    request = Pyserve().request(model, "binary")
    assert request is not None
    with start_empty() as child:
        tree = ProcessTree(child.pid)
        cells = _cells(child.url, {"binary": request}, tree, plan)
        memory = tree.memory_bytes()
    return Visit(turn=turn, model=model.name, peer=EMPTY, cells=tuple(cells), memory_bytes=memory)


def visit_bare(model: ModelCase, plan: Plan, turn: int) -> Visit:
    """Measure the module without a server: best samples/s of all batches, and single calls."""
    with Worker(model.path) as worker:
        most = min(max(plan.connections), model.max_batch_size)
        best = worker.order("bare_samples", plan.seconds, cpus=worker.cpus, max_batch=most)
        one = worker.order("bare_call", plan.seconds / 2, threads=1)
        every = worker.order("bare_call", plan.seconds / 2, threads=worker.cpus)
    floor = {
        "samples_per_s": best.rate,
        **{name: best.details[name] for name in ("batch", "instances", "threads", "optimized")},
        "one_thread_p50_us": one.latency_us.p50,
        "one_thread_per_s": one.rate,
        "all_threads_p50_us": every.latency_us.p50,
        "all_threads_per_s": every.rate,
    }
    return Visit(turn=turn, model=model.name, peer=BARE, floor=floor)


def _cells(
    url: str, requests: dict[Form, HttpRequest], tree: ProcessTree, plan: Plan
) -> list[Cell]:
    """Warm up with the most connections, then measure every cell."""
    cells: list[Cell] = []
    most = max(plan.connections)
    tool = load.choose("auto")

    def closed(form: Form, connections: int, seconds: float) -> Cell:
        before = tree.cpu_seconds()
        run = load.closed_loop(
            url, requests[form], connections=connections, seconds=seconds, tool=tool
        )
        return cell_of(run, form, "closed", connections, tree.cpu_seconds() - before)

    first = next(iter(requests))
    closed(first, most, plan.warm_up_s)
    tree.await_rest(_REST_TIMEOUT_S)
    for form in requests:
        wanted = plan.json_connections if form == "json" else plan.connections
        cells += [closed(form, connections, plan.seconds) for connections in wanted]
    fastest = next(one for one in cells if one.key == (first, "closed", most))
    offered = min(fastest.requests_per_s * _OPEN_PART, _OPEN_MOST_PER_S)
    if offered >= 1:
        before = tree.cpu_seconds()
        run = load.open_loop(
            url,
            requests[first],
            rate=offered,
            connections=most,
            seconds=plan.seconds,
            seed=0,
        )
        cells.append(cell_of(run, first, "open", most, tree.cpu_seconds() - before, offered))
    return cells
