"""The JSON of an Open Inference Protocol request as typed values; what is malformed ends here.

The header says what the tensors are. Their numbers stay text (`HeaderInput.data`) or follow as
binary data, for `oip_json` and `oip_binary` to read. Unknown keys are ignored, as the protocol
wants; nulls are taken for absent.
"""

import functools
import re
from typing import Annotated, TypeAlias

import msgspec

from pyserve.errors import InvalidInput
from pyserve.messages import InferRequest, InputTensor, Region, RequestedOutput
from pyserve.scheduling import nearest_deadline, priority_of, timeout_us_of
from pyserve.wire import numbers
from pyserve.wire.tensors import shown

MAX_DEPTH = 100
"""JSON nested deeper than this is refused, wherever it is."""

# From here on it pays to take number arrays out before decoding.
_SPLIT_BYTES = 1024

# A header before binary data has a few hundred bytes; remembering 1,024 of these costs 1 MB.
_REMEMBERED_BYTES = 512

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


NO_DATA = msgspec.Raw()


class InputParameters(msgspec.Struct, frozen=True, gc=False):
    """What an input may say beside its data."""

    binary_data_size: _Count | None = None
    shared_memory_region: str | None = None
    shared_memory_byte_size: _Count | None = None
    shared_memory_offset: _Count | None = None


class HeaderInput(msgspec.Struct, frozen=True, gc=False):
    """One input; `data` is its JSON text, NO_DATA itself where there is none."""

    name: _Name
    datatype: str
    shape: tuple[int, ...]
    parameters: InputParameters | None = None
    data: msgspec.Raw = NO_DATA


class OutputParameters(msgspec.Struct, frozen=True, gc=False):
    """What a requested output may say."""

    binary_data: bool | None = None
    classification: _Count | None = None
    shared_memory_region: str | None = None
    shared_memory_byte_size: _Count | None = None
    shared_memory_offset: _Count | None = None


class HeaderOutput(msgspec.Struct, frozen=True, gc=False):
    """One requested output."""

    name: _Name
    parameters: OutputParameters | None = None


class RequestParameters(msgspec.Struct, frozen=True, gc=False):
    """What a request may say; `timeout` and `priority` are for `pyserve.scheduling` to check."""

    binary_data_output: bool | None = None
    timeout: object = None
    priority: object = None


class Header(msgspec.Struct, frozen=True, gc=False):
    """The whole JSON of a request."""

    inputs: list[HeaderInput]
    id: str | None = None
    outputs: list[HeaderOutput] | None = None
    parameters: RequestParameters | None = None


_decode = msgspec.json.Decoder(Header).decode


def decode_header(text: bytes) -> Header:
    """Return the header in `text`.

    Raises InvalidInput for anything that is not a request in valid JSON and UTF-8, no deeper than
    MAX_DEPTH; but for what is within an input's data, which its reader checks.
    """
    if len(text) <= _REMEMBERED_BYTES:
        return _decode_remembered(text)
    if len(text) >= _SPLIT_BYTES:
        skeleton, arrays = numbers.split(text)
        if arrays and b"\\" not in skeleton:
            header = _decode_skeleton(skeleton, arrays)
            if header is not None:
                return header
    return _decode_strictly(text)


def _decode_skeleton(skeleton: bytes, arrays: list[memoryview]) -> Header | None:
    """Decode what `numbers.split` made; None where only the whole text can tell what is wrong."""
    try:
        header = _decode_strictly(skeleton)
    except InvalidInput:
        return None
    inputs = []
    used = 0
    for one in header.inputs:
        index = numbers.array_index(bytes(one.data))
        if index is not None:
            one = msgspec.structs.replace(one, data=msgspec.Raw(arrays[index]))
            used += 1
        inputs.append(one)
    # An array that no input refers to was read by nobody: valid or not, nobody knows.
    return msgspec.structs.replace(header, inputs=inputs) if used == len(arrays) else None


@functools.lru_cache(maxsize=1024)
def _decode_remembered(text: bytes) -> Header:
    """Decode a short header, or find it decoded: a client sends the same one with each request.

    Headers are frozen, so one may serve many requests.
    """
    return _decode_strictly(text)


def _decode_strictly(text: bytes) -> Header:
    try:
        header = _decode(text)
        # The decoder does not look into strings that nobody asked for.
        if not text.isascii():
            text.decode("utf-8")
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the request is not as expected: {error}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise InvalidInput(f"the request is not valid JSON: {error}") from None
    if len(text) > 2 * MAX_DEPTH and text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        _check_depth(text)
    return header


def _check_depth(text: bytes) -> None:
    """Refuse valid JSON that is nested too deep: peel off its innermost brackets, again and again.

    All at the speed of C, for the text may be millions of brackets: a loop over them is not.
    """
    brackets = _STRING.sub(b"", text).translate(_AS_SQUARE, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise _too_deep()


def _too_deep() -> InvalidInput:
    return InvalidInput(f"the request is nested too deep, at most {MAX_DEPTH} levels are allowed")


def make_request(
    header: Header, inputs: list[InputTensor], *, model: str, version: str | None
) -> InferRequest:
    """Return the message that `header` and its `inputs` make; the deadline counts from now."""
    if len(inputs) > 1:
        refuse_duplicates("input", [one.name for one in inputs])
    parameters = header.parameters
    binary_default = False
    timeout_us = priority = 0
    if parameters is not None:
        binary_default = parameters.binary_data_output or False
        priority = priority_of(parameters.priority)
        timeout_us = timeout_us_of(parameters.timeout)
    return InferRequest(
        model=model,
        version=version,
        id=header.id or "",
        inputs=inputs,
        regions=_regions(header.inputs),
        outputs=_requested(header.outputs) if header.outputs else None,
        binary_default=binary_default,
        deadline_ns=nearest_deadline(0, timeout_us),
        timeout_us=timeout_us,
        priority=priority,
    )


def region_of(
    what: str, name: str, parameters: InputParameters | OutputParameters | None
) -> Region | None:
    """Return the stretch of shared memory that an input or output names; None where it has none."""
    if parameters is None or parameters.shared_memory_region is None:
        return None
    size = parameters.shared_memory_byte_size
    if size is None:
        raise InvalidInput(
            f"{what} {shown(name)} has shared_memory_region, but no shared_memory_byte_size"
        )
    return Region(parameters.shared_memory_region, parameters.shared_memory_offset or 0, size)


def _regions(inputs: list[HeaderInput]) -> dict[str, Region]:
    regions = {}
    for one in inputs:
        if one.parameters is not None:
            region = region_of("input", one.name, one.parameters)
            if region is not None:
                regions[one.name] = region
    return regions


def _requested(outputs: list[HeaderOutput]) -> list[RequestedOutput]:
    if len(outputs) > 1:
        refuse_duplicates("output", [one.name for one in outputs])
    requested = []
    for one in outputs:
        parameters = one.parameters
        # As Triton has it: `binary_data_output` speaks for unlisted outputs only.
        if parameters is None:
            requested.append(RequestedOutput(one.name, False))
            continue
        requested.append(
            RequestedOutput(
                one.name,
                parameters.binary_data or False,
                parameters.classification or 0,
                region_of("output", one.name, parameters),
            )
        )
    return requested


def refuse_duplicates(what: str, names: list[str]) -> None:
    """Raise InvalidInput where two inputs, or two outputs, have one name."""
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidInput(f"{what} {shown(name)} is given more than once")
        seen.add(name)
