"""The first request after the server said that it is ready, against those that follow."""

import socket
import statistics
import time

from benchmarks.context import Context
from benchmarks.finding import Finding
from pyserve.bench.bodies import HttpRequest
from pyserve.bench.processes import ChildFailed, HttpChild, start_empty

TINY = Finding(
    key="first-request-tiny",
    what="request 1 after ready ÷ steady p50, tiny",
    limit=2,
    at_most=True,
)
RESNET = Finding(
    key="first-request-resnet18",
    what="request 1 after ready ÷ steady p50, `resnet18`",
    limit=2,
    at_most=True,
)

_STEADY_S = 2.0
_FEWEST = 20
_RECEIVE_BYTES = 1 << 16


def measure_first(context: Context) -> list[Finding]:
    """A fresh server for every repeat, over HTTP, with one connection that stands already."""
    return [_measure(context, "tiny", TINY), _measure(context, "resnet18", RESNET)]


def _measure(context: Context, model: str, line: Finding) -> Finding:
    request = context.request(model)
    firsts, steadies, values, later, nothing = [], [], [], [], []
    with start_empty() as empty:
        for repeat in range(max(context.options.repeats, 3)):
            context.progress(f"first request, {model}, server {repeat + 1}", 0.0)
            _sequence(empty, request, _FEWEST, 0.0)  # so that the client itself is warm
            nothing.append(_sequence(empty, request, 1, 0.0)[0])
            with context.serve(model) as server:
                first, *others = _sequence(server, request, _FEWEST, _STEADY_S)
                later.append(_sequence(server, request, 1, 0.0)[0])
            steady = statistics.median(others[len(others) // 2 :])
            firsts.append(first)
            steadies.append(steady)
            values.append(first / steady)
    details = {
        "first_us": statistics.median(firsts) * 1e6,
        "steady_p50_us": statistics.median(steadies) * 1e6,
        # The first on another connection, after the same pause: what waking up costs a warm server.
        "first_after_a_pause_us": statistics.median(later) * 1e6,
        "empty_handler_first_after_a_pause_us": statistics.median(nothing) * 1e6,
        "servers_started": len(values),
    }
    return line.with_values(values, tool="blocking socket", details=details)


def _sequence(server: HttpChild, request: HttpRequest, fewest: int, seconds: float) -> list[float]:
    """Return how long requests took, one after the other on one connection, in seconds."""
    data = request.to_bytes(f"127.0.0.1:{server.port}")
    taken: list[float] = []
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        time.sleep(0.05)  # until the server has taken the connection
        until = time.perf_counter() + seconds
        while len(taken) < fewest or time.perf_counter() < until:
            before = time.perf_counter()
            connection.sendall(data)
            _read_answer(connection)
            taken.append(time.perf_counter() - before)
    return taken


def _read_answer(connection: socket.socket) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    if b" 200 " not in head[:16]:
        raise ChildFailed(f"a request failed: {head[:80]!r}")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    missing = int(fields[b"content-length"]) - len(body)
    while missing > 0:
        missing -= len(_receive(connection))


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(_RECEIVE_BYTES)
    if not data:
        raise ChildFailed("the server hung up")
    return data
