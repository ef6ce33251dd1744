"""Files of numpy, tables and JSON arrays: rows of numbers, and lies about their size refused."""

import io
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from processing_model import Array, Described, npy, npz, prepared, processor, takes

from pyserve.errors import ConfigError, InvalidInput
from pyserve.messages import InputTensor
from pyserve.processing import limits
from pyserve.signature import TensorSpec

GRID = takes("x", "FP32", 2, 3)
PAIR = Described((TensorSpec("a", "FP32", (2,)), TensorSpec("b", "INT64", ())))
ROWS = np.arange(12, dtype=np.float32).reshape(2, 2, 3)


# --- numpy --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        ROWS,
        ROWS.astype(">f8"),
        ROWS.astype(np.int16),
        np.asfortranarray(ROWS),
        ROWS.astype(np.float16),
    ],
)
async def test_an_npy_file_is_a_row_or_several(array: Array) -> None:
    made = processor(GRID, "preprocess: [{kind: numpy}]")
    np.testing.assert_array_equal((await prepared(made, "x", npy(array)))["x"], ROWS)
    both = await prepared(made, "x", npy(array[0]), npy(array[1]))
    np.testing.assert_array_equal(both["x"], ROWS)


async def test_an_npz_file_has_an_array_for_each_input() -> None:
    made = processor(PAIR, "preprocess: [{kind: numpy, input: arrays}]")
    assert [spec.name for spec in made.inputs] == ["arrays"]
    data = npz(a=np.ones((3, 2)), b=np.array([1, 2, 3]))
    found = await prepared(made, "arrays", data)
    assert found["a"].tolist() == [[1, 1]] * 3
    assert found["b"].tolist() == [1, 2, 3]


async def test_other_inputs_may_come_as_tensors() -> None:
    made = processor(PAIR, "preprocess: [{kind: numpy, input: a}]")
    assert [(spec.name, spec.dtype) for spec in made.inputs] == [("a", "BYTES"), ("b", "INT64")]
    data = npy(np.zeros(2))
    rows = len(data).to_bytes(4, "little") + data
    sent = [InputTensor("a", "BYTES", (1,), rows), InputTensor("b", "INT64", (1,), bytes(8))]
    assert {one.name: one.shape for one in await made.prepare(sent)} == {"a": (1, 2), "b": (1,)}


async def test_a_model_without_a_batch_takes_one_array() -> None:
    made = processor(takes("x", "FP32", -1, 3, batched=False), "preprocess: [{kind: numpy}]")
    assert (await prepared(made, "x", npy(ROWS[0])))["x"].shape == (2, 3)
    with pytest.raises(InvalidInput, match="has 2 rows, the model takes at most 1"):
        await prepared(made, "x", npy(ROWS[0]), npy(ROWS[1]))


def claiming(shape: str, dtype: str = "<f4", body: bytes = b"") -> bytes:
    """An npy file with any header."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    header = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


def zipped(*names: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in names:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes that are no npy or npz file"),
        (b"\x93NUMPY", "a damaged npy header"),
        (b"\x93NUMPY\x09\x00\x00\x00", "a damaged npy header"),
        (claiming("(2, 3)", body=bytes(20)), "its header says [2, 3] of float32, 20 bytes follow"),
        (claiming("(2**40,)"), "a damaged npy header"),
        (claiming("(1099511627776, 1099511627776)"), "0 bytes follow"),
        (claiming("(0, -1)"), "a damaged npy header"),
        (claiming("(2, 3)", "|O", bytes(24)), "holds something else than numbers"),
        (claiming("(2, 3)", "|S4", bytes(24)), "holds something else than numbers"),
        (claiming("()" + "(" * 50), "a damaged npy header"),
        (npy(np.array([{}], object), allow_pickle=True), "holds something else than numbers"),
        (npy(np.zeros((3, 2))), '"x" has shape [3, 2], expected [2, 3], or several rows'),
        (npy(np.zeros((9, 2, 3))), "the rows become more than 8"),
        (npy(np.zeros((2, 3), complex)), "holds something else than numbers"),
        (npz(y=ROWS), "holds the arrays y, expected x"),
        (npz(x=ROWS, y=ROWS), "holds the arrays x, y, expected x"),
        (b"PK", "a damaged npz file"),
        (npz(x=ROWS)[:-30], "a damaged npz file"),
        (zipped("x.npy", content=npy(ROWS), method=zipfile.ZIP_LZMA), "in a way that is not read"),
        (zipped(*map(str, range(2000)), content=b""), "an npz file with too many arrays"),
    ],
)
async def test_a_hostile_file_of_numpy_is_refused(data: bytes, message: str) -> None:
    made = processor(GRID, "preprocess: [{kind: numpy}]")
    with pytest.raises(InvalidInput, match=r'^input "x", element 0: ') as caught:
        await prepared(made, "x", data)
    assert message in str(caught.value)


async def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pyserve.processing.numpy_files.MAX_PREPARED_BYTES", 1000)
    made = processor(takes("x", "FP32", -1), "preprocess: [{kind: numpy}]")
    assert (await prepared(made, "x", npz(x=np.zeros(100, "f4"))))["x"].shape == (1, 100)
    with pytest.raises(InvalidInput, match="unpacks to more than 1000 bytes"):
        await prepared(made, "x", npz(x=np.zeros(10_000, "f4")))


async def test_floats_do_not_become_whole_numbers() -> None:
    made = processor(takes("x", "INT64", 2), "preprocess: [{kind: numpy}]")
    with pytest.raises(InvalidInput, match='"x" is float64, which does not become INT64'):
        await prepared(made, "x", npy(np.zeros(2)))


# --- tables -------------------------------------------------------------------------------

TABLE = takes("features", "FP32", 2)
NAMED = "preprocess: [{kind: table, columns: [age, income]}]"


async def test_columns_are_found_by_their_names() -> None:
    text = b'\xef\xbb\xbfid,income,"age"\n1,2.5,30\n\n2,,40\r\n'
    found = (await prepared(processor(TABLE, NAMED), "features", text))["features"]
    np.testing.assert_array_equal(found, [[30, 2.5], [40, np.nan]])


async def test_without_a_header_columns_are_taken_as_they_stand() -> None:
    made = processor(TABLE, "preprocess: [{kind: table, header: false, delimiter: ';'}]")
    found = (await prepared(made, "features", b"1;2\n3;4", b"5;6\n"))["features"]
    assert found.tolist() == [[1, 2], [3, 4], [5, 6]]


def arrow(table: pa.Table, *, file: bool = False, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_file if file else pa.ipc.new_stream
    with make(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    return bytes(sink.getvalue())


PEOPLE = pa.table({"id": [1, 2, 3], "income": [2.5, None, 3.5], "age": [30, 40, 50]})


@pytest.mark.parametrize("file", [False, True])
async def test_arrow_comes_as_a_stream_or_a_file(file: bool) -> None:
    data = arrow(PEOPLE, file=file)
    found = (await prepared(processor(TABLE, NAMED), "features", data))["features"]
    np.testing.assert_array_equal(found, [[30, 2.5], [40, np.nan], [50, 3.5]])


async def test_two_steps_may_read_the_same_table() -> None:
    model = Described((TensorSpec("dense", "FP32", (1,)), TensorSpec("ids", "INT64", (1,))))
    made = processor(
        model,
        "preprocess: [{kind: table, input: rows, tensor: dense, columns: [income]},"
        " {kind: table, input: rows, tensor: ids, columns: [id]}]",
    )
    assert [spec.name for spec in made.inputs] == ["rows"]
    found = await prepared(made, "rows", b"id,income\n7,1.5\n")
    assert (found["dense"].tolist(), found["ids"].tolist()) == ([[1.5]], [[7]])


def batch_of(stream: bytes) -> int:
    """Where the first record batch of an Arrow stream begins."""
    return stream.index(b"\xff\xff\xff\xff", 8)


def lying_rows(rows: int) -> bytes:
    """An Arrow stream whose record batch claims other rows than it has."""
    data = arrow(pa.table({"age": [30], "income": [1.0]}))
    batch = batch_of(data)
    # A 1 of 64 bits in its metadata is a length: the batch's or a column's.
    return data[:batch] + data[batch:].replace(struct.pack("<q", 1), struct.pack("<q", rows))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no header"),
        (b"age,incom\n1,2", 'no column "income", did you mean "incom"?'),
        (b"age,age\n1,2", "two columns have one name"),
        (b"age,income\n1,2,3", "line 2 has 3 fields, expected 2"),
        (b"age,income\n1,abc", 'line 2, column "income": "abc", expected a number'),
        (b"age,income\n1,1_0", 'line 2, column "income": "1_0", expected a number'),
        (b'age,income\n1,"2', "line 2 is no CSV"),
        (b"age,income\n" + b"1,2\n" * 9, "more than 8 rows in a request"),
        (b"," * ((1 << 20) + 1), "line 1 has more than 1048576 characters"),
        (b"," * 70_000, "line 1 has more than 65536 fields"),
        (b"age,income\n\xff", "not UTF-8"),
        (arrow(PEOPLE)[:-200], "a damaged Arrow table"),
        (b"ARROW1\0\0", "an empty Arrow table"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f", "a damaged Arrow table"),
        (arrow(PEOPLE, compression="zstd"), "a compressed Arrow table"),
        (arrow(pa.table({"age": ["x"], "income": [1.0]})), '"age" is string, expected numbers'),
        (
            arrow(pa.table({"age": pa.array(["x"]).dictionary_encode(), "income": [1.0]})),
            "an Arrow table with a dictionary, expected numbers alone",
        ),
        (arrow(pa.table({"age": [None, 1], "income": [1.0, 2]})), "has nulls, which int64 cannot"),
        (arrow(pa.table({"age": range(9), "income": range(9)})), "more than 8 rows in a request"),
        (arrow(PEOPLE)[batch_of(arrow(PEOPLE)) :], "a damaged Arrow table"),
        (lying_rows(2**40), "more than 8 rows in a request"),
        (lying_rows(-1), "more than 8 rows in a request"),
        (lying_rows(7), "a damaged Arrow table"),
    ],
)
async def test_a_hostile_table_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=r'^input "features", element 0: ') as caught:
        await prepared(processor(TABLE, NAMED), "features", data)
    assert message in str(caught.value)


async def test_mutations_of_arrow_are_tables_or_refused() -> None:
    made = processor(TABLE, NAMED)
    random = np.random.default_rng(3)
    whole = arrow(PEOPLE)
    for _ in range(400):
        data = bytearray(whole)
        for place in random.integers(0, len(data), 2):
            data[place] = random.integers(0, 256)
        try:
            found = await prepared(made, "features", bytes(data))
        except InvalidInput:
            continue
        assert found["features"].shape[1] == 2


async def test_whole_numbers_stay_whole() -> None:
    made = processor(takes("x", "INT64", 1), "preprocess: [{kind: table}]")
    assert (await prepared(made, "x", b"n\n9007199254740993"))["x"].tolist() == [[2**53 + 1]]
    for text in (b"n\n1.5", b'n\n""', b"n\n" + b"9" * 5000):
        with pytest.raises(InvalidInput, match="expected a whole number of INT64"):
            await prepared(made, "x", text)
    with pytest.raises(InvalidInput, match='column "n" is float64, which does not become INT64'):
        await prepared(made, "x", arrow(pa.table({"n": [1.5]})))


# --- JSON ---------------------------------------------------------------------------------


async def test_a_json_array_is_one_row_flat_or_nested() -> None:
    made = processor(GRID, "preprocess: [{kind: json}]")
    found = await prepared(made, "x", b"[[0, 1, 2], [3, 4, 5]]", b" [6,7,8,9,10,11] ")
    np.testing.assert_array_equal(found["x"], ROWS)


async def test_a_row_of_any_length_is_as_long_as_the_array() -> None:
    made = processor(takes("x", "INT64", -1, 2), "preprocess: [{kind: json}]")
    assert (await prepared(made, "x", b"[1,2,3,4]"))["x"].tolist() == [[[1, 2], [3, 4]]]
    assert (await prepared(made, "x", b"[ ]"))["x"].shape == (1, 0, 2)
    with pytest.raises(InvalidInput, match="element 1: becomes"):
        await prepared(made, "x", b"[1,2,3,4]", b"[1,2]")


@pytest.mark.parametrize(
    "text",
    [b"", b"[1,2]", b"[1,2,3,4,5,NaN]", b"[1,2,3,4,5", b'{"a":1,"b":[1,2,3,4,5]}', b"[" * 100_000],
)
async def test_what_is_no_row_is_refused(text: bytes) -> None:
    made = processor(GRID, "preprocess: [{kind: json}]")
    with pytest.raises(InvalidInput, match=r'^input "x", element 0: '):
        await prepared(made, "x", text)


async def test_a_row_beyond_the_limit_is_not_read() -> None:
    made = processor(takes("x", "FP32", -1), "preprocess: [{kind: json}]")
    with pytest.raises(InvalidInput, match="at most 16777216 are read"):
        await prepared(made, "x", bytes(limits.MAX_JSON_BYTES + 1))


@pytest.mark.parametrize(
    ("model", "step", "message"),
    [
        (takes("x", "FP32", -1, -1), "kind: json", "leaves more than one size open"),
        (PAIR, "kind: json", "several inputs \\(a, b\\): needs input"),
        (PAIR, "kind: numpy, input: a, tensors: [c]", 'the model has no input "c"'),
        (takes("x", "FP32", 2, 2), "kind: table", "expected 1 dimensions"),
        (TABLE, "kind: table, columns: [a]", "1 columns are named"),
        (takes("x", "BYTES", 1), "kind: numpy", 'input "x" is BYTES'),
    ],
)
def test_a_step_that_does_not_fit_the_model_is_a_config_error(
    model: Described, step: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        processor(model, f"preprocess: [{{{step}}}]")
