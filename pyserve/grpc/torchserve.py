"""TorchServe's gRPC services: predictions and management, as its REST API has them."""

from __future__ import annotations

from typing import Any

import msgspec

from pyserve.errors import InvalidInput
from pyserve.grpc import inference
from pyserve.grpc.calls import Context, Handlers
from pyserve.grpc.management import Management
from pyserve.protos import message
from pyserve.service import Service
from pyserve.torchserve.inputs import Field
from pyserve.torchserve.predict import Predictor
from pyserve.torchserve.store import Register, Said, Store

INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGEMENT = "org.pytorch.serve.grpc.management.ManagementAPIsService"


class TorchServeApi:
    """Ping and Predictions, and what the management service has; answers are JSON in a message."""

    def __init__(self, service: Service, store: Store, management: Management) -> None:
        self._service = service
        self._store = store
        self._predictor = Predictor(service, store.catalog)
        self._management = management

    @property
    def handlers(self) -> tuple[Handlers, Handlers]:
        """What `calls.generic_handler` takes."""
        return (
            Handlers(INFERENCE, unary={"Ping": self.ping, "Predictions": self.predictions}),
            Handlers(
                MANAGEMENT,
                unary={
                    "DescribeModel": self.describe,
                    "ListModels": self.list_models,
                    "RegisterModel": self.register,
                    "ScaleWorker": self.scale,
                    "SetDefault": self.set_default,
                    "UnregisterModel": self.unregister,
                },
            ),
        )

    async def ping(self, request: Any, context: Context) -> Any:
        """Whether this server should get requests now."""
        status = "Unhealthy" if self._service.why_not_ready() else "Healthy"
        answer = message("org.pytorch.serve.grpc.inference.TorchServeHealthResponse")
        return answer(health=msgspec.json.encode({"status": status}).decode())

    async def predictions(self, request: Any, context: Context) -> Any:
        """Predict with a model; `input` has the fields of a form."""
        self._service.refuse_while_draining()
        predicted = await self._predictor.predict(
            _named(request),
            request.model_version or None,
            {name: Field(bytes(value)) for name, value in request.input.items()},
            deadline_ns=inference.deadline_of(context),
        )
        answer = message("org.pytorch.serve.grpc.inference.PredictionResponse")
        return answer(prediction=predicted.prediction.body)

    async def describe(self, request: Any, context: Context) -> Any:
        """Describe one version, or all of them."""
        described = self._store.catalog.describe(
            _named(request), request.model_version or None, customized=request.customized
        )
        return _message(described)

    async def list_models(self, request: Any, context: Context) -> Any:
        """A page of the models that are registered or served."""
        # 0 is how proto3 says that nothing was given.
        page = await self._store.catalog.page(request.limit or None, request.next_page_token)
        answer: dict[str, object] = {
            "models": [{"modelName": name, "modelUrl": url} for name, url in page.models]
        }
        if page.next_page is not None:
            answer["nextPageToken"] = str(page.next_page)
        return _message(answer)

    async def register(self, request: Any, context: Context) -> Any:
        """Register an archive."""
        self._management.check(context)
        wanted = Register(
            url=request.url,
            model_name=request.model_name,
            handler=request.handler,
            runtime=request.runtime,
            batch_size=request.batch_size or None,
            max_batch_delay=request.max_batch_delay or None,
            response_timeout=request.response_timeout or None,
            initial_workers=request.initial_workers or None,
            synchronous=request.synchronous,
        )
        return _said(await self._store.register(wanted))

    async def scale(self, request: Any, context: Context) -> Any:
        """Give a model as many instances as `min_worker` says."""
        self._management.check(context)
        said = await self._store.scale(
            _named(request),
            request.model_version or None,
            minimum=request.min_worker or None,
            maximum=request.max_worker or None,
            synchronous=request.synchronous,
        )
        return _said(said)

    async def set_default(self, request: Any, context: Context) -> Any:
        """Let a version answer the requests that name none."""
        self._management.check(context)
        if not request.model_version:
            raise InvalidInput("model_version is empty, expected the version to be the default")
        return _said(await self._store.set_default(_named(request), request.model_version))

    async def unregister(self, request: Any, context: Context) -> Any:
        """Forget a version."""
        self._management.check(context)
        return _said(await self._store.unregister(_named(request), request.model_version or None))


def _named(request: Any) -> str:
    if not request.model_name:
        raise InvalidInput("model_name is empty, expected the name of a model")
    return str(request.model_name)


def _said(said: Said) -> Any:
    return _message({"status": said.status})


def _message(value: object) -> Any:
    answer = message("org.pytorch.serve.grpc.management.ManagementResponse")
    return answer(msg=msgspec.json.encode(value).decode())
