"""The built-in load generator: a process of its own that keeps connections busy or on schedule.

`python -m pyserve.bench.generator` reads a `Job` as JSON from standard input and prints a `Run`.
The closed loop sends when an answer has come.  The open loop sends when the schedule says so, and
a latency counts from that instant, however late the request left: what a stall holds up is seen.
"""

import asyncio
import contextlib
import gc
import re
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections import deque

import msgspec
import uvloop

from pyserve.bench.alarm import Alarm
from pyserve.bench.client import Client
from pyserve.bench.percentiles import summarise
from pyserve.bench.schedule import poisson_schedule
from pyserve.bench.values import Run

TOOL = "pyserve.bench.generator (asyncio)"

_CONNECTING_AT_ONCE = 64
_SERVER_TIMING = re.compile(rb"\r\nserver-timing: *([^\r]*)", re.IGNORECASE)
_DURATION = re.compile(rb";dur=([0-9.]+)")

# Between connecting and the first request: the server has taken every connection by then.
_SETTLE_S = 0.05


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, where, and for how long.

    rate: arrivals per second of an open loop; 0 is a closed loop.
    max_requests: the run ends with the last of these, if not by time.
    patience_s: how long to wait for answers after the last request was sent.
    deadline_us: an open loop's requests ask for it themselves, and answers are told apart by it.
    """

    host: str
    port: int
    request: bytes
    connections: int
    seconds: float
    max_requests: int = 1_000_000
    rate: float = 0.0
    seed: int = 0
    patience_s: float = 10.0
    deadline_us: int = 0


def server_us(head: bytes) -> float:
    """Return how long the server had a request, by the `Server-Timing` of its answer; 0 without."""
    timing = _SERVER_TIMING.search(head)
    return sum(map(float, _DURATION.findall(timing[1]))) * 1e3 if timing is not None else 0.0


class Tally:
    """Latencies by outcome, and what counts as good."""

    def __init__(self) -> None:
        self.latencies_ns: dict[str, list[int]] = {}
        self._service_ns: dict[str, list[int]] = {}

    def add(self, outcome: str, latency_ns: int, service_ns: int) -> None:
        """Count one answer; `service_ns` counts from when the request really left."""
        self.latencies_ns.setdefault(outcome, []).append(latency_ns)
        self._service_ns.setdefault(outcome, []).append(service_ns)

    def service_p99_us(self) -> dict[str, float]:
        """Return how long answers took from when their requests left, by outcome."""
        return {
            f"service_p99_us {outcome}": summarise(times).p99
            for outcome, times in self._service_ns.items()
        }

    def good(self) -> list[int]:
        """Return the latencies of answers with a status of 2xx."""
        return [
            latency
            for outcome, latencies in self.latencies_ns.items()
            if outcome.startswith("2")
            for latency in latencies
        ]

    def run(self, seconds: float, unanswered: int, details: dict[str, float]) -> Run:
        """Return it all summed up."""
        good = self.good()
        failures = {
            f"status {outcome}" if outcome.isdigit() else outcome: len(latencies)
            for outcome, latencies in self.latencies_ns.items()
            if not outcome.startswith("2")
        }
        if unanswered:
            failures["unanswered"] = unanswered
        return Run(
            tool=TOOL,
            requests=len(good),
            seconds=seconds,
            latency_us=summarise(good),
            failures=failures,
            by_status={
                outcome: summarise(latencies)
                for outcome, latencies in self.latencies_ns.items()
                if outcome.isdigit()
            },
            details=details,
        )


class Loop(ABC):
    """What both loops share: connections, their replacement, the end."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tally = Tally()
        self.outstanding = 0
        self.done = asyncio.Event()
        self.start_ns = self.end_ns = self.last_ns = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[Client] = set()

    async def run(self) -> Run:
        """Connect, send, wait for the last answer."""
        clients: list[Client] = []
        while len(clients) < self.job.connections:
            some = min(_CONNECTING_AT_ONCE, self.job.connections - len(clients))
            clients += await asyncio.gather(*(self._connect() for _ in range(some)))
        await asyncio.sleep(_SETTLE_S)
        gc.freeze()
        cpu_before = time.process_time()
        self.start_ns = self.last_ns = time.monotonic_ns()
        self.end_ns = self.start_ns + int(self.job.seconds * 1e9)
        self.begin(clients)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.job.seconds + self.job.patience_s):
                await self.done.wait()
        details = {"generator_cpu_s": time.process_time() - cpu_before, **self.details()}
        for client in list(self._clients):
            client.close()
        seconds = max(self.last_ns - self.start_ns, 1) / 1e9
        return self.tally.run(seconds, self.outstanding, details)

    @abstractmethod
    def begin(self, clients: list[Client]) -> None:
        """Send the first requests, or see to it that they will be."""

    @abstractmethod
    def free(self, client: Client, now_ns: int) -> None:
        """Go on with a connection whose answer has come."""

    def details(self) -> dict[str, float]:
        """Return the figures that only this loop has."""
        return {}

    def on_answer(self, client: Client, outcome: str) -> None:
        """Count an answer, and go on."""
        now_ns = time.monotonic_ns()
        self.last_ns = now_ns
        self.outstanding -= 1
        self.tally.add(outcome, now_ns - client.sent_ns, now_ns - client.left_ns)
        if client.connected:
            self.free(client, now_ns)
        else:
            self.replace(client)

    def replace(self, client: Client) -> None:
        """Connect anew in the place of a connection that is gone."""
        self._clients.discard(client)
        task = asyncio.get_running_loop().create_task(self._reconnect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> Client:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(
            lambda: Client(self.on_answer), self.job.host, self.job.port
        )
        self._clients.add(client)
        return client

    async def _reconnect(self) -> None:
        try:
            client = await self._connect()
        except OSError:
            self.tally.add("cannot connect", 0, 0)
            self.done.set()  # the server is gone
            return
        self.free(client, time.monotonic_ns())


class ClosedLoop(Loop):
    """Every connection sends its next request when its answer has come."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._sent = 0

    def begin(self, clients: list[Client]) -> None:
        """Send one request on every connection."""
        for client in clients:
            self.free(client, self.start_ns)

    def free(self, client: Client, now_ns: int) -> None:
        """Send the next request, unless the time or the requests are used up."""
        if now_ns < self.end_ns and self._sent < self.job.max_requests:
            self._sent += 1
            self.outstanding += 1
            client.send(self.job.request, now_ns, now_ns)
        elif not self.outstanding:
            self.done.set()


class OpenLoop(Loop):
    """Requests leave by the schedule; with no connection free they wait, and their clocks run."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._schedule = poisson_schedule(
            job.rate, job.seconds, seed=job.seed, limit=job.max_requests
        )
        self._next = 0
        self._idle: list[Client] = []
        self._backlog: deque[int] = deque()
        self._longest_backlog = 0
        self._good_in_time = 0
        self._good_within_deadline = 0
        self._late_by_server = 0
        self._late_ns: list[int] = []
        self._alarm = Alarm(self._send_due)

    def begin(self, clients: list[Client]) -> None:
        """Wait for the first arrival."""
        self._idle = clients
        self._send_due()

    def on_answer(self, client: Client, outcome: str) -> None:
        """Count an answer, also among those that came while the load was on."""
        left_ns = client.left_ns  # the connection may be used again at once
        super().on_answer(client, outcome)
        if not outcome.startswith("2"):
            return
        in_time = self.last_ns <= self.end_ns
        self._good_in_time += in_time
        if deadline_us := self.job.deadline_us:
            took_ns = self.last_ns - left_ns
            self._good_within_deadline += in_time and took_ns <= deadline_us * 1000
            self._late_by_server += server_us(client.head) > deadline_us

    def free(self, client: Client, now_ns: int) -> None:
        """Send what has waited longest for a connection."""
        if self._backlog:
            self._send(client, self._backlog.popleft(), now_ns)
            return
        self._idle.append(client)
        if not self.outstanding and self._next == len(self._schedule):
            self.done.set()

    def details(self) -> dict[str, float]:
        """Return how well the sender kept to its schedule, and the goodput under load."""
        self._alarm.close()
        self.outstanding += len(self._backlog) + len(self._schedule) - self._next
        late = summarise(self._late_ns)
        within = {
            "goodput_within_deadline_per_s": self._good_within_deadline / self.job.seconds,
            "late_by_server": self._late_by_server,
        }
        return {
            "offered_per_s": len(self._schedule) / self.job.seconds,
            "goodput_per_s": self._good_in_time / self.job.seconds,
            "sent_late_p50_us": late.p50,
            "sent_late_p99_us": late.p99,
            "longest_backlog": self._longest_backlog,
            **(within if self.job.deadline_us else {}),
            **self.tally.service_p99_us(),
        }

    def _send_due(self) -> None:
        """Send everything whose instant has come, and set the alarm for what comes next."""
        schedule, start_ns = self._schedule, self.start_ns
        now_ns = time.monotonic_ns()
        while self._next < len(schedule) and start_ns + schedule[self._next] <= now_ns:
            instant_ns = start_ns + schedule[self._next]
            self._next += 1
            client = self._idle_client()
            if client is not None:
                self._send(client, instant_ns, now_ns)
            else:
                self._backlog.append(instant_ns)
                self._longest_backlog = max(self._longest_backlog, len(self._backlog))
            now_ns = time.monotonic_ns()
        if self._next < len(schedule):
            self._alarm.set(start_ns + schedule[self._next])
        elif not self.outstanding and not self._backlog:
            self.done.set()

    def _idle_client(self) -> Client | None:
        while self._idle:
            client = self._idle.pop()
            if client.connected:
                return client
            self.replace(client)  # closed while it was idle
        return None

    def _send(self, client: Client, instant_ns: int, now_ns: int) -> None:
        self._late_ns.append(now_ns - instant_ns)
        self.outstanding += 1
        client.send(self.job.request, instant_ns, now_ns)


async def perform(job: Job) -> Run:
    """Run a job on the running loop."""
    loop = OpenLoop(job) if job.rate else ClosedLoop(job)
    return await loop.run()


def main() -> None:
    """Read a job from standard input, print its run."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(job.connections + 64, hard) if hard != resource.RLIM_INFINITY else 1 << 16
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    run = uvloop.run(perform(job))
    sys.stdout.buffer.write(msgspec.json.encode(run))


if __name__ == "__main__":
    main()
