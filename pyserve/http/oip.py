"""The Open Inference Protocol v2 over HTTP: metadata, readiness, inference, statistics.

Bytes become messages in `pyserve.wire`, requests run in `pyserve.service`; here is what belongs
to HTTP alone: headers, bodies, and the `Server-Timing` of an answer.
"""

import logging
import time

from aiohttp import web
from multidict import istr

from pyserve.descriptions import (
    model_config,
    model_metadata,
    model_statistics,
    public_signature,
)
from pyserve.errors import INTERNAL, InvalidInput, PyserveError
from pyserve.http.answers import Answer, json_answer
from pyserve.http.bodies import read_body
from pyserve.http.compression import MIN_BYTES, compressed
from pyserve.http.routing import Params, Router
from pyserve.messages import InferRequest
from pyserve.service import Service
from pyserve.wire import oip_binary, oip_json
from pyserve.wire.extensions import extensions
from pyserve.wire.server_timing import server_timing

HEADER_LENGTH = istr("Inference-Header-Content-Length")

_JSON_FIELDS = b"Content-Type: application/json\r\nServer-Timing: %b\r\n"
_BINARY_FIELDS = (
    b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n"
    b"Server-Timing: %b\r\n"
)

_logger = logging.getLogger(__name__)


class OipApi:
    """`/v2` and `/v2/models/...`."""

    def __init__(self, service: Service, *, version: str, max_body_bytes: int) -> None:
        self._service = service
        self._server_metadata = {
            "name": "pyserve",
            "version": version,
            "extensions": extensions(shared_memory=service.shared_memory is not None),
        }
        self._max_body_bytes = max_body_bytes

    def add_routes(self, router: Router) -> None:
        """Add this API's routes."""
        router.add("GET", "/v2", self.server_metadata)
        router.add("GET", "/", self.server_metadata)  # for who types the address into a browser
        router.add("GET", "/v2/models/stats", self.all_statistics)
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            router.add("GET", base, self.metadata)
            router.add("GET", f"{base}/ready", self.ready)
            router.add("GET", f"{base}/config", self.config)
            router.add("GET", f"{base}/stats", self.statistics)
            router.add("POST", f"{base}/infer", self.infer)

    async def server_metadata(self, request: web.BaseRequest, params: Params) -> Answer:
        """Name, version and extensions of this server."""
        return json_answer(self._server_metadata)

    async def metadata(self, request: web.BaseRequest, params: Params) -> Answer:
        """Versions, inputs and outputs of a model."""
        model, version = params["model"], params.get("version")
        versions = self._service.versions(model)
        found = self._service.look(model, version)
        return await compressed(request, json_answer(model_metadata(found, versions)))

    async def ready(self, request: web.BaseRequest, params: Params) -> Answer:
        """200 where the model can be asked; else 404 or 503 and why."""
        self._service.refuse_while_draining()
        model = self._service.look(params["model"], params.get("version"))
        return json_answer({"name": model.name, "ready": True})

    async def config(self, request: web.BaseRequest, params: Params) -> Answer:
        """The model's configuration in the words of Triton's ModelConfig."""
        model = self._service.look(params["model"], params.get("version"))
        return json_answer(model_config(model))

    async def statistics(self, request: web.BaseRequest, params: Params) -> Answer:
        """What one version, or each live version of a model, has done."""
        found = self._service.stats(params["model"], params.get("version"))
        return json_answer({"model_stats": [model_statistics(one) for one in found]})

    async def all_statistics(self, request: web.BaseRequest, params: Params) -> Answer:
        """What every live version has done."""
        found = self._service.all_stats()
        return json_answer({"model_stats": [model_statistics(one) for one in found]})

    async def infer(self, request: web.BaseRequest, params: Params) -> Answer:
        """Run one request; the answer carries where its time went."""
        service = self._service
        service.refuse_while_draining()
        body = await read_body(request, self._max_body_bytes)
        started = time.perf_counter_ns()
        header_length = request.headers.get(HEADER_LENGTH)
        model, version = params["model"], params.get("version")
        if header_length is not None:
            wanted = self._decode_binary(body, header_length, model, version)
        else:
            wanted = oip_json.decode_request(body, model=model, version=version)
        parse_ns = time.perf_counter_ns() - started
        try:
            response = await service.infer(wanted)
            content, json_length = oip_binary.encode_response(response, wanted)
        except PyserveError:
            raise
        except Exception:
            _logger.exception('model "%s", request "%s" failed', model, wanted.id)
            raise PyserveError(INTERNAL) from None
        timing = server_timing(parse_ns, response.timing)
        if json_length is None:
            answer = Answer(200, content, _JSON_FIELDS % timing)
        else:
            answer = Answer(200, content, _BINARY_FIELDS % (json_length, timing))
        return answer if len(content) < MIN_BYTES else await compressed(request, answer)

    def _decode_binary(
        self, body: bytes, header_length: str, model: str, version: str | None
    ) -> InferRequest:
        """Decode a body of JSON and binary data, or of one input's bytes alone (length 0)."""
        length = oip_binary.parse_header_length(header_length)
        if length:
            return oip_binary.decode_request(body, length, model=model, version=version)
        found = self._service.look(model, version)
        specs, _ = public_signature(found)
        if len(specs) != 1:
            names = ", ".join(f'"{spec.name}"' for spec in specs)
            raise InvalidInput(
                f'a body without a JSON header is for models with one input, "{model}" has '
                f"{len(specs)} ({names}): send a header that names them"
            )
        spec = specs[0]
        if not spec.dtype:
            raise InvalidInput(
                f'a body without a JSON header needs a known shape, "{model}" has no signature: '
                "send a header with shape and datatype"
            )
        return oip_binary.decode_raw(
            body, model=model, version=version, spec=spec, batched=found.batched
        )
