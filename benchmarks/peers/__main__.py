"""`python -m benchmarks.peers`: pyserve beside its peers, on this machine (`make bench-peers`).

Installs what is lacking under build/peers, measures, prints the tables and writes
benchmarks/results/peers.json.  Every visit is kept in peers.jsonl at once: `--resume` goes on.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.peers import chart, environment, page
from benchmarks.peers.case import CASE, ModelCase, read_case
from benchmarks.peers.catalogue import PEERS, names
from benchmarks.peers.measure import BARE, EMPTY, FLOORS, rotated, visit_bare, visit_empty
from benchmarks.peers.measure import visit_peer as visit_server
from benchmarks.peers.peer import Environment, Peer
from benchmarks.peers.results import Log, Plan, Visit
from pyserve.bench import machine
from pyserve.bench.percentiles import require_hdrhistogram
from pyserve.bench.processes import ChildFailed
from pyserve.errors import PyserveError

MODELS = ("tiny", "mlp", "resnet18", "encoder")
CONNECTIONS = (1, 8, 32, 64)
RESULTS = Path(__file__).resolve().parents[1] / "results"
LATEST = RESULTS / "peers.json"

Installed = Mapping[str, tuple[Peer, Environment]]


def main(arguments: Sequence[str]) -> int:
    """Install, measure, report; exit code 1 if a server could not be measured."""
    given = _parser().parse_args(arguments)
    # An exception, so that a server that runs is ended on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if given.page_only:
            _update_docs(json.loads(LATEST.read_text()))
            return 0
        require_hdrhistogram()
        return _compare(given, shlex.join(["python", "-m", "benchmarks.peers", *arguments]))
    except PyserveError as error:
        print(error.message, file=sys.stderr)
        return 2


def _compare(given: argparse.Namespace, command: str) -> int:
    wanted = [one for one in PEERS if not given.only or one.name in given.only]
    installed, missing = _install(wanted)
    if given.install_only:
        return 1 if missing else 0
    plan = _plan(given, list(installed), command)
    cases = {name: _case(name) for name in plan.models}
    # What goes into the page is one whole run, never pieces of several.
    whole = not (given.only or given.models or given.quick)
    output: Path = given.output or (LATEST if whole else RESULTS / "peers-part.json")
    log = Log(output.with_suffix(".jsonl"), plan, resume=given.resume)
    _measure(log, installed, cases)
    results = page.document(log, installed, cases, missing)
    output.write_text(json.dumps(results, indent=1) + "\n")
    print(page.markdown(results))
    if given.update_docs:
        _update_docs(results)
    return 1 if missing or any(one.error for one in log.visits) else 0


def _plan(given: argparse.Namespace, peers: Sequence[str], command: str) -> Plan:
    quick = given.quick
    return Plan(
        models=tuple(given.models or MODELS),
        peers=(*FLOORS, *peers),
        passes=given.passes or (1 if quick else 3),
        seconds=given.seconds or (1.0 if quick else 2.0),
        warm_up_s=1.0,
        connections=(1, 64) if quick else CONNECTIONS,
        json_connections=(64,),
        command=command,
        machine=machine.describe(),
    )


def _measure(log: Log, installed: Installed, cases: Mapping[str, ModelCase]) -> None:
    """Make every visit that the log lacks; the order turns with each pass."""
    plan = log.plan
    steps = [
        (turn, model, name)
        for turn in range(plan.passes)
        for model in rotated(plan.models, turn)
        for name in rotated(plan.peers, turn * len(plan.peers) // plan.passes)
    ]
    for number, step in enumerate(steps):
        if log.has(step):
            continue
        turn, model, name = step
        visit = _visit(plan, installed, cases[model], turn, name)
        log.add(visit)
        outcome = " ".join(visit.error.split()) or page.in_short(visit)
        print(f"{number + 1}/{len(steps)} {model} {name}: {outcome}", file=sys.stderr, flush=True)


def _visit(plan: Plan, installed: Installed, case: ModelCase, turn: int, name: str) -> Visit:
    if name == BARE:
        return visit_bare(case, plan, turn)
    if name == EMPTY:
        return visit_empty(case, plan, turn)
    return visit_server(*installed[name], case, plan, turn)


def _install(wanted: Sequence[Peer]) -> tuple[Installed, dict[str, str]]:
    """Return the peers that are there, and by name why the others are not."""
    installed: dict[str, tuple[Peer, Environment]] = {}
    missing: dict[str, str] = {}
    for peer in wanted:
        programs = environment.missing_programs(peer)
        if programs:
            missing[peer.name] = f"not on PATH: {', '.join(programs)}"
            continue
        try:
            installed[peer.name] = peer, environment.ensure(peer)
        except PyserveError as error:
            missing[peer.name] = error.message
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    return installed, missing


def _case(name: str) -> ModelCase:
    """Return a model, built on first use."""
    folder = environment.BUILD / "cases" / name
    if not (folder / CASE).is_file():
        command = [sys.executable, "-m", "benchmarks.peers.prepare", name, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ChildFailed(f"building {name} failed: {done.stderr.strip()[-400:]}")
    return read_case(folder)


def _update_docs(results: Mapping[str, object]) -> None:
    page.update(results)
    chart.draw(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=names(), metavar="PEER", help=", ".join(names())
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, help="some of the models")
    parser.add_argument("--passes", type=int, help="passes over everything (3)")
    parser.add_argument("--seconds", type=float, help="seconds of each cell (2)")
    parser.add_argument("--quick", action="store_true", help="one short pass: a try, no figures")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut off")
    parser.add_argument("--output", type=Path, help="where the JSON goes")
    parser.add_argument("--install-only", action="store_true", help="make the environments")
    parser.add_argument(
        "--update-docs", action="store_true", help="put tables and chart into docs/performance.md"
    )
    parser.add_argument(
        "--page-only",
        action="store_true",
        help="measure nothing: put results/peers.json into docs/performance.md",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
