"""The floor of HTTP: an aiohttp handler on uvloop that reads the body and answers "ok".

`python -m pyserve.bench.empty server` is aiohttp's low-level server, which pyserve uses too: the
least that aiohttp can cost.  `application` is an ordinary `web.Application` with one route.
"""

import asyncio
import json
import sys

import uvloop
from aiohttp import web


async def answer(request: web.BaseRequest) -> web.Response:
    """Read the body, answer two bytes."""
    await request.content.read()
    return web.Response(body=b"ok")


async def run(kind: str) -> None:
    """Listen on a free loopback port until the process is ended."""
    runner: web.ServerRunner | web.AppRunner
    if kind == "application":
        app = web.Application()
        app.router.add_post("/v2/models/{model}/infer", answer)
        runner = web.AppRunner(app, access_log=None)
    else:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    host, port = runner.addresses[0][:2]
    print(json.dumps({"http": f"http://{host}:{port}"}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1]))
