"""Bad input over HTTP: each gets its status and a message that says what was expected and got.

After every one of them the next good request is answered right, on the same server.
"""

import gzip
import json
import zlib
from random import Random
from typing import Any

import pytest
from server_process import (
    Server,
    binary,
    both_lanes,
    floats,
    numbers,
    raw_post,
    read_reply,
    tensor,
)

pytestmark = both_lanes

GOOD = numbers(1, 2, 3, 4)
HUGE = 2**62


@pytest.fixture(autouse=True)
def still_serving(server: Server) -> Any:
    """After each test the next good request is answered right, and nothing hangs on."""
    yield
    reply = server.infer("affine", GOOD)
    assert reply.status == 200
    assert reply.json["outputs"][0]["data"] == [3, 5, 7, 9]


def with_input(**changes: object) -> dict[str, Any]:
    """A good request but for `changes` of its input."""
    return {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4]) | changes]}


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


BAD_JSON: list[tuple[str, object, list[str]]] = [
    ("wrong input name", with_input(name="z"), ['"z"', '"x"']),
    ("missing input name", {"inputs": [{"datatype": "FP32", "shape": [1], "data": [1]}]}, ["name"]),
    ("wrong dtype", with_input(datatype="INT64"), ["INT64", "FP32"]),
    ("unknown dtype", with_input(datatype="FLOAT"), ["FLOAT"]),
    ("wrong size", with_input(shape=[1, 3], data=[1, 2, 3]), ["[1, 3]", "[-1, 4]"]),
    ("wrong rank", with_input(shape=[4]), ["[4]", "[-1, 4]"]),
    ("rank 0", with_input(shape=[], data=[1]), ["[]", "[-1, 4]"]),
    ("rank 100", with_input(shape=[1] * 99 + [4]), ["100", "64"]),
    ("negative size", with_input(shape=[-1, 4]), ["-1"]),
    ("size of more than 64 bits", with_input(shape=[2**70, 4]), ["shape"]),
    ("count of more than 64 bits", with_input(shape=[HUGE, HUGE]), [str(HUGE)]),
    ("count of more than 64 bits behind a zero", with_input(shape=[0, HUGE, 8]), [str(HUGE)]),
    ("count near 64 bits", with_input(shape=[65536, 65537]), ["65537"]),
    ("sizes that are no numbers", with_input(shape=["1", 4]), ["shape"]),
    ("fractional size", with_input(shape=[1.5, 4]), ["shape"]),
    ("no shape", {"inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]}, ["shape"]),
    ("too few numbers", with_input(data=[1, 2, 3]), ["3", "4"]),
    ("too many numbers", with_input(data=[1, 2, 3, 4, 5]), ["4"]),
    ("no data", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4]}]}, ['"x"', "data"]),
    ("text for numbers", with_input(data=["1", 2, 3, 4]), ['"x"']),
    ("null for a number", with_input(data=[None, 2, 3, 4]), ['"x"']),
    ("out of range", with_input(data=[1e300, 2, 3, 4]), ["1e+300", "FP32"]),
    ("empty batch", with_input(shape=[0, 4], data=[]), ["0 rows", "at least 1"]),
    ("too many rows", with_input(shape=[65, 4], data=[0] * 260), ["65", "64"]),
    ("no inputs", {"inputs": []}, ['"x"']),
    ("no inputs key", {}, ["inputs"]),
    ("inputs that are no list", {"inputs": {"x": [1]}}, ["inputs"]),
    ("the same input twice", {"inputs": GOOD["inputs"] * 2}, ['"x"', "more than once"]),
    ("an input too many", {"inputs": [*GOOD["inputs"], tensor("y", "FP32", [1], [1])]}, ['"y"']),
    ("unknown output", GOOD | {"outputs": [{"name": "nope"}]}, ['"nope"']),
    ("the same output twice", GOOD | {"outputs": [{"name": "y"}] * 2}, ['"y"', "more than once"]),
    ("negative timeout", GOOD | {"parameters": {"timeout": -1}}, ["timeout"]),
    ("timeout that is no number", GOOD | {"parameters": {"timeout": "1s"}}, ["timeout", '"1s"']),
    ("priority unknown", GOOD | {"parameters": {"priority": 4}}, ["priority", "4", "3 (low)"]),
    ("priority that is a word", GOOD | {"parameters": {"priority": "high"}}, ["priority", "high"]),
    ("id that is no text", GOOD | {"id": 7}, ["id"]),
    ("binary size without a header", with_input(parameters={"binary_data_size": 16}), ["binary"]),
    ("not an object", [], ["object"]),
    ("nothing", "", ["JSON"]),
    ("half of it", json.dumps(GOOD)[:-9], ["JSON"]),
    ("something after it", json.dumps(GOOD) + "}", ["JSON"]),
    ("NaN", '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[NaN,1,2,3]}]}', []),
    ("infinity", '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[Infinity]}]}', []),
    ("nested too deep", nested(250_000), []),
    ("data nested too deep", json.dumps(with_input(data=0)).replace(": 0}", nested(250_000)), []),
    ("parameters nested too deep", '{"inputs":[],"parameters":{"a":' + nested(101) + "}}", ["100"]),
    ("objects nested too deep", '{"a":' * 250_000, []),
    ("invalid UTF-8", json.dumps(GOOD).encode().replace(b'"x"', b'"\xff"'), ["utf-8"]),
    ("invalid UTF-8 in what is ignored", b'{"\xc3":1,' + json.dumps(GOOD).encode()[1:], []),
]


@pytest.mark.parametrize(
    ("body", "words"), [row[1:] for row in BAD_JSON], ids=[r[0] for r in BAD_JSON]
)
def test_bad_json_is_400_and_says_why(server: Server, body: Any, words: list[str]) -> None:
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = json.dumps(body).encode()
    reply = server.infer("affine", body)
    assert reply.status == 400, reply.body
    message = reply.error
    for word in words:
        assert word in message
    assert 10 < len(message.encode()) <= 1024


def test_json_nested_50_deep_where_nobody_looks_is_fine(server: Server) -> None:
    body = json.dumps(GOOD | {"parameters": {"odd": json.loads(nested(50))}}).encode()
    assert server.infer("affine", body).status == 200


@pytest.mark.parametrize(
    ("length", "word"),
    [
        ("-1", '"-1"'),
        ("123abc", '"123abc"'),
        (" ", ""),
        ("0x10", '"0x10"'),
        ("1e2", '"1e2"'),
        ("99999999999999999999999", "99999"),
        (str(2**31), str(2**31)),
        ("1000000", "1000000"),
    ],
)
def test_a_bad_header_length_is_400(server: Server, length: str, word: str) -> None:
    body, _ = binary(GOOD)
    reply = server.infer("affine", body, {"Inference-Header-Content-Length": length})
    assert reply.status == 400
    assert word in reply.error


def described(size: object, shape: list[int]) -> dict[str, Any]:
    return {
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": shape,
                "parameters": {"binary_data_size": size},
            }
        ]
    }


@pytest.mark.parametrize(
    ("size", "shape", "blob", "words"),
    [
        (16, [1, 4], floats(1, 2, 3), ["16", "12"]),
        (12, [1, 4], floats(1, 2, 3), ["12", "16"]),
        (16, [1, 4], floats(1, 2, 3, 4, 5), ["4 bytes"]),
        (20, [1, 4], floats(1, 2, 3, 4, 5), ["20", "16"]),
        (-16, [1, 4], floats(1, 2, 3, 4), ["binary_data_size"]),
        (2**62, [1, 4], floats(1, 2, 3, 4), [str(2**62)]),
        (2**80, [1, 4], floats(1, 2, 3, 4), []),
        ("16", [1, 4], floats(1, 2, 3, 4), ["binary_data_size"]),
        (16, [2**62, 4], floats(1, 2, 3, 4), [str(2**62)]),
        (0, [0, 4], b"", ["0 rows"]),
        (0, [1, 4], b"", ["0", "16"]),
        (65 * 16, [65, 4], bytes(65 * 16), ["65", "64"]),
    ],
)
def test_bad_binary_data_is_400(
    server: Server, size: object, shape: list[int], blob: bytes, words: list[str]
) -> None:
    reply = server.infer("affine", *binary(described(size, shape), blob))
    assert reply.status == 400
    for word in words:
        assert word in reply.error


def test_a_header_cut_off_in_the_middle_is_400(server: Server) -> None:
    body, headers = binary(described(16, [1, 4]), floats(1, 2, 3, 4))
    headers["Inference-Header-Content-Length"] = str(int(*headers.values()) - 5)
    assert "JSON" in server.infer("affine", body, headers).error


RAW = {"Inference-Header-Content-Length": "0"}


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        ("affine", b"", []),
        ("affine", b"12345", ["5 bytes", "16"]),
        ("affine", bytes(65 * 16), ["65", "64"]),
        ("pair", bytes(48), ["one input", '"a"', '"b"']),
        ("scalar", bytes(8), ["8 bytes", "4"]),
    ],
)
def test_a_bad_raw_body_is_400(server: Server, model: str, body: bytes, words: list[str]) -> None:
    reply = server.infer(model, body, RAW)
    assert reply.status == 400
    for word in words:
        assert word in reply.error


@pytest.mark.parametrize(
    "model",
    [
        "nope",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "a" * 5000,
        "%00",
        "%ff",
        "...",
        "a..1",
        "%20",
    ],
)
def test_an_unknown_model_is_404(server: Server, model: str) -> None:
    reply = server.infer(model, GOOD)
    assert reply.status == 404
    assert "no model" in reply.error
    assert server.get(f"/v2/models/{model}").status == 404


@pytest.mark.parametrize("version", ["2", "0", "01", "-1", "x", "99999999999999999999"])
def test_an_unknown_version_is_404(server: Server, version: str) -> None:
    reply = server.infer(f"affine/versions/{version}", GOOD)
    assert reply.status == 404
    assert f'"{version}"' in reply.error


def test_a_model_that_could_not_be_loaded_is_503_with_the_reason(server: Server) -> None:
    reply = server.infer("broken", GOOD)
    assert reply.status == 503
    assert "not a whole TorchScript file" in reply.error


@pytest.mark.parametrize("path", ["/v2/", "/v2/models", "/v2/models//infer", "/nowhere"])
def test_an_unknown_path_is_404(server: Server, path: str) -> None:
    reply = server.get(path)
    assert reply.status == 404
    assert reply.error


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_a_wrong_method_is_405(server: Server, method: str) -> None:
    reply = server.ask(method, "/v2/models/affine/infer")
    assert reply.status == 405
    assert reply.headers["allow"] == "POST"
    assert "POST" in reply.error


def test_a_model_that_raises_is_500_and_names_the_request(server: Server) -> None:
    reply = server.infer("fussy", numbers(-1, 2, 3, 4) | {"id": "request-7"})
    assert reply.status == 500
    assert "negative numbers make me sad" in reply.error
    assert '"fussy" version 1' in reply.error
    assert '"request-7"' in reply.error
    assert server.infer("fussy", GOOD).json["outputs"][0]["data"] == [2, 4, 6, 8]


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_compressed_bomb_is_413_and_costs_no_memory(server: Server, compress: Any) -> None:
    bomb = compress(bytes(500 << 20))
    coding = "gzip" if compress is gzip.compress else "deflate"
    before = server.rss_bytes()
    reply = server.infer("affine", bomb, {"Content-Encoding": coding})
    assert reply.status == 413
    assert str(64 << 20) in reply.error
    assert server.rss_bytes() < before + (100 << 20)


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", gzip.compress(json.dumps(GOOD).encode()), 200),
        ("deflate", zlib.compress(json.dumps(GOOD).encode()), 200),
        ("identity", json.dumps(GOOD).encode(), 200),
        ("gzip", json.dumps(GOOD).encode(), 400),
        ("gzip", gzip.compress(json.dumps(GOOD).encode())[:-4], 400),
        ("br", b"xx", 400),
    ],
)
def test_a_coded_body_is_read_or_refused(
    server: Server, coding: str, body: bytes, status: int
) -> None:
    assert server.infer("affine", body, {"Content-Encoding": coding}).status == status


def test_a_length_over_the_limit_is_413_at_once(server: Server) -> None:
    with server.connect() as peer, peer.makefile("rb") as stream:
        head = raw_post("/v2/models/affine/infer", b"").replace(b"Length: 0", b"Length: 67108865")
        peer.sendall(head)
        reply = read_reply(stream)
    assert reply.status == 413
    assert str(64 << 20) in reply.error


def test_a_chunked_body_over_the_limit_is_413_while_it_streams(server: Server) -> None:
    before = server.rss_bytes()
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    with server.connect() as peer, peer.makefile("rb") as stream:
        peer.sendall(
            b"POST /v2/models/affine/infer HTTP/1.1\r\nHost: here\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(65):
            peer.sendall(chunk)
        reply = read_reply(stream)
        assert reply.status == 413
        assert str(64 << 20) in reply.error
    assert server.rss_bytes() < before + (200 << 20)


def test_a_chunked_body_is_read(server: Server) -> None:
    body = json.dumps(GOOD).encode()
    with server.connect() as peer, peer.makefile("rb") as stream:
        peer.sendall(
            b"POST /v2/models/affine/infer HTTP/1.1\r\nHost: here\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for start in range(0, len(body), 7):
            piece = body[start : start + 7]
            peer.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        peer.sendall(b"0\r\n\r\n")
        assert read_reply(stream).json["outputs"][0]["data"] == [3, 5, 7, 9]


def test_more_than_65536_chunks_are_400_and_leave_no_memory_behind(server: Server) -> None:
    def send() -> None:
        with server.connect() as peer, peer.makefile("rb") as stream:
            peer.sendall(
                b"POST /v2/models/affine/infer HTTP/1.1\r\nHost: here\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 65537 + b"0\r\n\r\n"
            )
            reply = read_reply(stream)
        assert reply.status == 400
        assert "65536 chunks" in reply.error

    send()
    before = server.rss_bytes()
    for _ in range(10):
        send()
    assert server.rss_bytes() < before + (8 << 20)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /v2 HTTP/1.1\r\nHost: here\r\nBad Header: x\r\n\r\n", 400),
        (b"GET /v2 HTTP/3.7\r\nHost: here\r\n\r\n", 400),
        (b"NONSENSE\r\n\r\n", 400),
        (b"BREW /v2/models/affine/infer HTTP/1.1\r\nHost: here\r\n\r\n", 400),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: here\r\n\r\n", 400),
    ],
)
def test_what_is_no_http_is_400(server: Server, request_line: bytes, status: int) -> None:
    with server.connect() as peer, peer.makefile("rb") as stream:
        peer.sendall(request_line)
        reply = read_reply(stream)
    assert reply.status == status
    assert reply.error


def test_odd_methods_and_paths_leave_a_server_that_serves(server: Server) -> None:
    random = Random(7)
    words = [
        "v2",
        "models",
        "affine",
        "infer",
        "repository",
        "index",
        "%",
        "%00",
        "..",
        "",
        "é",
        "?",
    ]
    for _ in range(300):
        method = random.choice(["GET", "POST", "HEAD", "PUT", "CONNECT", "OPTIONS", "TRACE", "X"])
        path = "/".join(random.choices(words, k=random.randrange(8)))
        target = random.choice(["/", "", "*", "http://a/", "//"]) + path
        with server.connect() as peer:
            peer.sendall(f"{method} {target} HTTP/1.1\r\nHost: here\r\n".encode())
            peer.sendall(b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
            answer = b"".join(iter(lambda peer=peer: peer.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 "), (method, target)
        assert int(answer.split()[1]) in (200, 400, 404, 405), (method, target, answer)
        head, _, body = answer.partition(b"\r\n\r\n")
        if method != "HEAD" and b" 200 " not in head:
            # A wrong method on a path of TorchServe's API is answered in its words.
            assert list(json.loads(body)) in (["error"], ["code", "type", "message"])


def test_an_index_body_nested_250_000_deep_is_400(server: Server) -> None:
    for body in (nested(250_000), '{"a":' + nested(250_000) + "}", '{"ready":' + "[" * 250_000):
        reply = server.ask("POST", "/v2/repository/index", body.encode())
        assert reply.status == 400
        assert reply.error


@pytest.mark.parametrize(
    ("name", "status"), [("nope", 404), ("a" * 5000, 404), ("..%2f..", 404), ("broken", 400)]
)
def test_loading_what_cannot_be_loaded_is_refused(server: Server, name: str, status: int) -> None:
    reply = server.ask("POST", f"/v2/repository/models/{name}/load")
    assert reply.status == status
    assert reply.error


def test_files_in_a_load_request_are_refused(server: Server) -> None:
    body = json.dumps({"parameters": {"file:" + "x" * 100_000: "AAAA"}}).encode()
    reply = server.ask("POST", "/v2/repository/models/affine/load", body)
    assert reply.status == 400
    assert "not taken from a request" in reply.error
