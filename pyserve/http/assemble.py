"""The HTTP front end put together: one handler with the routes of every API."""

from pyserve.config import ServerConfig
from pyserve.http.app import App
from pyserve.http.express import ExpressLane, supported
from pyserve.http.health import HealthApi
from pyserve.http.management import Management
from pyserve.http.oip import OipApi
from pyserve.http.repository import RepositoryApi
from pyserve.http.routing import Router
from pyserve.metrics import Metrics
from pyserve.service import Service


def build_app(
    service: Service, config: ServerConfig, *, version: str
) -> tuple[App, ExpressLane | None]:
    """Return the handler of all requests, with every API's routes, and the lane before it."""
    router = Router()
    app = App(router)
    management = Management(
        config.management_token, loopback=config.loopback, control=config.control
    )
    metrics = Metrics(service.all_stats, app.responses, version=version)
    HealthApi(service, metrics).add_routes(router)
    oip = OipApi(service, version=version, max_body_bytes=config.max_body_bytes)
    oip.add_routes(router)
    RepositoryApi(service, management).add_routes(router)
    # A log line for each request is the plain lane's.
    if not config.express or config.request_log or not supported():
        return app, None
    lane = ExpressLane(app, service, router, infer=oip.infer, max_body_bytes=config.max_body_bytes)
    return app, lane
