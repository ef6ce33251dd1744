"""pyserve.wire.header: the JSON of a request, well-formed or hostile."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_bodies import blob, body, numbers, read, read_binary, refused, refused_binary

from pyserve.errors import InvalidInput
from pyserve.messages import Region, RequestedOutput
from pyserve.wire.header import MAX_DEPTH, decode_header


def test_a_request_says_who_it_is_and_what_it_wants_back() -> None:
    request = read(
        body(
            numbers(),
            id="7",
            outputs=[
                {"name": "a", "parameters": {"binary_data": True}},
                {"name": "b", "parameters": {"binary_data": False}},
                {"name": "c"},
            ],
            parameters={"binary_data_output": True, "priority": 3, "custom": [1]},
            unknown={"key": None},
        )
    )
    assert (request.model, request.version, request.id, request.priority) == ("m", None, "7", 3)
    assert request.binary_default
    # As Triton has it: binary_data_output speaks for outputs that are not listed.
    assert request.outputs == [
        RequestedOutput("a", True),
        RequestedOutput("b", False),
        RequestedOutput("c", False),
    ]


@pytest.mark.parametrize("outputs", [{}, {"outputs": None}, {"outputs": []}])
def test_a_request_without_outputs_asks_for_all(outputs: dict[str, Any]) -> None:
    assert read(body(numbers(), **outputs)).outputs is None


def test_nulls_are_taken_for_absent() -> None:
    nothing = {"binary_data_output": None, "timeout": None, "priority": None}
    request = read(
        body(numbers(parameters={"binary_data_size": None}), id=None, parameters=nothing)
    )
    assert (request.id, request.binary_default, request.deadline_ns) == ("", False, 0)
    assert read(body(numbers(), parameters=None, outputs=[{"name": "y", "parameters": None}]))


def test_a_timeout_becomes_a_deadline_on_the_steady_clock() -> None:
    before = time.monotonic_ns()
    request = read(body(numbers(), parameters={"timeout": 250_000}))
    after = time.monotonic_ns()
    assert request.timeout_us == 250_000
    assert before + 250_000_000 <= request.deadline_ns <= after + 250_000_000


def test_no_timeout_is_too_long_for_the_clock() -> None:
    assert read(body(numbers(), parameters={"timeout": 2**63})).deadline_ns == 2**63 - 1
    assert read(body(numbers(), parameters={"timeout": 0})).deadline_ns == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"id": 7},
        {"inputs": {}},
        {"inputs": [7]},
        {"inputs": None},
        {"outputs": "y"},
        {"outputs": [{}]},
        {"outputs": [{"name": 1}]},
        {"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
        {"parameters": []},
        {"parameters": {"binary_data_output": "yes"}},
    ],
)
def test_fields_of_the_wrong_type_are_refused(fields: dict[str, Any]) -> None:
    assert "not as expected" in refused(json.dumps({"inputs": [numbers()], **fields}).encode())


@pytest.mark.parametrize("key", ["timeout", "priority"])
@pytest.mark.parametrize("value", [-1, 1.5, 1e300, True, "1000", [1], {}])
def test_a_timeout_or_priority_of_the_wrong_kind_is_refused(key: str, value: object) -> None:
    assert refused(body(numbers(), parameters={key: value})).startswith(f"{key} is ")


def test_a_priority_beyond_the_lowest_is_refused() -> None:
    said = refused(body(numbers(), parameters={"priority": 4}))
    assert said == "priority is 4, expected 1 (high), 2 (normal), 3 (low) or 0 (the model's)"


@pytest.mark.parametrize("key", ["name", "datatype", "shape", "data"])
def test_an_input_without_one_of_its_keys_is_refused(key: str) -> None:
    assert key in refused(body(numbers(**{key: None})))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"x",
        b"null",
        b"[]",
        b"{}",
        b'{"inputs":[]',
        b'{"inputs":[],}',
        b'{"inputs":[]} x',
        b'{"inputs":[]}\0',
        b"{inputs:[]}",
        b"{'inputs':[]}",
        b'\xef\xbb\xbf{"inputs":[]}',
        b'{"inputs":[],"id":"\n"}',
        b'{"inputs":[],"id":"\\ud800"}',
        b'{"inputs":[],"id":"\\q"}',
        b'{"inputs":[],"x":NaN}',
        b'{"inputs":[],"x":01}',
        b'{"inputs":[],"x":tru}',
    ],
)
def test_what_is_no_json_request_is_refused(text: bytes) -> None:
    assert refused(text).startswith("the request is not")


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs":[],"id":"\xff"}',
        b'{"inputs":[],"unknown":"\xff"}',
        b'{"inputs":[],"parameters":{"unknown":"\xc3("}}',
        b'{"inputs":[],"unknown":"\xed\xa0\x80"}',
        b'{"inputs":[],"\xff":0}',
    ],
)
def test_invalid_utf8_is_refused_wherever_it_is(text: bytes) -> None:
    assert refused(text).startswith("the request is not")


def test_no_prefix_of_a_request_is_a_request() -> None:
    text = body(numbers(name="é"), id="1", parameters={"timeout": 1}, outputs=[{"name": "y"}])
    for size in range(len(text)):
        assert refused(text[:size])


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_fifty_deep_is_fine_and_deeper_than_a_hundred_is_not(opening: str) -> None:
    closing = "]" if opening == "[" else "}"

    def nested(depth: int) -> bytes:
        inner = opening * depth + "0" + closing * depth
        return b'{"inputs":[],"parameters":{"x":%b}}' % inner.encode()

    assert read(nested(50)).inputs == []
    assert read(nested(MAX_DEPTH - 2)).inputs == []
    for depth in (MAX_DEPTH - 1, MAX_DEPTH, 500, 5000, 250_000):
        assert "nested too deep" in refused(nested(depth))


def test_mixed_brackets_count_towards_the_depth_and_brackets_in_strings_do_not() -> None:
    text = '{"inputs":[],"x":' + '{"a":[' * 60 + "0" + "]}" * 60 + "}"
    assert "nested too deep" in refused(text.encode())
    harmless = json.dumps({"inputs": [], "x": '\\"[{' * 500, "y": [[[]], {}] * 200})
    assert read(harmless.encode()).inputs == []


def test_nested_data_of_many_rows_is_not_deep() -> None:
    rows = numbers(shape=[300, 2], data=[[1, 2]] * 300)
    assert read(body(rows)).inputs[0].shape == (300, 2)


@pytest.mark.parametrize("depth", [200, 100_000])
def test_data_nested_too_deep_is_refused(depth: int) -> None:
    for datatype in ("FP32", "BYTES"):
        head = f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[1],"data":'
        text = head + "[" * depth + "1" + "]" * depth + "}]}"
        assert "deep" in refused(text.encode())


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"data":[', b'"data":[', b'"\\"data":['])
def test_a_flood_of_openings_is_refused_quickly(opening: bytes) -> None:
    assert refused(b'{"inputs":[' + opening * (250_000 // len(opening)))


def test_duplicates_are_refused() -> None:
    assert "more than once" in refused(body(numbers(), numbers(data=[0, 0, 0, 0])))
    outputs = [{"name": "y"}, {"name": "z"}, {"name": "y"}]
    assert refused(body(numbers(), outputs=outputs)) == 'output "y" is given more than once'


SHARED: dict[str, Any] = {"shared_memory_region": "r", "shared_memory_byte_size": 16}


def test_inputs_and_outputs_may_lie_in_shared_memory() -> None:
    output = {"name": "y", "parameters": SHARED | {"shared_memory_offset": 32}}
    text = body(numbers(data=None, parameters=SHARED), numbers(name="b"), outputs=[output])
    for request in (read(text), read_binary(text, b"")):
        assert request.regions == {"x": Region("r", 0, 16)}
        assert [len(one.data) for one in request.inputs] == [0, 16]
        assert request.outputs == [RequestedOutput("y", False, 0, Region("r", 32, 16))]


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (numbers(data=None, parameters=SHARED | {"shared_memory_byte_size": 15}), "expected 16"),
        (numbers(data=None, parameters=SHARED | {"shared_memory_byte_size": 17}), "expected 16"),
        (numbers(data=None, parameters=SHARED | {"shared_memory_byte_size": 2**70}), "expected 16"),
        (
            numbers(data=None, parameters={"shared_memory_region": "r"}),
            "no shared_memory_byte_size",
        ),
        (numbers(parameters=SHARED), "both data and shared memory"),
        (numbers(data=None, shape=[2**40, 2**40], parameters=SHARED), "more elements"),
        (numbers(data=None, datatype="FP1", parameters=SHARED), "datatype"),
        (numbers(data=None, parameters=SHARED | {"shared_memory_byte_size": -1}), "as expected"),
        (numbers(data=None, parameters=SHARED | {"shared_memory_offset": -1}), "as expected"),
        (numbers(data=None, parameters=SHARED | {"shared_memory_offset": 0.5}), "as expected"),
    ],
)
def test_shared_memory_that_does_not_fit_the_input_is_refused(one: Any, words: str) -> None:
    assert words in refused(body(one))


def test_an_input_is_not_in_shared_memory_and_behind_the_json() -> None:
    one = blob(16, parameters=SHARED | {"binary_data_size": 16})
    assert "both binary_data_size and shared" in refused_binary(body(one), bytes(16))


def test_an_output_may_be_asked_for_by_class() -> None:
    top = {"name": "y", "parameters": {"classification": 3, "binary_data": True}}
    assert read(body(numbers(), outputs=[top])).outputs == [RequestedOutput("y", True, 3)]
    for count in (-1, 1.5, "3"):
        top = {"name": "y", "parameters": {"classification": count}}
        assert "not as expected" in refused(body(numbers(), outputs=[top]))


def test_a_long_name_does_not_crowd_out_the_message() -> None:
    message = refused(body(numbers(name="n" * 5000, shape=[1, -4])))
    assert len(message) < 200
    assert "negative" in message


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,\\ 0aé', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        header = decode_header(text)
    except InvalidInput:
        return
    assert json.loads(text)["inputs"] is not None
    assert isinstance(header.inputs, list)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
)
KEYS = st.sampled_from(
    ["inputs", "outputs", "id", "parameters", "name", "datatype", "shape", "data"]
)
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(
        VALUES,
        lambda inner: st.lists(st.dictionaries(KEYS, inner, max_size=4), max_size=3),
        max_leaves=8,
    ),
    max_size=5,
)


@given(DOCUMENTS)
def test_any_json_is_a_request_or_refused(document: dict[str, Any]) -> None:
    text = json.dumps(document).encode()
    for decode in (read, lambda header: read_binary(header, b"")):
        try:
            decode(text)
        except InvalidInput as error:
            assert error.message


@given(st.data())
def test_a_mutated_request_is_read_or_refused(data: st.DataObject) -> None:
    good = body(numbers(), blob(8, name="b"), id="é", parameters={"timeout": 5})
    text = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_binary(bytes(text), bytes(8))
    except InvalidInput as error:
        assert error.message
