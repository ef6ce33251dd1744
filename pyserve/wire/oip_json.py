"""Open Inference Protocol requests that are JSON from end to end."""

from pyserve.errors import InvalidInput
from pyserve.messages import InferRequest, InputTensor
from pyserve.wire.header import NO_DATA, HeaderInput, decode_header, make_request
from pyserve.wire.tensors import from_json, shown


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
    """Return the input whose data is in the JSON; InvalidInput where that is not so."""
    if one.data is NO_DATA:
        where = ""
        if one.parameters is not None and one.parameters.shared_memory_region is not None:
            where = ": shared memory is not supported"
        raise InvalidInput(f"input {shown(one.name)} has no data{where}")
    data = from_json(one.name, one.datatype, one.shape, one.data)
    return InputTensor(one.name, one.datatype, one.shape, data)
