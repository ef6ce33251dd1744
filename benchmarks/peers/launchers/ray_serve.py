"""Ray Serve, set up by its documentation's page on high throughput; `servers/serve_ray_serve.py`.

A request's way is the shorter one of two: to the replica itself where one replica serves the most
(direct ingress), through the HAProxy that Ray brings where there are several.
"""

from typing import NamedTuple

from benchmarks.peers.peer import SERVERS, Launch, ModelCase, Peer, Place, Setting

_SMALL_MODELS = ("tiny", "mlp")


class _Tuned(NamedTuple):
    replicas: int
    torch_threads: int
    max_batch: int

    @property
    def direct(self) -> bool:
        return self.replicas == 1


class RayServe(Peer):
    """A dozen processes: the cluster of one node, Serve's controller, its proxy, the replicas."""

    name = "ray_serve"
    title = "Ray Serve"
    packages = ("ray[serve]==2.60.0",)
    # For whom the requests are, for Ray's proxy where the replica has the first one, and the
    # HAProxy's metrics and statistics.
    port_count = 4

    def settings(self, model: ModelCase, place: Place) -> list[Setting]:
        """By the model: who listens, and how many replicas."""
        tuned = _tuned(model, place)
        if tuned.direct:
            way = Setting(
                "ingress",
                "direct: the replica listens",
                "a hop less; through the proxy in Python the tiny model is several times slower",
            )
        else:
            way = Setting(
                "ingress",
                f"HAProxy, {place.cores} threads",
                "it shares requests out between the replicas; the proxy in Python is slower",
            )
        return [
            way,
            Setting(
                "replicas",
                str(tuned.replicas),
                "one for each core where the model is the work; for small models the processes "
                "around the replica need the other core",
            ),
            Setting("torch threads", str(tuned.torch_threads), "replicas side by side"),
            Setting(
                "serve.batch",
                f"max_batch_size {tuned.max_batch}, batch_wait_timeout_s 0",
                "batches gather while the replica is busy; a lone request would wait for nothing",
            ),
            Setting(
                "RAY_SERVE_THROUGHPUT_OPTIMIZED",
                "1",
                "the page on high throughput: user code on the replica's own loop, buffered logs, "
                "direct ingress",
            ),
            Setting("access log, dashboard, usage statistics", "off", "as everywhere here"),
        ]

    def launch(self, model: ModelCase, place: Place) -> Launch:
        """`serve_ray_serve.py`, and in the environment what Ray reads when it is imported."""
        tuned = _tuned(model, place)
        asked, proxy, *haproxy = place.ports
        env = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            # The replicas import `served_model` too.
            "PYTHONPATH": str(SERVERS),
        }
        if tuned.direct:
            env["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] = str(asked)
            env["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"] = str(asked + 1)
        else:
            proxy = asked
            metrics, statistics = haproxy
            env |= {
                "RAY_SERVE_ENABLE_HA_PROXY": "1",
                "RAY_SERVE_HAPROXY_NBTHREAD": str(place.cores),
                "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
                "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
            }
        words = [proxy, tuned.replicas, tuned.torch_threads, tuned.max_batch]
        script = str(SERVERS / "serve_ray_serve.py")
        command = [place.environment.python, script, str(model.case_path), *map(str, words)]
        return Launch(command, env)


def _tuned(model: ModelCase, place: Place) -> _Tuned:
    if model.name in _SMALL_MODELS:
        return _Tuned(replicas=1, torch_threads=1, max_batch=32)
    return _Tuned(replicas=place.cores, torch_threads=1, max_batch=16)
