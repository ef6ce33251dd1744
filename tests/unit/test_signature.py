"""pyserve.signature: the JSON document, and finding it in files of every kind."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserve.errors import LoadFailed
from pyserve.signature import (
    DTYPES,
    MAX_SIGNATURE_BYTES,
    SIGNATURE_FILE,
    ExampleTensor,
    Provenance,
    Signature,
    TensorSpec,
    decode_bytes_elements,
    decode_signature,
    encode_bytes_elements,
    encode_signature,
    fits,
    read_signature,
)

SIGNATURE = Signature(
    inputs=(TensorSpec("image", "FP32", (1, -1)), TensorSpec("text", "BYTES", ())),
    outputs=(TensorSpec("logits", "FP32", (10,)),),
    batched=True,
    max_batch_size=32,
    examples=(
        {
            "image": ExampleTensor("FP32", (1, 1, 2), bytes(range(8))),
            "text": ExampleTensor("BYTES", (1,), encode_bytes_elements(["é".encode()])),
        },
    ),
    provenance=Provenance("2.13.0", "0.1.0", "ab" * 32, "2026-01-02T03:04:05Z"),
)


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    """A zip laid out as torch.jit.save does it, as far as read_signature looks."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"model/{name}", data)
    return path


def torchscript_like(path: Path, document: bytes | None) -> Path:
    members = {"data.pkl": b"", "constants.pkl": b""}
    if document is not None:
        members[f"extra/{SIGNATURE_FILE}"] = document
    return write_archive(path, members)


def test_signature_survives_the_round_trip() -> None:
    assert decode_signature(encode_signature(SIGNATURE)) == SIGNATURE


def test_signature_is_found_in_an_archive(tmp_path: Path) -> None:
    path = torchscript_like(tmp_path / "model.pt", encode_signature(SIGNATURE))
    assert read_signature(path) == SIGNATURE
    assert read_signature(str(path)) == SIGNATURE


def test_archive_without_a_signature_gives_none(tmp_path: Path) -> None:
    assert read_signature(torchscript_like(tmp_path / "model.pt", None)) is None


def test_missing_file_is_said_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"^model\.pt: there is no such file$"):
        read_signature(tmp_path / "model.pt")


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="cannot be read"):
        read_signature(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x02." * 100])
def test_file_that_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(LoadFailed, match="not a whole TorchScript file"):
        read_signature(path)


def test_archive_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = torchscript_like(tmp_path / "whole.pt", encode_signature(SIGNATURE)).read_bytes()
    path = tmp_path / "model.pt"
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(LoadFailed):
            read_signature(path)


def test_damaged_bytes_never_raise_anything_but_load_failed(tmp_path: Path) -> None:
    whole = torchscript_like(tmp_path / "whole.pt", encode_signature(SIGNATURE)).read_bytes()
    path = tmp_path / "model.pt"
    refusals = []
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read_signature(path)
        except LoadFailed as error:
            refusals.append(str(error))
    assert len(refusals) > len(whole) // 2
    assert not any("\n" in refusal for refusal in refusals)


def test_file_of_torch_save_is_named_as_such(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "model.pt", {"data.pkl": b"", "version": b"3"})
    with pytest.raises(LoadFailed, match=r"torch\.save, but not TorchScript"):
        read_signature(path)


def test_any_other_zip_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "model.pt", {"readme.txt": b"hello"})
    with pytest.raises(LoadFailed, match="a zip archive, but not TorchScript"):
        read_signature(path)


def test_oversized_signature_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"")
        archive.writestr("model/constants.pkl", b"")
        archive.writestr(f"model/extra/{SIGNATURE_FILE}", b" " * (MAX_SIGNATURE_BYTES + 1))
    with pytest.raises(LoadFailed, match=f"at most {MAX_SIGNATURE_BYTES} are read"):
        read_signature(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": None}, "inputs"),
        ({"format": 99}, "export the model again"),
        ({"max_batch_size": 0}, "max_batch_size is 0"),
        ({"inputs": [{"name": "x", "dtype": "FP12", "shape": []}]}, "expected one of BOOL"),
        ({"inputs": [{"name": "", "dtype": "FP32", "shape": []}]}, "must not be empty"),
        ({"inputs": [{"name": "x", "dtype": "FP32", "shape": [-2]}]}, "-1 for any"),
        ({"inputs": [{"name": "x", "dtype": "FP32", "shape": [1] * 65}]}, "65 dimensions"),
        ({"inputs": [{"name": "x", "dtype": "FP32", "shape": [], "shap": 1}]}, "shap"),
        ({"outputs": [{"name": "y", "dtype": "FP32", "shape": []}] * 2}, "two outputs"),
        ({"examples": [{}]}, "expected \\['image', 'text'\\]"),
        ({"batched": "yes"}, "batched"),
    ],
)
def test_wrong_document_says_what_is_wrong(change: dict[str, object], message: str) -> None:
    document = json.loads(encode_signature(SIGNATURE)) | change
    with pytest.raises(ValueError, match=message):
        decode_signature(json.dumps(document).encode())


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_damaged_document_in_a_good_archive_is_load_failed(tmp_path: Path, document: bytes) -> None:
    path = torchscript_like(tmp_path / "model.pt", document)
    with pytest.raises(LoadFailed, match="its signature is damaged"):
        read_signature(path)


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [
        ("FP32", (2,), b"1234"),
        ("FP32", (-1,), b""),
        ("BYTES", (2,), encode_bytes_elements([b"a"])),
        ("BYTES", (1,), b"\x05\x00\x00\x00abc"),
        ("BYTES", (1,), b"\x00\x00"),
        ("FP32", (2**62, 2**62), b""),
    ],
)
def test_example_whose_bytes_do_not_fit_its_shape_is_refused(
    dtype: str, shape: tuple[int, ...], data: bytes
) -> None:
    with pytest.raises(ValueError, match=r"example|BYTES"):
        ExampleTensor(dtype, shape, data)


def test_example_that_the_specs_do_not_accept_is_refused() -> None:
    with pytest.raises(ValueError, match=r"FP32 \[3\], expected FP32 \[-1, 3\]"):
        Signature(
            inputs=(TensorSpec("x", "FP32", (3,)),),
            outputs=(),
            batched=True,
            examples=({"x": ExampleTensor("FP32", (3,), bytes(12))},),
        )


@given(st.lists(st.binary(max_size=40)))
def test_bytes_elements_survive_the_round_trip(elements: list[bytes]) -> None:
    assert decode_bytes_elements(encode_bytes_elements(elements)) == elements


@given(st.binary(max_size=60))
def test_any_bytes_are_elements_or_a_value_error(data: bytes) -> None:
    try:
        elements = decode_bytes_elements(data)
    except ValueError:
        return
    assert encode_bytes_elements(elements) == data


def test_shapes_fit_by_rank_and_size() -> None:
    assert fits((3, 4), (-1, 4))
    assert not fits((3, 5), (-1, 4))
    assert not fits((3,), (-1, 4))


def test_importing_signature_imports_no_torch() -> None:
    code = "import sys, pyserve.signature; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_dtype_sizes_agree_with_numpy_and_torch() -> None:
    import numpy as np
    import torch

    for info in DTYPES.values():
        if info.numpy is not None:
            assert np.dtype(info.numpy).itemsize == info.size
        if info.torch is not None:
            assert getattr(torch, info.torch).itemsize == info.size
