"""The servers that are compared, in the order of the table's columns."""

from benchmarks.peers.launchers.plain_aiohttp import PlainAiohttp
from benchmarks.peers.peer import Peer

PEERS: tuple[Peer, ...] = (PlainAiohttp(),)


def names() -> list[str]:
    """Every peer's name."""
    return [peer.name for peer in PEERS]
