"""Liveness, readiness and metrics, for orchestrators and Prometheus."""

from aiohttp import hdrs, web

from pyserve.errors import Unavailable
from pyserve.http.answers import Answer, json_answer
from pyserve.http.routing import Params, Router
from pyserve.metrics import Metrics
from pyserve.service import Service


class HealthApi:
    """`/healthz`, `/readyz`, `/v2/health/*` and `/metrics`."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics

    def add_routes(self, router: Router) -> None:
        """Add this API's routes."""
        router.add("GET", "/healthz", self.live)
        router.add("GET", "/readyz", self.ready)
        router.add("GET", "/v2/health/live", self.live)
        router.add("GET", "/v2/health/ready", self.ready)
        router.add("GET", "/metrics", self.metrics)

    async def live(self, request: web.BaseRequest, params: Params) -> Answer:
        """The process answers; no model has a say in this."""
        return json_answer({"live": True})

    async def ready(self, request: web.BaseRequest, params: Params) -> Answer:
        """All that was to be loaded is, and warm; 503 before, and from the drain on."""
        reason = self._service.why_not_ready()
        if reason:
            raise Unavailable(reason)
        # The protocol's text calls the field `live` here too; its clients read `ready`.
        return json_answer({"live": True, "ready": True})

    async def metrics(self, request: web.BaseRequest, params: Params) -> Answer:
        """All metrics as Prometheus text, or OpenMetrics where the scraper asks for it."""
        body, content_type = self._metrics.render(request.headers.get(hdrs.ACCEPT, ""))
        return Answer(200, body, f"Content-Type: {content_type}\r\n".encode())
