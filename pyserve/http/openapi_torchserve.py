"""What goes in and out of the routes of TorchServe's API, for the OpenAPI document."""

from collections.abc import Mapping
from dataclasses import replace

from pyserve.http.openapi_operation import Content, Operation, Parameter, json
from pyserve.http.openapi_schemas import ANY, BINARY, BOOLEAN, COUNT, INTEGER, STRING

_ERROR = "TorchServeError"
_TAG = "torchserve"

# A body is one row, in the form that the model's handler takes.
_ROW: Content = {
    "application/json": ANY,
    "application/octet-stream": BINARY,
    "text/plain": STRING,
    "multipart/form-data": {"type": "object", "properties": {"data": BINARY}},
}
_PREDICT = Operation(
    tag=_TAG,
    body=_ROW,
    answers={200: {"application/json": ANY, "*/*": ANY}},  # a handler's own may be anything
    errors=(404, 413, 429, 503, 504),
    error=_ERROR,
)
_EXPLAIN = Operation(tag=_TAG, answers={}, errors=(404, 501, 503), error=_ERROR)
_DESCRIPTION = Operation(tag=_TAG, answers={200: json({"type": "object"})}, error=_ERROR)
_STATUS = json("TorchServeStatus")
_CHANGE = Operation(
    tag=_TAG, answers={200: _STATUS}, errors=(404, 413, 503), error=_ERROR, changes=True
)


def _query(name: str, text: str, schema: dict[str, object] = STRING) -> Parameter:
    return Parameter(name, "query", text, schema)


OPERATIONS: Mapping[str, Operation] = {
    "GET /ping": Operation(tag=_TAG, answers={200: _STATUS, 503: _STATUS}, error=_ERROR),
    "GET /api-description": _DESCRIPTION,
    "OPTIONS /": _DESCRIPTION,
    "OPTIONS /predictions/{model}": replace(_DESCRIPTION, errors=(404, 503)),
    "GET /predictions/{model}": replace(_PREDICT, body=None),
    "POST /predictions/{model}": _PREDICT,
    "PUT /predictions/{model}": _PREDICT,
    "GET /explanations/{model}": _EXPLAIN,
    "POST /explanations/{model}": _EXPLAIN,
    "PUT /explanations/{model}": _EXPLAIN,
    # --- management ---
    "GET /models": Operation(
        tag=_TAG,
        parameters=(
            _query("limit", "how many models, at most", COUNT),
            _query("next_page_token", "where the page before ended", COUNT),
        ),
        answers={200: json("TorchServeModels")},
        error=_ERROR,
    ),
    "POST /models": replace(
        _CHANGE,
        parameters=(
            _query("url", "an archive in the model store, or at an allowed address"),
            _query("model_name", "instead of the archive's own"),
            _query("handler", "instead of the archive's own"),
            _query("batch_size", "rows that run together, at most", INTEGER),
            _query("max_batch_delay", "milliseconds to wait for more rows", INTEGER),
            _query("response_timeout", "seconds until a request ends without an answer", INTEGER),
            _query("initial_workers", "instances to start with", INTEGER),
            _query("synchronous", "answer when they have started", BOOLEAN),
        ),
        answers={200: _STATUS, 202: _STATUS},
        errors=(404, 409, 413, 503),
    ),
    "GET /models/{model}": Operation(
        tag=_TAG,
        parameters=(_query("customized", "with what the handler says of itself", BOOLEAN),),
        answers={200: json("TorchServeDescriptions")},
        errors=(404, 503),
        error=_ERROR,
    ),
    "PUT /models/{model}": replace(
        _CHANGE,
        parameters=(
            _query("min_worker", "instances; 0 takes the model out of service", INTEGER),
            _query("max_worker", "not used beside min_worker", INTEGER),
            _query("synchronous", "answer when they have started", BOOLEAN),
        ),
        answers={200: _STATUS, 202: _STATUS},
    ),
    "DELETE /models/{model}": _CHANGE,
    "PUT /models/{model}/{version}/set-default": _CHANGE,
}
