"""The core's JSON numbers as Python sees them, against Python's own json module and numpy."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserve import _native

NUMPY = {
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
INTEGERS = [name for name in NUMPY if "INT" in name]
FLOATS = [name for name in NUMPY if "FP" in name]


def parse(text: str, datatype: str, count: int) -> "np.ndarray[tuple[int], np.dtype[np.generic]]":
    data = _native.core().parse_json_numbers(text.encode(), datatype, count)
    return np.frombuffer(data, NUMPY[datatype])


@given(st.sampled_from(FLOATS), st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_floats_round_as_numpy_rounds_them(datatype: str, values: list[float]) -> None:
    with np.errstate(over="ignore"):
        expected = np.array(values, np.float64).astype(NUMPY[datatype])
    text = json.dumps(values)
    if np.isfinite(expected).all():
        got = parse(text, datatype, len(values))
        if datatype == "FP32":
            # Python rounds twice, to double and then to float; JSON's digits are rounded once.
            np.testing.assert_array_max_ulp(got, expected, 1)
        else:
            assert got.tobytes() == expected.tobytes()
    else:
        with pytest.raises(ValueError, match="out of range"):
            parse(text, datatype, len(values))


@given(st.sampled_from(INTEGERS), st.data())
def test_integers_are_exact_or_refused(datatype: str, data: st.DataObject) -> None:
    limits = np.iinfo(NUMPY[datatype])
    around = st.integers(int(limits.min) - 3, int(limits.max) + 3) | st.integers()
    values = data.draw(st.lists(around))
    if all(limits.min <= value <= limits.max for value in values):
        assert parse(json.dumps(values), datatype, len(values)).tolist() == values
    else:
        with pytest.raises(ValueError, match="out of range"):
            parse(json.dumps(values), datatype, len(values))


@given(st.sampled_from(list(NUMPY)), st.binary(max_size=400))
def test_what_is_formatted_reads_back_bit_for_bit(datatype: str, data: bytes) -> None:
    size = np.dtype(NUMPY[datatype]).itemsize
    data = data[: len(data) // size * size]
    values = np.frombuffer(data, NUMPY[datatype])
    if datatype in FLOATS and not np.isfinite(values).all():
        with pytest.raises(ValueError, match="ask for binary data"):
            _native.core().format_json_numbers(datatype, data)
        return
    text = _native.core().format_json_numbers(datatype, data)
    assert _native.core().parse_json_numbers(text, datatype, len(values)) == data
    assert len(json.loads(text)) == len(values)
    if datatype == "FP64":
        assert json.loads(text) == values.tolist()


Tree = float | list["Tree"]
TREES = st.recursive(
    st.floats(allow_nan=False, allow_infinity=False), lambda inner: st.lists(inner, max_size=4)
)


def leaves(tree: Tree) -> list[float]:
    if isinstance(tree, list):
        return [leaf for inner in tree for leaf in leaves(inner)]
    return [tree]


@given(st.lists(TREES), st.sampled_from([None, 0, 2, "\t"]))
def test_any_nesting_gives_the_leaves_in_order(tree: list[Tree], indent: int | str | None) -> None:
    expected = leaves(tree)
    assert parse(json.dumps(tree, indent=indent), "FP64", len(expected)).tolist() == expected


@given(st.text(alphabet='[]{},.-+eE0123456789 tfn"\n', max_size=40), st.integers(0, 4))
def test_texts_are_accepted_only_where_python_accepts_them(text: str, count: int) -> None:
    try:
        data = _native.core().parse_json_numbers(text.encode(), "FP64", count)
    except ValueError:
        return
    tree = json.loads(text, parse_int=float)
    assert np.frombuffer(data, np.float64).tolist() == leaves(tree)
    assert all(math.isfinite(leaf) for leaf in leaves(tree))


def test_booleans_are_words_or_bits() -> None:
    core = _native.core()
    assert core.parse_json_numbers(b"[true,[false,1],0]", "BOOL", 4) == b"\1\0\1\0"
    assert core.format_json_numbers("BOOL", b"\1\0") == b"[true,false]"


def test_bfloat16_is_read_and_written() -> None:
    core = _native.core()
    assert core.parse_json_numbers(b"[1.0,-2.5]", "BF16", 2) == b"\x80\x3f\x20\xc0"
    assert core.format_json_numbers("BF16", b"\x80\x3f\x20\xc0") == b"[1.0,-2.5]"
