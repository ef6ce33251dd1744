"""pyserve.wire.numbers: long arrays are taken out of a request without changing its meaning."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_bodies import Json, body, numbers, read, refused

from pyserve.wire import header
from pyserve.wire.numbers import array_index, split


def test_arrays_leave_a_skeleton_behind() -> None:
    skeleton, arrays = split(b'{"a":1,"data" : [1, [2]] ,"b":[3],"data":[]}')
    assert skeleton == b'{"a":1,"data" : [0] ,"b":[3],"data":[1]}'
    assert [bytes(array) for array in arrays] == [b"[1, [2]]", b"[]"]


def test_strings_and_keys_that_only_look_like_data_stay() -> None:
    text = b'{"data":["a"],"my data":[1],"data":7,"Data":[1],"x":"data"}'
    assert split(text) == (text, [])


def test_a_placeholder_is_an_index_and_nothing_else() -> None:
    assert array_index(b"[12]") == 12
    for text in (b"", b"[]", b"[-1]", b"[ 1]", b"[1.0]", b"[1,2]", b"7", b"[" + b"9" * 50 + b"]"):
        assert array_index(text) is None


LONG = 500


def test_long_arrays_are_read_as_short_ones_are() -> None:
    values = [index / 7 for index in range(LONG)]
    first = numbers(shape=[LONG], data=values)
    second = numbers(name="y", datatype="INT64", shape=[2, LONG], data=[list(range(LONG))] * 2)
    words = numbers(name="z", datatype="BYTES", shape=[LONG], data=["w"] * LONG)
    request = read(body(first, second, words, numbers(name="one", shape=[1], data=[0])))
    assert memoryview(request.inputs[0].data).cast("f").tolist() == pytest.approx(values)
    assert memoryview(request.inputs[1].data).cast("q").tolist() == [*range(LONG), *range(LONG)]
    assert bytes(request.inputs[2].data) == b"\1\0\0\0w" * LONG
    assert bytes(request.inputs[3].data) == bytes(4)


def padded(*inputs: Json, **fields: Any) -> bytes:
    """A body long enough to be split."""
    return body(numbers(name="long", shape=[LONG], data=[0.5] * LONG), *inputs, **fields)


@pytest.mark.parametrize(
    "id_",
    ['"data":[1]', '\\"data":[1]}', "\\", '"', "[0]", '{"data":[0', 'é"data" : [', '},{"data":[0]'],
)
def test_an_array_within_a_string_is_no_array(id_: str) -> None:
    request = read(padded(numbers(), id=id_))
    assert request.id == id_
    assert memoryview(request.inputs[1].data).cast("f").tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("bad", ["[1,,2]", "[NaN]", "[01]", "[1]]", "[[1]", "[1", "[-]", "[1 2]"])
def test_a_bad_array_is_refused_even_where_nobody_reads_it(bad: str) -> None:
    good = padded(parameters={"data": [7]})
    assert len(read(good).inputs) == 1
    assert refused(good.replace(b"[7]", bad.encode()))
    assert refused(padded().replace(b'"data": [', b'"data": %b, "data": [' % bad.encode()))


def test_escaped_keys_are_keys_all_the_same() -> None:
    text = padded(numbers(data=[7, 8, 9, 0])).replace(b'"data": [7', b'"d\\u0061ta": [7')
    assert memoryview(read(text).inputs[1].data).cast("f").tolist() == [7, 8, 9, 0]


def test_an_array_at_an_escaped_key_is_not_taken_for_a_placeholder() -> None:
    text = body(numbers(shape=[1], data=[0]), parameters={"data": [9] * LONG})
    text = text.replace(b'"data": [0]', b'"d\\u0061ta":[0]')
    assert bytes(read(text).inputs[0].data) == bytes(4)


def test_a_mixture_of_brackets_and_strings_is_told_apart() -> None:
    words = numbers(name="z", datatype="BYTES", shape=[2], data=[["a"], "b"])
    assert bytes(read(padded(words)).inputs[1].data) == b"\1\0\0\0a\1\0\0\0b"
    assert "expected a string" in refused(padded({**words, "data": [[1], "b"]}))


def test_an_input_whose_array_is_broken_off_is_refused() -> None:
    text = padded(numbers())
    for size in range(len(text) - 60, len(text)):
        assert refused(text[:size])


ARRAYS = st.recursive(
    st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('"\\[]{}d', max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(
    st.sampled_from(["data", "shape", "x", "\\data", 'q"data']),
    ARRAYS | st.dictionaries(st.sampled_from(["data", "x"]), ARRAYS, max_size=2),
    max_size=4,
)


@given(st.lists(OBJECTS, max_size=4), st.sampled_from([None, 1]))
def test_a_split_document_means_what_the_whole_one_does(
    objects: list[dict[str, Any]], indent: int | None
) -> None:
    text = json.dumps(objects, indent=indent).encode()
    skeleton, arrays = split(text)
    if b"\\" in skeleton:
        return  # the caller goes back to the whole text

    def restore(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {inner: restore(one, inner) for inner, one in value.items()}
        if isinstance(value, list):
            if key == "data" and array_index(json.dumps(value).encode()) is not None:
                return json.loads(bytes(arrays[value[0]]))
            return [restore(one) for one in value]
        return value

    try:
        document = json.loads(skeleton)
    except ValueError:
        return  # an array held both brackets and strings: the caller goes back here, too
    assert restore(document) == objects


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=8), st.data())
def test_split_or_not_a_request_reads_the_same(values: list[float], data: st.DataObject) -> None:
    text = bytearray(body(numbers(shape=[len(values)], data=values), id="1"))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(st.sampled_from(list(b'"\\[]{},:1 d')))

    def outcome() -> tuple[object, ...]:
        try:
            one = read(bytes(text))
            return tuple((each.name, each.shape, bytes(each.data)) for each in one.inputs)
        except header.InvalidInput:
            return ("refused",)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(header, "_SPLIT_BYTES", 0)
        split_outcome = outcome()
    assert split_outcome == outcome()


class Counted(bytes):
    """Bytes that know how many of them were looked at."""

    looked_at = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        stop = len(self) if end is None else end
        found = super().find(sub, start, stop)
        self.looked_at += (stop if found < 0 else found) - start
        return found

    def rfind(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        stop = len(self) if end is None else end
        found = super().rfind(sub, start, stop)
        self.looked_at += stop - (start if found < 0 else found)
        return found


@pytest.mark.parametrize(
    "piece",
    ['{"data":[', '"data":[1,', '"data":[]', '"data":[', '\\"data"', '"data":[1]],', '{"data":[}"'],
)
def test_hostile_text_is_looked_at_a_few_times_only(piece: str) -> None:
    text = Counted(b'{"inputs":[' + piece.encode() * 2000 + b"}")
    split(text)
    assert 0 < text.looked_at <= 4 * len(text)
