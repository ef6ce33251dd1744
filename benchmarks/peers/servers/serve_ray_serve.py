"""Ray Serve: a deployment that batches, raw bytes in and out, or JSON.

`serve_ray_serve.py CASE PORT REPLICAS THREADS MAX_BATCH`; which process listens on the port is
decided by environment variables that Ray reads (`launchers/ray_serve.py`).
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

# Ray asks for 75 MiB at least; requests don't go through the object store.
_OBJECT_STORE_BYTES = 80 << 20
# More than there are connections here.
_MAX_ONGOING_REQUESTS = 1000


class Model:
    """A replica."""

    def __init__(self, case_path: str, threads: int, max_batch: int) -> None:
        # Only replicas have torch in memory.
        from served_model import ServedModel

        self._model = ServedModel(case_path, threads=threads)
        self.run.set_max_batch_size(max_batch)
        self.run.set_batch_wait_timeout_s(0.0)

    @serve.batch
    async def run(self, rows: list[Any]) -> list[Any]:
        """Run what has gathered while the replica was busy."""
        return self._model.run(rows)

    async def __call__(self, request: Request) -> Response:
        """Answer one request in its own form."""
        body = await request.body()
        if request.headers["content-type"] == "application/json":
            outputs = await self.run(self._model.from_lists(json.loads(body)))
            return JSONResponse(self._model.to_lists(outputs))
        outputs = await self.run(self._model.from_bytes(body))
        return Response(self._model.to_bytes(outputs), media_type="application/octet-stream")


def main() -> None:
    """Serve until SIGTERM, then end every process that Ray has started."""
    case_path = sys.argv[1]
    port, replicas, threads, max_batch = (int(word) for word in sys.argv[2:6])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # Its path is in the names of Unix sockets, which are short; a second Ray has another.
    folder = tempfile.mkdtemp(prefix="ray-")
    os.environ |= {
        f"RAY_SERVE_HAPROXY_{name}": f"{folder}/haproxy{rest}"
        for name, rest in (
            ("CONFIG_FILE_LOC", "/haproxy.cfg"),
            ("SOCKET_PATH", "/admin.sock"),
            ("SERVER_STATE_BASE", ""),
            ("SERVER_STATE_FILE", "/server-state"),
        )
    }
    try:
        ray.init(
            num_cpus=replicas * threads,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=folder,
        )
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": "127.0.0.1", "port": port},
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )
        deployment = serve.deployment(
            Model,
            name="model",
            num_replicas=replicas,
            max_ongoing_requests=_MAX_ONGOING_REQUESTS,
            ray_actor_options={"num_cpus": threads},
        )
        serve.run(deployment.bind(case_path, threads, max_batch), route_prefix="/predict")
        signal.sigwait({signal.SIGTERM})
    finally:
        # Not `serve.shutdown`, which first waits for replicas to drain.
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
