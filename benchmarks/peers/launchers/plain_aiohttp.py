"""aiohttp around `model(x)`: what the least code does."""

from benchmarks.peers.peer import SERVERS, Launch, ModelCase, Peer, Place, Setting


class PlainAiohttp(Peer):
    """One process on uvloop; no batching, no queue."""

    name = "aiohttp"
    title = "aiohttp, `model(x)`"
    packages = ("aiohttp", "uvloop")

    def settings(self, model: ModelCase, place: Place) -> list[Setting]:
        """One process, so that all cores go into the one call that runs."""
        return [
            Setting("processes", "1", "the plain thing; more of them is the FastAPI row"),
            Setting("torch threads", str(place.cores), "one call runs at a time: it may use all"),
            Setting("event loop", "uvloop", "the faster one"),
            Setting("access log", "off", "as everywhere here"),
        ]

    def launch(self, model: ModelCase, place: Place) -> Launch:
        """`serve_aiohttp.py`."""
        script = str(SERVERS / "serve_aiohttp.py")
        words = [str(model.case_path), str(place.port), str(place.cores)]
        return Launch([place.environment.python, script, *words])
