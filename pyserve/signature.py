"""A model's signature: what goes in, what comes out, and what one request looks like.

`pyserve.export` writes it into the TorchScript archive as an extra file; `read_signature` takes it
out again with nothing but `zipfile`, so that looking at a file costs no import of torch.  Whether
the module in the archive keeps what its signature says is for the core to check.
"""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from pyserve.errors import LoadFailed

SIGNATURE_FILE = "pyserve/signature.json"
"""Name of the extra file, as `torch.jit.save(..., _extra_files=...)` takes it."""

FORMAT = 1
"""Version of the JSON document; raised when a reader of the old form would misunderstand."""

MAX_SIGNATURE_BYTES = 16 * 1024 * 1024
MAX_RANK = 64


class DtypeInfo(NamedTuple):
    """How one dtype of the Open Inference Protocol is spelt elsewhere.

    size: bytes per element, 0 for BYTES, whose elements differ in length.
    numpy: name of the numpy dtype, None where numpy has none.
    torch: attribute of the torch module (`torch.float32`), None for BYTES.
    """

    size: int
    numpy: str | None
    torch: str | None


DTYPES: dict[str, DtypeInfo] = {
    "BOOL": DtypeInfo(1, "bool", "bool"),
    "UINT8": DtypeInfo(1, "uint8", "uint8"),
    "UINT16": DtypeInfo(2, "uint16", "uint16"),
    "UINT32": DtypeInfo(4, "uint32", "uint32"),
    "UINT64": DtypeInfo(8, "uint64", "uint64"),
    "INT8": DtypeInfo(1, "int8", "int8"),
    "INT16": DtypeInfo(2, "int16", "int16"),
    "INT32": DtypeInfo(4, "int32", "int32"),
    "INT64": DtypeInfo(8, "int64", "int64"),
    "FP16": DtypeInfo(2, "float16", "float16"),
    "BF16": DtypeInfo(2, None, "bfloat16"),
    "FP32": DtypeInfo(4, "float32", "float32"),
    "FP64": DtypeInfo(8, "float64", "float64"),
    "BYTES": DtypeInfo(0, None, None),
}


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, dtype and shape of one input or output, without the batch dimension; -1 is any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a tensor's name must not be empty")
        _check_dtype(self.name, self.dtype)
        if len(self.shape) > MAX_RANK:
            raise ValueError(
                f'tensor "{self.name}" has {len(self.shape)} dimensions, at most {MAX_RANK} allowed'
            )
        if any(size < -1 for size in self.shape):
            raise ValueError(
                f'tensor "{self.name}" has shape {list(self.shape)}, '
                "expected sizes of 0 or more, or -1 for any"
            )


class UntypedSpec(TensorSpec, frozen=True):
    """A tensor of which only the name is known: nobody declared a signature."""

    dtype: str = ""
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Nothing to check."""


class ExampleTensor(msgspec.Struct, frozen=True):
    """One input of an example request, batch dimension included where the model is batched.

    data: little-endian, C order; for BYTES each element after its length as 4 bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        _check_dtype("example", self.dtype)
        if len(self.shape) > MAX_RANK or any(size < 0 for size in self.shape):
            raise ValueError(f"an example has the shape {list(self.shape)[:MAX_RANK]}")
        elements = 1
        for size in self.shape:
            elements *= size
        if self.dtype == "BYTES":
            found = len(decode_bytes_elements(self.data))
            if found != elements:
                raise ValueError(f"an example has {found} strings, its shape says {elements}")
        elif len(self.data) != elements * DTYPES[self.dtype].size:
            raise ValueError(
                f"an example has {len(self.data)} bytes, "
                f"its shape says {elements * DTYPES[self.dtype].size}"
            )


Example: TypeAlias = dict[str, ExampleTensor]
"""One request's worth of inputs, by name."""


class Provenance(msgspec.Struct, frozen=True):
    """Where a file came from: for people who read `pyserve inspect`, nothing acts on it."""

    torch_version: str
    pyserve_version: str
    source_hash: str
    """SHA-256 (hexadecimal) of the module's TorchScript code and its constant tables."""
    created: str
    """ISO 8601 in UTC."""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a server wants to know about a model before it runs it.

    batched: dimension 0 of every input and output is the batch, and no shape here mentions it.
    max_batch_size: most rows of one call; None leaves the choice to the server.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool
    max_batch_size: int | None = None
    examples: tuple[Example, ...] = ()
    provenance: Provenance | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(
                f"the signature has format {self.format}, this pyserve reads {FORMAT}: "
                "install a newer pyserve or export the model again"
            )
        for kind, specs in (("input", self.inputs), ("output", self.outputs)):
            _check_distinct(kind, specs)
        if self.max_batch_size is not None and self.max_batch_size < 1:
            raise ValueError(f"max_batch_size is {self.max_batch_size}, expected 1 or more")
        for example in self.examples:
            self._check_example(example)

    def _check_example(self, example: Mapping[str, ExampleTensor]) -> None:
        names = [spec.name for spec in self.inputs]
        if set(example) != set(names):
            raise ValueError(f"an example has the inputs {sorted(example)}, expected {names}")
        for spec in self.inputs:
            tensor = example[spec.name]
            expected = (-1, *spec.shape) if self.batched else spec.shape
            if tensor.dtype != spec.dtype or not fits(tensor.shape, expected):
                raise ValueError(
                    f'the example for "{spec.name}" is {tensor.dtype} {list(tensor.shape)}, '
                    f"expected {spec.dtype} {list(expected)}"
                )


def fits(shape: Sequence[int], expected: Sequence[int]) -> bool:
    """Whether a shape has the rank and the sizes expected, where -1 accepts any size."""
    return len(shape) == len(expected) and all(
        want in (-1, size) for size, want in zip(shape, expected, strict=True)
    )


def encode_bytes_elements(elements: Sequence[bytes]) -> bytes:
    """BYTES as they travel: every element after its length as 4 little-endian bytes."""
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def decode_bytes_elements(data: bytes) -> list[bytes]:
    """The elements of a BYTES tensor; ValueError where lengths and bytes disagree."""
    elements = []
    position = 0
    while position < len(data):
        start = position + 4
        position = start + int.from_bytes(data[position:start], "little")
        if position > len(data):
            raise ValueError("a BYTES tensor ends in the middle of an element")
        elements.append(data[start:position])
    return elements


def encode_signature(signature: Signature) -> bytes:
    """The JSON document for the archive; examples travel as base64."""
    return msgspec.json.encode(signature)


def decode_signature(document: bytes) -> Signature:
    """The signature in a JSON document; ValueError says what is wrong with it."""
    try:
        return _decoder.decode(document)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None


def read_signature(path: str | Path) -> Signature | None:
    """Take the signature out of a TorchScript file; None where the file carries none.

    Raises LoadFailed, with the file's name and one line of reason, for anything that is not a whole
    TorchScript archive or whose signature is damaged.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            member = _find_signature(path.name, archive)
            if member is None:
                return None
            if member.file_size > MAX_SIGNATURE_BYTES:
                raise LoadFailed(
                    f"{path.name}: its signature has {member.file_size} bytes, "
                    f"at most {MAX_SIGNATURE_BYTES} are read"
                )
            document = archive.read(member)
    except FileNotFoundError:
        raise LoadFailed(f"{path.name}: there is no such file") from None
    except OSError as error:
        raise LoadFailed(f"{path.name}: cannot be read: {error.strerror or error}") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        NotImplementedError,
        ValueError,
    ):
        raise LoadFailed(
            f"{path.name}: not a whole TorchScript file (cut off, damaged or something else); "
            "write it again with `pyserve export` or torch.jit.save"
        ) from None
    try:
        return decode_signature(document)
    except ValueError as error:
        raise LoadFailed(f"{path.name}: its signature is damaged: {error}") from None


_decoder = msgspec.json.Decoder(Signature)


def _find_signature(file_name: str, archive: zipfile.ZipFile) -> zipfile.ZipInfo | None:
    """The archive's member that holds the signature; refuses what is no TorchScript archive."""
    # All members lie in one folder, whose name is whatever the file was called when written.
    members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if "constants.pkl" not in members or "data.pkl" not in members:
        kind = "a file written by torch.save" if "data.pkl" in members else "a zip archive"
        raise LoadFailed(
            f"{file_name}: {kind}, but not TorchScript; "
            "write the module with `pyserve export` or torch.jit.save"
        )
    return members.get(f"extra/{SIGNATURE_FILE}")


def _check_dtype(name: str, dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(
            f'tensor "{name}" has dtype {dtype[:40]!r}, expected one of {", ".join(DTYPES)}'
        )


def _check_distinct(kind: str, specs: Sequence[TensorSpec]) -> None:
    seen = set()
    for spec in specs:
        if spec.name in seen:
            raise ValueError(f'two {kind}s are named "{spec.name}"')
        seen.add(spec.name)
