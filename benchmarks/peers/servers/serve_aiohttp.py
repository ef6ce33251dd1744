"""The plainest server: one aiohttp process on uvloop around `model(x)`.

`serve_aiohttp.py CASE PORT THREADS`
"""

import sys

import uvloop
from aiohttp import web
from served_model import ServedModel

# Beyond what any model of the comparison is sent.
_MAX_BODY_BYTES = 1 << 26


def application(model: ServedModel) -> web.Application:
    """Bytes to bytes, JSON to JSON; the model runs where the request was read."""

    async def predict(request: web.Request) -> web.Response:
        if request.content_type == "application/json":
            row = model.from_lists(await request.json())
            return web.json_response(model.to_lists(model.run([row])[0]))
        row = model.from_bytes(await request.read())
        body = model.to_bytes(model.run([row])[0])
        return web.Response(body=body, content_type="application/octet-stream")

    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_post("/predict", predict)
    return app


def main() -> None:
    """Serve until SIGTERM."""
    case_path, port, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    uvloop.install()
    app = application(ServedModel(case_path, threads=threads))
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, backlog=1024)


if __name__ == "__main__":
    main()
