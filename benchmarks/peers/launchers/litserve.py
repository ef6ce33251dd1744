"""LitServe: FastAPI in front, worker processes behind multiprocessing queues."""

from benchmarks.peers.peer import SERVERS, Launch, ModelCase, Peer, Place, Setting

_BATCH = 16


class LitServe(Peer):
    """A `LitAPI` with dynamic batches."""

    name = "litserve"
    title = "LitServe"
    packages = ("litserve==0.2.*", "uvloop", "httptools")

    def settings(self, model: ModelCase, place: Place) -> list[Setting]:
        """As its documentation on batching and workers advises."""
        return [
            Setting("workers_per_device", str(place.cores), "a worker process for each core"),
            Setting("torch threads", "1", "workers times threads are the cores"),
            Setting("max_batch_size", str(_BATCH), "the best found by trying"),
            Setting("batch_timeout", "0", "what waits is taken at once; waiting gained nothing"),
            Setting("fast_queue", "True", "as its page advises for high rates; 0.2.19 ignores it"),
            Setting("num_api_servers", str(place.cores), "its default: one for each worker"),
            Setting("access log", "off", "as everywhere here"),
        ]

    def launch(self, model: ModelCase, place: Place) -> Launch:
        """`serve_litserve.py`."""
        command = [place.environment.python, str(SERVERS / "serve_litserve.py")]
        words = [str(model.case_path), str(place.port), str(place.cores), str(_BATCH)]
        return Launch([*command, *words])
