"""Triton's trace and logging extensions over HTTP; `pyserve.triton_settings` says what is so."""

from aiohttp import web

from pyserve.http.answers import Answer, json_answer
from pyserve.http.json_bodies import decode_body
from pyserve.http.routing import Params, Router
from pyserve.service import Service
from pyserve.triton_settings import TRACE_SETTINGS, check_log, check_trace, log_settings

_MAX_BODY_BYTES = 64 * 1024


class TraceApi:
    """`/v2/trace/setting`, `/v2/models/{model}/trace/setting` and `/v2/logging`."""

    def __init__(self, service: Service, *, log_format: str) -> None:
        self._service = service
        self._log_format = log_format

    def add_routes(self, router: Router) -> None:
        """Add this API's routes."""
        for path in ("/v2/trace/setting", "/v2/models/{model}/trace/setting"):
            router.add("GET", path, self.trace)
            router.add("POST", path, self.set_trace)
        router.add("GET", "/v2/logging", self.logging)
        router.add("POST", "/v2/logging", self.set_logging)

    async def trace(self, request: web.BaseRequest, params: Params) -> Answer:
        """The trace settings: tracing is off, for every model."""
        self._look(params)
        return json_answer(TRACE_SETTINGS)

    async def set_trace(self, request: web.BaseRequest, params: Params) -> Answer:
        """Leave tracing off; a request that would switch it on is refused."""
        self._look(params)
        check_trace(await decode_body(request, _MAX_BODY_BYTES, dict[str, object]))
        return json_answer(TRACE_SETTINGS)

    async def logging(self, request: web.BaseRequest, params: Params) -> Answer:
        """What the server's log has, and its form."""
        return json_answer(log_settings(self._log_format))

    async def set_logging(self, request: web.BaseRequest, params: Params) -> Answer:
        """Refuse to change the log; a request that asks for what is so already is answered."""
        wanted = await decode_body(request, _MAX_BODY_BYTES, dict[str, object])
        settings = log_settings(self._log_format)
        check_log(wanted, settings)
        return json_answer(settings)

    def _look(self, params: Params) -> None:
        """Raise what a request for the model would be told."""
        if "model" in params:
            self._service.look(params["model"])
