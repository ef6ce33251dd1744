"""FastAPI on uvicorn: what most people write first."""

from benchmarks.peers.peer import SERVERS, Launch, ModelCase, Peer, Place, Setting


class Naive(Peer):
    """An async handler around `model(x)`; the model runs on the event loop, without batching."""

    name = "naive"
    title = "FastAPI + uvicorn"
    packages = ("fastapi", "uvicorn", "uvloop", "httptools")

    def settings(self, model: ModelCase, place: Place) -> list[Setting]:
        """Workers and threads share the cores."""
        return [
            Setting(
                "uvicorn --workers",
                str(place.cores),
                "a process a core serves the most; one process with all threads is the aiohttp row",
            ),
            Setting("torch threads", "1", "workers times threads are the cores"),
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
        command = [place.environment.program("uvicorn"), "serve_fastapi:app"]
        command += ["--app-dir", str(SERVERS), "--host", "127.0.0.1", "--port", str(place.port)]
        command += ["--workers", str(place.cores), "--loop", "uvloop", "--http", "httptools"]
        command += ["--no-access-log", "--log-level", "warning", "--backlog", "1024"]
        return Launch(command, {"CASE": str(model.case_path), "THREADS": "1"})
