"""Open Inference Protocol requests that are JSON from end to end."""

from pyserve.errors import InvalidInput
from pyserve.messages import InferRequest, InputTensor
from pyserve.wire.header import NO_DATA, HeaderInput, decode_header, make_request, region_of
from pyserve.wire.tensors import check_size, from_json, shown


def decode_request(body: bytes, *, model: str, version: str | None) -> InferRequest:
    """Return the request for `model` in `body`; InvalidInput says what is wrong with it."""
    header = decode_header(body)
    inputs = []
    for one in header.inputs:
        if one.parameters is not None and one.parameters.binary_data_size is not None:
            raise InvalidInput(
                f"input {shown(one.name)} has binary_data_size, but the request has no "
                "Inference-Header-Content-Length"
            )
        inputs.append(read_input(one))
    return make_request(header, inputs, model=model, version=version)


def read_input(one: HeaderInput) -> InputTensor:
    """Return the input whose data is in the JSON, or in shared memory: then it has none yet.

    InvalidInput where there is neither, or both.
    """
    if one.parameters is not None:
        region = region_of("input", one.name, one.parameters)
        if region is not None:
            size = region.byte_size
            check_size(one.name, one.datatype, one.shape, size, "shared_memory_byte_size")
            if one.data is not NO_DATA:
                raise InvalidInput(f"input {shown(one.name)} has both data and shared memory")
            return InputTensor(one.name, one.datatype, one.shape, b"")
    if one.data is NO_DATA:
        raise InvalidInput(f"input {shown(one.name)} has no data")
    data = from_json(one.name, one.datatype, one.shape, one.data)
    return InputTensor(one.name, one.datatype, one.shape, data)
