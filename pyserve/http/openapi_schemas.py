"""The JSON that goes in and out, as the schemas of the OpenAPI document.

Only words that OpenAPI 3.0 and 3.1 both know are used, for Swagger UI reads 3.0.  Objects may have
more keys than are listed here: the protocols allow it both ways.
"""

from collections.abc import Mapping
from typing import TypeAlias

Schema: TypeAlias = dict[str, object]

ANY: Schema = {}
STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BINARY: Schema = {"type": "string", "format": "binary"}
OBJECT: Schema = {"type": "object"}

DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "BF16", "FP32", "FP64", "BYTES"),
)


def ref(name: str) -> Schema:
    """Return the schema that stands under `name` in SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema) -> Schema:
    """Return a list of `items`."""
    return {"type": "array", "items": items}


def mapping(values: Schema) -> Schema:
    """Return an object whose keys are the client's or the model's own."""
    return {"type": "object", "additionalProperties": values}


def one_of(*words: str) -> Schema:
    """Return a string that is one of `words`."""
    return {"type": "string", "enum": list(words)}


def said(schema: Schema, description: str) -> Schema:
    """Return `schema` with a description."""
    return {**schema, "description": description}


def struct(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    """Return an object with these keys."""
    schema: Schema = {"type": "object", "properties": {**required, **optional}}
    if required:
        schema["required"] = list(required)
    return schema


_SHAPE = array(COUNT)
_DATATYPE = one_of(*DATATYPES)
_SHARED_MEMORY = {
    "shared_memory_region": said(STRING, "a region that was registered before"),
    "shared_memory_offset": said(COUNT, "where in the region, in bytes"),
    "shared_memory_byte_size": said(COUNT, "how much of it, in bytes"),
}
_DURATION = struct({"count": COUNT, "ns": COUNT})
_SPEC = struct({"name": STRING, "datatype": STRING, "shape": array(INTEGER)})
_CONFIG_TENSOR = struct({"name": STRING, "data_type": STRING, "dims": array(INTEGER)})

SCHEMAS: dict[str, Schema] = {
    "Error": struct({"error": said(STRING, "what was wrong, what was expected, what was got")}),
    "TorchServeError": struct({"code": INTEGER, "type": STRING, "message": STRING}),
    "TorchServeStatus": struct({"status": STRING}),
    "TorchServeModels": struct(
        {"models": array(struct({"modelName": STRING, "modelUrl": STRING}))},
        nextPageToken=STRING,
    ),
    "TorchServeDescriptions": array(
        struct({"modelName": STRING, "modelVersion": STRING}, workers=array(OBJECT))
    ),
    "Live": struct({"live": BOOLEAN}),
    "Ready": struct({"live": BOOLEAN, "ready": BOOLEAN}),
    "ModelReady": struct({"name": STRING, "ready": BOOLEAN}),
    "ServerMetadata": struct({"name": STRING, "version": STRING, "extensions": array(STRING)}),
    "ModelMetadata": struct(
        {
            "name": STRING,
            "versions": array(STRING),
            "platform": STRING,
            "inputs": array(ref("TensorMetadata")),
            "outputs": array(ref("TensorMetadata")),
        },
        properties=OBJECT,
    ),
    "TensorMetadata": said(_SPEC, "-1 in `shape` stands for the batch and for any size"),
    "ModelConfig": struct(
        {
            "name": STRING,
            "platform": STRING,
            "backend": STRING,
            "max_batch_size": COUNT,
            "input": array(_CONFIG_TENSOR),
            "output": array(_CONFIG_TENSOR),
        }
    ),
    "ModelStatistics": struct({"model_stats": array(ref("VersionStatistics"))}),
    "VersionStatistics": struct(
        {
            "name": STRING,
            "version": STRING,
            "last_inference": said(COUNT, "milliseconds since 1970, 0 for never"),
            "inference_count": said(COUNT, "rows that were run"),
            "execution_count": said(COUNT, "calls of the model"),
            "inference_stats": mapping(_DURATION),
        },
        batch_stats=array(OBJECT),
    ),
    "InferRequest": struct(
        {"inputs": array(ref("RequestInput"))},
        id=said(STRING, "comes back in the answer"),
        outputs=said(array(ref("RequestedOutput")), "only these; without it all"),
        parameters=ref("RequestParameters"),
    )
    | {
        "example": {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]
        }
    },
    "RequestInput": struct(
        {"name": {"type": "string", "minLength": 1}, "datatype": _DATATYPE, "shape": _SHAPE},
        data=said(array(ANY), "flat or nested, in C order"),
        parameters=struct(
            {},
            binary_data_size=said(COUNT, "bytes of this input behind the JSON"),
            **_SHARED_MEMORY,
        ),
    ),
    "RequestedOutput": struct(
        {"name": {"type": "string", "minLength": 1}},
        parameters=struct(
            {},
            binary_data=said(BOOLEAN, "as binary data behind the JSON of the answer"),
            classification=said(COUNT, "the so many largest of each row, with their labels"),
            **_SHARED_MEMORY,
        ),
    ),
    "RequestParameters": struct(
        {},
        binary_data_output=said(BOOLEAN, "all outputs as binary data"),
        timeout=said(
            COUNT, "microseconds from arrival, then the answer is 504; 0 is the model's own"
        ),
        priority=said(
            {"type": "integer", "minimum": 0, "maximum": 3},
            "1 is high, 2 normal, 3 low; 0 is the model's own",
        ),
    ),
    "InferResponse": struct(
        {
            "model_name": STRING,
            "model_version": STRING,
            "outputs": array(ref("ResponseOutput")),
        },
        id=STRING,
        parameters=OBJECT,
    ),
    "ResponseOutput": struct(
        {"name": STRING, "datatype": _DATATYPE, "shape": _SHAPE},
        data=array(ANY),
        parameters=OBJECT,
    ),
    "IndexRequest": struct({}, ready=said(BOOLEAN, "only what serves")),
    "Index": array(ref("IndexEntry")),
    "IndexEntry": struct({"name": STRING, "state": STRING, "reason": STRING}, version=STRING),
    "RepositoryRequest": struct({}, parameters=OBJECT),
    "RegionRegistration": struct(
        {"key": said(STRING, "the object's name, as for shm_open"), "byte_size": COUNT},
        offset=COUNT,
    ),
    "Regions": array(struct({"name": STRING, "key": STRING, "offset": COUNT, "byte_size": COUNT})),
    "TraceSettings": struct({"trace_level": array(STRING)}),
    "TraceChange": said(OBJECT, "`trace_level` can only be OFF"),
    "LogSettings": struct(
        {
            "log_file": STRING,
            "log_info": BOOLEAN,
            "log_warning": BOOLEAN,
            "log_error": BOOLEAN,
            "log_verbose_level": COUNT,
            "log_format": STRING,
        }
    ),
    "LogChange": said(OBJECT, "settings as they are already"),
    "Nothing": said(OBJECT, "an empty object"),
}
