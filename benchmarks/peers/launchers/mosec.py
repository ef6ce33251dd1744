"""mosec: a Rust front that batches, Python workers over Unix sockets."""

from benchmarks.peers.peer import SERVERS, Launch, ModelCase, Peer, Place, Setting

_BATCH = 16
_WAIT_MS = 1
_CAPACITY = 1024


class Mosec(Peer):
    """One stage of workers with dynamic batches."""

    name = "mosec"
    title = "mosec"
    packages = ("mosec==0.9.*",)
    path = "/inference"

    def settings(self, model: ModelCase, place: Place) -> list[Setting]:
        """As its documentation's guide to batching advises; the values were found by trying."""
        return [
            Setting("num", str(place.cores), "a worker process for each core"),
            Setting("torch threads", "1", "workers times threads are the cores"),
            Setting(
                "max_batch_size", str(_BATCH), "the best found by trying, at 32 and 64 connections"
            ),
            Setting("max_wait_time", f"{_WAIT_MS} ms", "the least that it takes"),
            Setting("--capacity", str(_CAPACITY), "no request of the load is refused"),
            Setting("body", "raw bytes, by `deserialize` and `serialize`", "no JSON in between"),
        ]

    def launch(self, model: ModelCase, place: Place) -> Launch:
        """`serve_mosec.py`, whose own command line mosec reads too."""
        command = [place.environment.python, str(SERVERS / "serve_mosec.py")]
        command += ["--address", "127.0.0.1", "--port", str(place.port)]
        command += ["--capacity", str(_CAPACITY), "--log-level", "warning"]
        return Launch(
            command,
            {
                "CASE": str(model.case_path),
                "WORKERS": str(place.cores),
                "BATCH": str(_BATCH),
                "WAIT_MS": str(_WAIT_MS),
            },
        )
