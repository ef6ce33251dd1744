"""What goes in and out of each route, for the OpenAPI document: one row per method and pattern.

A row serves its path below `/versions/{version}` too.  Who adds a route adds a row; what the route
does is said by its handler's docstring, not here.
"""

from collections.abc import Mapping
from dataclasses import replace

from pyserve.http import openapi_torchserve
from pyserve.http.openapi_operation import Content, Operation, Parameter, json
from pyserve.http.openapi_schemas import ANY, BINARY, INTEGER, STRING

TAGS: Mapping[str, str] = {
    "inference": "Open Inference Protocol v2: models, and asking them",
    "statistics": "what models have done",
    "repository": "what can be served, loading and unloading",
    "shared-memory": "tensors that do not travel, for clients on this machine",
    "settings": "Triton's trace and log settings, which only say how things are",
    "torchserve": "TorchServe's API; its paths may end in a slash",
    "health": "for orchestrators and Prometheus",
    "documentation": "this description",
    "other": "routes without a description",
}

ERRORS: Mapping[int, str] = {
    400: "Malformed: an unknown name, a wrong dtype, shape or size; the message says which",
    401: "The management token is missing or wrong",
    403: "Not allowed on this server",
    404: "No such model or version",
    405: "Not with this method",
    409: "It is there already",
    413: "The body is over the limit, before or after decompression",
    429: "The model's queue is full",
    500: "The model failed, or the server did",
    501: "Not served here",
    503: "Loading, shutting down, or the model could not be loaded",
    504: "The deadline passed; the request was not run after it",
}

UNKNOWN = Operation(tag="other", answers={200: {"*/*": ANY}}, errors=(404,))

_OCTETS: Content = {"application/octet-stream": BINARY}
_HEADER_LENGTH = Parameter(
    "Inference-Header-Content-Length",
    "header",
    "how many bytes of the body are JSON; the tensors' bytes follow. 0: the body is the bytes of "
    "the model's only input. Absent: the body is JSON",
    INTEGER | {"minimum": 0},
)
_REGIONS = Operation(tag="shared-memory", answers={200: json("Regions")})
_FORGET_REGION = Operation(tag="shared-memory", answers={200: json("Nothing")}, changes=True)
_NO_CUDA = Operation(tag="shared-memory", answers={200: json("Nothing")})
_TRACE = Operation(tag="settings", answers={200: json("TraceSettings")})
_SET_TRACE = Operation(
    tag="settings", body=json("TraceChange"), answers={200: json("TraceSettings")}, errors=(413,)
)

OPERATIONS: Mapping[str, Operation] = {
    **openapi_torchserve.OPERATIONS,
    # --- Open Inference Protocol v2 ---
    "GET /v2": Operation(tag="inference", answers={200: json("ServerMetadata")}),
    "GET /": Operation(tag="inference", answers={200: json("ServerMetadata")}),
    "GET /v2/models/{model}": Operation(
        tag="inference", answers={200: json("ModelMetadata")}, errors=(404, 503)
    ),
    "GET /v2/models/{model}/ready": Operation(
        tag="inference", answers={200: json("ModelReady")}, errors=(404, 503)
    ),
    "GET /v2/models/{model}/config": Operation(
        tag="inference", answers={200: json("ModelConfig")}, errors=(404, 503)
    ),
    "POST /v2/models/{model}/infer": Operation(
        tag="inference",
        text="The body is JSON, or JSON with the tensors' bytes behind it, or one input's bytes "
        "alone. The answer says where its time went (`Server-Timing`).",
        parameters=(_HEADER_LENGTH,),
        body=json("InferRequest") | _OCTETS,
        body_required=True,
        answers={200: json("InferResponse") | _OCTETS},
        errors=(404, 413, 429, 503, 504),
    ),
    # --- statistics ---
    "GET /v2/models/{model}/stats": Operation(
        tag="statistics", answers={200: json("ModelStatistics")}, errors=(404, 503)
    ),
    "GET /v2/models/stats": Operation(tag="statistics", answers={200: json("ModelStatistics")}),
    # --- model repository ---
    "POST /v2/repository/index": Operation(
        tag="repository", body=json("IndexRequest"), answers={200: json("Index")}, errors=(413,)
    ),
    "POST /v2/repository/models/{model}/load": Operation(
        tag="repository",
        body=json("RepositoryRequest"),
        answers={200: json("Nothing")},
        errors=(404, 413, 503),
        changes=True,
    ),
    "POST /v2/repository/models/{model}/unload": Operation(
        tag="repository",
        body=json("RepositoryRequest"),
        answers={200: json("Nothing")},
        errors=(404, 413, 503),
        changes=True,
    ),
    # --- shared memory ---
    "GET /v2/systemsharedmemory": _REGIONS,
    "GET /v2/systemsharedmemory/status": _REGIONS,
    "GET /v2/systemsharedmemory/region/{region}/status": _REGIONS,
    "POST /v2/systemsharedmemory/region/{region}/register": Operation(
        tag="shared-memory",
        body=json("RegionRegistration"),
        body_required=True,
        answers={200: json("Nothing")},
        errors=(413,),
        changes=True,
    ),
    "POST /v2/systemsharedmemory/region/{region}/unregister": _FORGET_REGION,
    "POST /v2/systemsharedmemory/unregister": _FORGET_REGION,
    "GET /v2/cudasharedmemory": _REGIONS,
    "GET /v2/cudasharedmemory/status": _REGIONS,
    "GET /v2/cudasharedmemory/region/{region}/status": _REGIONS,
    "POST /v2/cudasharedmemory/region/{region}/register": _NO_CUDA,
    "POST /v2/cudasharedmemory/region/{region}/unregister": _NO_CUDA,
    "POST /v2/cudasharedmemory/unregister": _NO_CUDA,
    # --- trace and log ---
    "GET /v2/trace/setting": _TRACE,
    "GET /v2/models/{model}/trace/setting": replace(_TRACE, errors=(404, 503)),
    "POST /v2/trace/setting": _SET_TRACE,
    "POST /v2/models/{model}/trace/setting": replace(_SET_TRACE, errors=(404, 413, 503)),
    "GET /v2/logging": Operation(tag="settings", answers={200: json("LogSettings")}),
    "POST /v2/logging": Operation(
        tag="settings", body=json("LogChange"), answers={200: json("LogSettings")}, errors=(413,)
    ),
    # --- health and metrics ---
    "GET /healthz": Operation(tag="health", answers={200: json("Live")}),
    "GET /readyz": Operation(tag="health", answers={200: json("Ready")}, errors=(503,)),
    "GET /v2/health/live": Operation(tag="health", answers={200: json("Live")}),
    "GET /v2/health/ready": Operation(tag="health", answers={200: json("Ready")}, errors=(503,)),
    "GET /metrics": Operation(
        tag="health",
        answers={200: {"text/plain": STRING, "application/openmetrics-text": STRING}},
    ),
    # --- documentation ---
    "GET /openapi.json": Operation(tag="documentation", answers={200: json({"type": "object"})}),
    "GET /docs": Operation(
        tag="documentation", answers={200: {"text/html": STRING}}, errors=(404,)
    ),
    "GET /docs/{file}": Operation(
        tag="documentation",
        answers={200: {"text/javascript": STRING, "text/css": STRING, "image/png": BINARY}},
        errors=(404,),
    ),
}
