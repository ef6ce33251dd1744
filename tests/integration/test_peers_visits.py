"""The comparison visits real servers: itself and plain aiohttp, from this environment."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.peers.case import ModelCase, read_case
from benchmarks.peers.launchers.own import Pyserve
from benchmarks.peers.launchers.plain_aiohttp import PlainAiohttp
from benchmarks.peers.measure import visit_peer
from benchmarks.peers.peer import Environment, Peer
from benchmarks.peers.results import Plan

PLAN = Plan(
    models=("tiny",),
    peers=("pyserve", "aiohttp"),
    passes=1,
    seconds=0.2,
    warm_up_s=0.1,
    connections=(1, 2),
    json_connections=(2,),
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelCase:
    folder = tmp_path_factory.mktemp("cases") / "tiny"
    command = [sys.executable, "-m", "benchmarks.peers.prepare", "tiny", str(folder)]
    subprocess.run(command, check=True)
    return read_case(folder)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """What the project's own environment has: torch, numpy, aiohttp and uvloop."""
    (tmp_path / "env").symlink_to(sys.prefix)
    return Environment(folder=tmp_path, torch_packages=Path())


@pytest.mark.parametrize("peer", [Pyserve(), PlainAiohttp()], ids=lambda peer: peer.name)
def test_server_is_started_checked_measured_and_ended(
    peer: Peer, environment: Environment, tiny: ModelCase
) -> None:
    visit = visit_peer(peer, environment, tiny, PLAN, turn=0)
    assert visit.error == ""
    keys = [one.key for one in visit.cells]
    assert keys[:2] == [("binary", "closed", 1), ("binary", "closed", 2)]
    assert keys[-2:] == [("json", "closed", 2), ("binary", "open", 2)]
    assert (("raw", "closed", 1) in keys) == (peer.name == "pyserve")
    for one in visit.cells:
        assert one.requests_per_s > 0
        assert one.failures == {}
        assert 0 < one.p50_us <= one.p99_us
    assert visit.cold_start_s > 0
    assert visit.memory_bytes > 50 << 20
    # The folder of the visit is gone, and with it nobody who could still write there.
    assert [path.name for path in environment.folder.iterdir()] == ["env"]


def test_server_with_wrong_answers_is_not_measured(
    environment: Environment, tiny: ModelCase
) -> None:
    other = msgspec.structs.replace(tiny, expected=tuple(one + 1 for one in tiny.expected))
    visit = visit_peer(PlainAiohttp(), environment, other, PLAN, turn=0)
    assert visit.error.startswith("binary: wrong answer")
    assert visit.cells == ()


def test_server_that_ends_says_what_it_said(environment: Environment, tiny: ModelCase) -> None:
    broken = msgspec.structs.replace(tiny, folder=tiny.folder / "nowhere")
    visit = visit_peer(PlainAiohttp(), environment, broken, PLAN, turn=0)
    assert "it ended by itself" in visit.error
    assert "FileNotFoundError" in visit.error
