"""The servers that are compared, in the order of the tables' rows."""

from benchmarks.peers.launchers.bentoml import BentoML
from benchmarks.peers.launchers.litserve import LitServe
from benchmarks.peers.launchers.mosec import Mosec
from benchmarks.peers.launchers.naive import Naive
from benchmarks.peers.launchers.own import Pyserve
from benchmarks.peers.launchers.plain_aiohttp import PlainAiohttp
from benchmarks.peers.launchers.ray_serve import RayServe
from benchmarks.peers.launchers.torchserve import TorchServe
from benchmarks.peers.launchers.triton import Triton
from benchmarks.peers.peer import Peer

PEERS: tuple[Peer, ...] = (
    Pyserve(),
    Mosec(),
    Triton(),
    TorchServe(),
    Naive(),
    PlainAiohttp(),
    LitServe(),
    RayServe(),
    BentoML(),
)


def names() -> list[str]:
    """Every peer's name."""
    return [peer.name for peer in PEERS]
