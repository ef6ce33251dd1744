"""A peer's server while it runs: started, found right, measured by nobody here, and ended."""

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.peers.peer import Answer, Form, HttpRequest, ModelCase, Peer, Place
from benchmarks.peers.tree import ProcessTree
from pyserve.bench.processes import ChildFailed

_START_TIMEOUT_S = 180.0
_ANSWER_TIMEOUT_S = 30.0
_ASK_AGAIN_S = 0.005
# How often a starting server's tree is looked at, so that daemons are known before they leave it.
_LOOK_EVERY_S = 0.25
# Other workers may still load when one answers.
_REST_TIMEOUT_S = 15.0
# On so many connections each form is asked for before the load comes, and after it.
_CHECKS = 16
_LOG_TAIL_CHARS = 800
_OWN_VARIABLES = ("PYTHONPATH", "VIRTUAL_ENV", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

FORMS: tuple[Form, ...] = ("binary", "raw", "json")


class Server:
    """A context manager; `requests` holds a request for each form that the peer can be asked in."""

    def __init__(self, peer: Peer, model: ModelCase, place: Place) -> None:
        self._peer = peer
        self._model = model
        self._place = place
        asked = ((form, peer.request(model, form)) for form in FORMS)
        self.requests = {form: request for form, request in asked if request is not None}
        self.cold_start_s = 0.0
        self._log_path = place.folder / "log"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._place.port}"

    def __enter__(self) -> Self:
        launch = self._peer.launch(self._model, self._place)
        env = {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
        if self._peer.packages:
            programs = Path(self._place.environment.python).parent
            env["PATH"] = f"{programs}{os.pathsep}{env['PATH']}"
        with self._log_path.open("wb") as log:
            started = time.perf_counter()
            self._process = subprocess.Popen(
                launch.command,
                env={**env, **launch.env},
                cwd=self._place.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.tree = ProcessTree(self._process.pid)
        try:
            self._await_right_answer(started)
            self.tree.await_rest(_REST_TIMEOUT_S)
            self.check()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Ask in every form, on many connections, for some reach one worker and some the others."""
        for form, request in self.requests.items():
            for _ in range(_CHECKS):
                answer = ask(self._place.port, request)
                if answer.status != 200:
                    raise ChildFailed(f"{form}: status {answer.status}, {answer.body[:200]!r}")
                self._require_right(form, answer)

    def _await_right_answer(self, started: float) -> None:
        form, request = next(iter(self.requests.items()))
        looked, last = started, "it did not listen"
        while time.perf_counter() - started < _START_TIMEOUT_S:
            if self._process.poll() is not None:
                raise ChildFailed(f"it ended by itself: {self._log_tail()}")
            try:
                answer = ask(self._place.port, request)
            except (OSError, http.client.HTTPException) as error:
                last = f"{type(error).__name__}: {error}"
            else:
                if answer.status == 200:
                    self.cold_start_s = time.perf_counter() - started
                    self._require_right(form, answer)
                    return
                last = f"status {answer.status}, {answer.body[:200]!r}"
            time.sleep(_ASK_AGAIN_S)
            if time.perf_counter() - looked > _LOOK_EVERY_S:
                self.tree.look()
                looked = time.perf_counter()
        raise ChildFailed(f"no answer in {_START_TIMEOUT_S:g} s: {last}; {self._log_tail()}")

    def _require_right(self, form: Form, answer: Answer) -> None:
        try:
            numbers = self._peer.numbers(self._model, form, answer)
        except (ValueError, KeyError, TypeError) as error:
            raise ChildFailed(f"{form}: unreadable answer {answer.body[:200]!r}: {error}") from None
        if not self._model.is_right(numbers):
            raise ChildFailed(f"{form}: wrong answer {numbers[:8]}")

    def _stop(self) -> None:
        self.tree.end()
        self._process.wait()

    def _log_tail(self) -> str:
        text = self._log_path.read_text(errors="replace").strip()
        return text[-_LOG_TAIL_CHARS:] or "it said nothing"


def ask(port: int, request: HttpRequest) -> Answer:
    """Send one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_TIMEOUT_S)
    try:
        connection.request("POST", request.path, request.body, request.headers)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())
    finally:
        connection.close()


def free_ports(count: int) -> tuple[int, ...]:
    """Return loopback ports that nobody listens on."""
    with ExitStack() as stack:
        sockets: Sequence[socket.socket] = [
            stack.enter_context(socket.socket()) for _ in range(count)
        ]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)
