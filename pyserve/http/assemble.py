"""The HTTP front end put together: one handler with the routes of every API."""

from pyserve.config import ServerConfig
from pyserve.http.app import App
from pyserve.http.cors import CorsApp
from pyserve.http.docs_ui import DocsUi
from pyserve.http.express import ExpressLane, supported
from pyserve.http.health import HealthApi
from pyserve.http.management import Management
from pyserve.http.oip import OipApi
from pyserve.http.openapi import OpenApi
from pyserve.http.repository import RepositoryApi
from pyserve.http.routing import Router
from pyserve.http.shared_memory import SharedMemoryApi
from pyserve.http.torchserve import TorchServeApi
from pyserve.http.torchserve_management import TorchServeManagementApi
from pyserve.http.trace import TraceApi
from pyserve.metrics import GrpcResponses, Metrics
from pyserve.service import Service
from pyserve.torchserve.store import Store


def build_app(
    service: Service,
    config: ServerConfig,
    *,
    version: str,
    grpc_responses: GrpcResponses | None = None,
    store: Store | None = None,
) -> tuple[App, ExpressLane | None]:
    """Return the handler of all requests, with every API's routes, and the lane before it.

    grpc_responses: what the metrics say of gRPC.  store: what TorchServe's API is about; without
    one it is not there.
    """
    router = Router()
    app = CorsApp(router, config.cors_origin) if config.cors_origin else App(router)
    management = Management(
        config.management_token, loopback=config.loopback, control=config.control
    )
    metrics = Metrics(
        service.all_stats, app.responses, version=version, grpc_responses=grpc_responses
    )
    HealthApi(service, metrics).add_routes(router)
    oip = OipApi(service, version=version, max_body_bytes=config.max_body_bytes)
    oip.add_routes(router)
    RepositoryApi(service, management).add_routes(router)
    SharedMemoryApi(service, management).add_routes(router)
    TraceApi(service, log_format=config.log_format).add_routes(router)
    if store is not None:
        TorchServeApi(
            service, store.catalog, version=version, max_body_bytes=config.max_body_bytes
        ).add_routes(router)
        TorchServeManagementApi(store, management, version=version).add_routes(router)
    DocsUi().add_routes(router)
    OpenApi(version=version).add_routes(router)  # the last: it describes all that are there
    # A log line for each request is the plain lane's.
    if not config.express or config.request_log or not supported():
        return app, None
    lane = ExpressLane(
        app,
        service,
        router,
        infer=oip.infer,
        max_body_bytes=config.max_body_bytes,
        # Who says where it comes from gets an answer of its own.
        cors=isinstance(app, CorsApp),
        fields=app.varying(b"") if isinstance(app, CorsApp) else b"",
    )
    return app, lane
