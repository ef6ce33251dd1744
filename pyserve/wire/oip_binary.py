"""Open Inference Protocol bodies with binary data behind the JSON, and answers in either form.

Binary tensors are views on the body, which they keep alive: nothing is copied here. Blobs follow
in the order of the request's inputs, and every byte must belong to one.
"""

import functools

import msgspec

from pyserve.errors import InvalidInput
from pyserve.messages import InferRequest, InferResponse, InputTensor, Region
from pyserve.signature import TensorSpec
from pyserve.wire.header import NO_DATA, HeaderInput, decode_header, make_request
from pyserve.wire.oip_json import read_input
from pyserve.wire.tensors import LENGTH_BYTES, SIZES, check_size, shown, to_json

# A body's length has fewer digits; more need no conversion to be too large.
_MAX_LENGTH_DIGITS = 18

_encode = msgspec.json.Encoder().encode


def parse_header_length(text: str | None) -> int | None:
    """Return the value of `Inference-Header-Content-Length`, None where there is no such header.

    Only ASCII digits: neither signs nor spaces, and "123abc" is not 123.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_LENGTH_DIGITS):
        raise InvalidInput(
            f"Inference-Header-Content-Length is {shown(text)}, expected the JSON's length in bytes"
        )
    return int(text)


def decode_request(
    body: bytes, header_length: int, *, model: str, version: str | None
) -> InferRequest:
    """Return the request whose JSON is the first `header_length` bytes of `body`.

    InvalidInput says what is wrong with it.
    """
    if not 0 <= header_length <= len(body):
        raise InvalidInput(
            f"Inference-Header-Content-Length is {header_length}, the body has {len(body)} bytes"
        )
    header = decode_header(body[:header_length])
    view = memoryview(body)
    offset = header_length
    inputs = []
    for one in header.inputs:
        parameters = one.parameters
        size = None if parameters is None else parameters.binary_data_size
        if size is None:
            inputs.append(read_input(one))
            continue
        _check_size(one, size)
        end = offset + size
        if end > len(body):
            raise InvalidInput(
                f"input {shown(one.name)} has binary_data_size {size}, "
                f"{len(body) - offset} bytes are left in the body"
            )
        inputs.append(InputTensor(one.name, one.datatype, one.shape, view[offset:end]))
        offset = end
    if offset != len(body):
        raise InvalidInput(f"the body has {len(body) - offset} bytes that belong to no input")
    return make_request(header, inputs, model=model, version=version)


def _check_size(one: HeaderInput, size: int) -> None:
    """Refuse a size that disagrees with shape and datatype, or data in two places."""
    check_size(one.name, one.datatype, one.shape, size, "binary_data_size")
    if one.parameters is not None and one.parameters.shared_memory_region is not None:
        raise InvalidInput(f"input {shown(one.name)} has both binary_data_size and shared memory")
    if one.data is not NO_DATA:
        raise InvalidInput(f"input {shown(one.name)} has both data and binary_data_size")


def decode_raw(
    body: bytes, *, model: str, version: str | None, spec: TensorSpec, batched: bool
) -> InferRequest:
    """Return the request whose body is the bytes of the model's only input, `spec`, and no JSON.

    The shape follows from the length: of at most one size, the batch's or a variable dimension's
    (then it is a batch of one). BYTES is one string without its length. The answer is binary.
    """
    if spec.dtype == "BYTES":
        shape = _raw_string_shape(spec, batched=batched)
        data = len(body).to_bytes(LENGTH_BYTES, "little") + body
    else:
        shape = _raw_shape(len(body), spec, batched=batched)
        data = body
    tensor = InputTensor(spec.name, spec.dtype, shape, data)
    return InferRequest(model=model, version=version, inputs=[tensor], binary_default=True)


def _raw_string_shape(spec: TensorSpec, *, batched: bool) -> tuple[int, ...]:
    if any(size not in (1, -1) for size in spec.shape):
        raise InvalidInput(
            f"input {shown(spec.name)} is BYTES of shape {list(spec.shape)}: a body without a JSON "
            "header holds one string, send a header"
        )
    return (1,) * (len(spec.shape) + batched)


def _raw_shape(length: int, spec: TensorSpec, *, batched: bool) -> tuple[int, ...]:
    """Return the shape of `length` bytes for `spec`; InvalidInput where there is none, or many."""
    variable = spec.shape.count(-1)
    if variable > 1:
        raise InvalidInput(
            f"input {shown(spec.name)} has shape {list(spec.shape)}: a body without a JSON header "
            "leaves its variable dimensions open, send a header"
        )
    fixed = SIZES[spec.dtype]
    for size in spec.shape:
        fixed *= 1 if size == -1 else size
    batch = (1,) if batched else ()
    if variable == 0 and not batched:
        if length == fixed:
            return spec.shape
    elif fixed > 0 and length % fixed == 0:
        free = length // fixed
        if variable == 0:
            return (free, *spec.shape)
        return batch + tuple(free if size == -1 else size for size in spec.shape)
    elif fixed == 0 and length == 0:
        return batch + tuple(0 if size == -1 else size for size in spec.shape)
    whole = "" if variable == 0 and not batched else "a multiple of "
    raise InvalidInput(
        f"the body has {length} bytes, expected {whole}{fixed} for input {shown(spec.name)} of "
        f"shape {list(spec.shape)} and datatype {spec.dtype}"
    )


def encode_response(response: InferResponse, request: InferRequest) -> tuple[bytes, int | None]:
    """Return the body of the answer, and its JSON's length where binary data follows.

    Outputs that the request lists come as it asks there, others as `binary_default` says. Those in
    shared memory only say where.
    """
    wanted = request.outputs
    binary = request.binary_default
    named = None if wanted is None else {one.name: one.binary for one in wanted}
    regions = response.regions
    pieces = [_opening(response.model, response.version)]
    if response.id:
        pieces.append(b'"id":' + _encode(response.id) + b",")
    separator = b'"outputs":['
    blobs = []
    for output in response.outputs:
        pieces.append(separator)
        separator = b","
        name, datatype, shape, data = output
        if regions and name in regions:
            pieces.append(_shared_output(name, datatype, shape, regions[name]))
        elif binary if named is None else named.get(name, binary):
            pieces.append(_binary_output(name, datatype, shape, len(data)))
            blobs.append(data)
        else:
            pieces += (_json_output(name, datatype, shape), to_json(output), b"}")
    pieces.append(b"]}" if response.outputs else b'"outputs":[]}')
    if not blobs:
        return b"".join(pieces), None
    header = b"".join(pieces)
    return b"".join((header, *blobs)), len(header)


# The same few names and shapes come again with every request; the bounds keep odd ones from piling
# up.


@functools.lru_cache(maxsize=256)
def _opening(model: str, version: str) -> bytes:
    return b'{"model_name":%b,"model_version":%b,' % (_encode(model), _encode(version))


@functools.lru_cache(maxsize=1024)
def _json_output(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    fields = _encode({"name": name, "datatype": datatype, "shape": shape})
    return fields[:-1] + b',"data":'


@functools.lru_cache(maxsize=1024)
def _binary_output(name: str, datatype: str, shape: tuple[int, ...], size: int) -> bytes:
    parameters = {"binary_data_size": size}
    return _encode({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})


def _shared_output(name: str, datatype: str, shape: tuple[int, ...], region: Region) -> bytes:
    parameters = {
        "shared_memory_region": region.name,
        "shared_memory_byte_size": region.byte_size,
        "shared_memory_offset": region.offset,
    }
    return _encode({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})
