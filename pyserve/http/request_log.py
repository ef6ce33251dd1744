"""One log line per request, for who asked for it; wrapped round the handler only then."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def logged(handler: Handler, logger: logging.Logger) -> Handler:
    """Return `handler` with a line in `logger` for each of its answers."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        started = time.perf_counter_ns()
        status = 499
        try:
            answer = await handler(request)
            status = answer.status
            return answer
        finally:
            path = request.rel_url.raw_path[:200]
            milliseconds = (time.perf_counter_ns() - started) / 1e6
            logger.info(
                "%s %s %d in %.3f ms",
                request.method,
                path,
                status,
                milliseconds,
                extra={
                    "method": request.method,
                    "path": path,
                    "status": status,
                    "milliseconds": round(milliseconds, 3),
                    "client": request.remote,
                },
            )

    return handle
