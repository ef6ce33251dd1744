"""FastAPI on uvicorn: what most people write first."""

from benchmarks.peers.peer import SERVERS, Launch, ModelCase, Peer, Place, Setting

# One call of these gains from a second thread more than two processes gain from two callers,
# or so little is left of it after FastAPI's own work that one process's warm caches win.
_ONE_PROCESS: frozenset[str] = frozenset()


class Naive(Peer):
    """An async handler around `model(x)`; the model runs on the event loop, without batching."""

    name = "naive"
    title = "FastAPI + uvicorn"
    packages = ("fastapi", "uvicorn", "uvloop", "httptools")

    def settings(self, model: ModelCase, place: Place) -> list[Setting]:
        """Workers and threads share the cores."""
        workers, threads = self._split(model, place)
        return [
            Setting("uvicorn --workers", str(workers), "a process a core serves the most"),
            Setting("torch threads", str(threads), "workers times threads are the cores"),
            Setting("--loop, --http", "uvloop, httptools", "the faster ones, by its page"),
            Setting("access log", "off", "as everywhere here"),
            Setting(
                "handler",
                "async, raw body and response",
                "no validation model between bytes and tensor; no thread pool for each call",
            ),
        ]

    def launch(self, model: ModelCase, place: Place) -> Launch:
        """`serve_fastapi.py`, by the uvicorn command."""
        workers, threads = self._split(model, place)
        command = [place.environment.program("uvicorn"), "serve_fastapi:app"]
        command += ["--app-dir", str(SERVERS), "--host", "127.0.0.1", "--port", str(place.port)]
        command += ["--workers", str(workers), "--loop", "uvloop", "--http", "httptools"]
        command += ["--no-access-log", "--log-level", "warning", "--backlog", "1024"]
        return Launch(command, {"CASE": str(model.case_path), "THREADS": str(threads)})

    def _split(self, model: ModelCase, place: Place) -> tuple[int, int]:
        return (1, place.cores) if model.name in _ONE_PROCESS else (place.cores, 1)
