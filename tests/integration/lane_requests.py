"""Requests of every kind as bytes: good ones, bad ones, and what is hardly HTTP or not at all."""

from __future__ import annotations

import gzip
import json
from typing import Any

from server_process import binary, floats, numbers, raw_post, tensor

from pyserve.http.bodies import MAX_CHUNKS

LIMIT = 8 << 20
"""The largest body that the servers of these tests take."""

GOOD = numbers(1, 2, 3, 4)


def infer(model: str, request: object, *headers: str) -> bytes:
    """A POST of `request` (JSON unless it is bytes) to a model."""
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return raw_post(f"/v2/models/{model}/infer", body, *headers)


def infer_binary(model: str, request: dict[str, Any], *blobs: bytes) -> bytes:
    body, headers = binary(request, *blobs)
    return infer(model, body, *(f"{name}: {value}" for name, value in headers.items()))


def infer_raw(model: str, body: bytes, *headers: str) -> bytes:
    return infer(model, body, "Inference-Header-Content-Length: 0", *headers)


def described(name: str, datatype: str, shape: list[int], size: object) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


def strings(*values: bytes) -> bytes:
    return b"".join(len(one).to_bytes(4, "little") + one for one in values)


X = described("x", "FP32", [1, 4], 16)
ROW = floats(1, 2, 3, 4)
BINARY = infer_binary("affine", {"inputs": [X]}, ROW)
PAIR = {
    "inputs": [tensor("a", "INT64", [1, 3], [1, 5, 3]), tensor("b", "INT64", [1, 3], [2, 4, 3])]
}
SMALL = infer("affine", GOOD)
NAN = floats(float("nan"), 1, 2, 3)
BINARY_OUT = {"parameters": {"binary_data_output": True}}


def output(name: str, binary: bool | None = None) -> dict[str, Any]:
    return (
        {"name": name} if binary is None else {"name": name, "parameters": {"binary_data": binary}}
    )


def rows(count: int) -> dict[str, Any]:
    return {"inputs": [tensor("x", "FP32", [count, 4], [0.5] * (4 * count))]}


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


PATH = "/v2/models/affine/infer"
BODY = json.dumps(GOOD).encode()
LENGTH = f"Content-Length: {len(BODY)}"


def odd(*lines: str, first: str = f"POST {PATH} HTTP/1.1") -> bytes:
    """A good body under these head lines."""
    return head(first, *lines) + BODY


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


def asking(**parameters: object) -> bytes:
    return infer("affine", GOOD | {"parameters": parameters})


GOOD_REQUESTS = {
    "json": SMALL,
    "json, version": infer("affine/versions/1", GOOD),
    "json, no spaces": infer("affine", json.dumps(GOOD, separators=(",", ":")).encode()),
    "json, many spaces": infer("affine", json.dumps(GOOD, indent=3).encode()),
    "json, nested": infer("affine", {"inputs": [tensor("x", "FP32", [1, 4], [[1, 2, 3, 4]])]}),
    "json, exponents": infer("affine", numbers(1e-7, 1.5e30, -0.0, 1.6e38)),
    "id": infer("affine", GOOD | {"id": "a-7"}),
    "id of odd characters": infer("affine", GOOD | {"id": "a'<>&/ ~"}),
    "id that is escaped": infer("affine", GOOD | {"id": 'a"\\\n'}),
    "id beyond ASCII": infer(
        "affine", json.dumps(GOOD | {"id": "größe"}, ensure_ascii=False).encode()
    ),
    "empty id": infer("affine", GOOD | {"id": ""}),
    "null id": infer("affine", GOOD | {"id": None}),
    "long id": infer("affine", GOOD | {"id": "i" * 700}, "Accept-Encoding: gzip"),
    "unknown keys": infer("affine", GOOD | {"more": {"a": [1]}, "parameters": {"odd": 1}}),
    "two rows": infer("affine", rows(2)),
    "the largest batch": infer("affine", rows(64)),
    "binary": BINARY,
    "binary, two rows": infer_binary(
        "affine", {"inputs": [described("x", "FP32", [2, 4], 32)]}, ROW * 2
    ),
    "binary in and out": infer_binary("affine", {"inputs": [X]} | BINARY_OUT, ROW),
    "binary out": infer("affine", GOOD | BINARY_OUT),
    "binary out refused": infer("affine", GOOD | {"parameters": {"binary_data_output": False}}),
    "output": infer("affine", GOOD | {"outputs": [output("y")]}),
    "output as JSON": infer_binary("affine", {"inputs": [X], "outputs": [output("y", False)]}, ROW),
    "output as binary": infer("affine", GOOD | {"outputs": [output("y", True)]} | BINARY_OUT),
    "no outputs": infer("affine", GOOD | {"outputs": []}),
    "null outputs": infer("affine", GOOD | {"outputs": None}),
    "aliases": infer_binary(
        "affine",
        {"inputs": [described("INPUT__0", "FP32", [1, 4], 16)], "outputs": [output("OUTPUT__0")]},
        ROW,
    ),
    "all outputs": infer("pair", PAIR),
    "inputs in another order": infer("pair", {"inputs": PAIR["inputs"][::-1]}),
    "one of two outputs": infer("pair", PAIR | {"outputs": [output("large")]}),
    "outputs in another order": infer("pair", PAIR | {"outputs": [output("large"), output("sum")]}),
    "outputs in both forms": infer(
        "pair", PAIR | {"outputs": [output("sum", True), output("large")]}
    ),
    "outputs in both forms, the other way": infer(
        "pair", PAIR | {"outputs": [output("large", True), output("sum", False)]} | BINARY_OUT
    ),
    "inputs in both forms": infer_binary(
        "pair", {"inputs": [PAIR["inputs"][0], described("b", "INT64", [1, 3], 24)]}, bytes(24)
    ),
    "raw": infer_raw("affine", ROW),
    "raw, three rows": infer_raw("affine", ROW * 3),
    "raw, no batch": infer_raw("scalar", floats(1.5)),
    "raw, any size": infer_raw("lengths", bytes(40)),
    "raw, one string": infer_raw("shout", "größe".encode()),
    "no dimension": infer("scalar", {"inputs": [tensor("x", "FP32", [], [1.5])]}),
    "large integers": infer("lengths", {"inputs": [tensor("ids", "INT64", [1, 1], [2**53 + 1])]}),
    "strings": infer("shout", {"inputs": [tensor("text", "BYTES", [2], ["hello", "größe"])]}),
    "no strings": infer_binary("shout", {"inputs": [described("text", "BYTES", [0], 0)]}),
    "binary strings": infer_binary(
        "shout", {"inputs": [described("text", "BYTES", [3], 20)]}, strings(b"hi", b"", b"you123")
    ),
    "binary strings in and out": infer_binary(
        "shout",
        {"inputs": [described("text", "BYTES", [2], 13)]} | BINARY_OUT,
        strings(b"hello", b""),
    ),
    "strings out as binary": infer_binary(
        "shout",
        {"inputs": [described("text", "BYTES", [2], 13)], "outputs": [output("loud", True)]},
        strings(b"hello", b""),
    ),
    "NaN out as binary": infer_raw("affine", NAN),
    "timeout": asking(timeout=60_000_000),
    "no timeout": asking(timeout=0),
    "a timeout of ages": asking(timeout=2**62 - 1),
    "a timeout beyond 62 bits": asking(timeout=2**62),
    "a timeout beyond all time": asking(timeout=10**400),
    "high priority": asking(priority=1),
    "normal priority": asking(priority=2),
    "low priority": asking(priority=3),
    "the model's priority": asking(priority=0),
    "null timeout and priority": asking(timeout=None, priority=None),
    "timeout twice": infer(
        "affine", BODY[:-1] + b',"parameters":{"timeout":0,"timeout":60000000}}'
    ),
    "timeout, priority and binary": asking(timeout=60_000_000, priority=1, binary_data_output=True),
    "priority and what is unknown": asking(priority=1, odd=1),
    "priority of binary data": infer_binary(
        "affine", {"inputs": [X], "parameters": {"priority": 3}}, ROW
    ),
    "gzip, small": infer("affine", GOOD, "Accept-Encoding: gzip"),
    "gzip, large": infer("affine", rows(64), "Accept-Encoding: gzip, deflate"),
    "gzip, raw": infer_raw("affine", ROW, "Accept-Encoding: gzip"),
    "gzip, large raw": infer_raw("affine", ROW * 64, "Accept-Encoding: gzip"),
    "deflate": infer("affine", rows(40), "Accept-Encoding: deflate"),
    "identity": infer("affine", rows(64), "Accept-Encoding: identity"),
    "no gzip": infer("affine", rows(64), "Accept-Encoding: gzip;q=0"),
    "some length near the limit of compression": b"".join(
        infer("affine", rows(count), "Accept-Encoding: gzip") for count in range(20, 64, 2)
    ),
    "gzip body": infer("affine", gzip.compress(BODY), "Content-Encoding: gzip"),
    "content types": b"".join(
        infer("affine", GOOD, f"Content-Type: {one}")
        for one in ("application/json", "text/plain; charset=latin-1", "multipart/form-data", "x")
    ),
    "header names in any case": odd("hOST: here", LENGTH.upper(), "INFERENCE-header-x: 1"),
    "no space after the colon": odd("Host:here", LENGTH.replace(" ", "")),
    "much space after the colon": odd("Host:  \t here", LENGTH.replace(" ", " \t "), "X: \t"),
    "space at the end": odd("Host: here  ", LENGTH + " \t"),
    "an empty header": odd("Host: here", LENGTH, "X:", "Accept-Encoding:"),
    "length with zeros": odd("Host: here", LENGTH.replace(": ", ": 000")),
    "the same odd header twice": odd("Host: here", LENGTH, "X-A: 1", "X-A: 2"),
    "Accept-Encoding twice": odd(
        "Host: here", LENGTH, "Accept-Encoding: identity", "Accept-Encoding: gzip"
    ),
    "a query": odd("Host: here", LENGTH, first=f"POST {PATH}?a=b HTTP/1.1"),
    "an escaped path": odd("Host: here", LENGTH, first="POST /v2/models/%61ffine/infer HTTP/1.1"),
    "a whole URL": odd("Host: here", LENGTH, first=f"POST http://here{PATH} HTTP/1.1"),
    "keep-alive": odd("Host: here", LENGTH, "Connection: keep-alive"),
    "authorization": odd("Host: here", LENGTH, "Authorization: Basic eDp5"),
    "TE": odd("Host: here", LENGTH, "TE: trailers"),
    "chunked": head(f"POST {PATH} HTTP/1.1", "Host: here", "Transfer-Encoding: chunked")
    + chunked(BODY, 7),
    "many headers": odd("Host: here", LENGTH, *(f"X-{i}: {i}" for i in range(100))),
    "a long header": odd("Host: here", LENGTH, "X: " + "x" * 8100),
    "two at once": SMALL + SMALL,
    "an empty line between": SMALL + b"\r\n" + SMALL,
}


BAD_REQUESTS: dict[str, tuple[int, bytes]] = {
    "unknown model": (404, infer("nope", GOOD)),
    "unknown version": (404, infer("affine/versions/2", GOOD)),
    "model that could not be loaded": (503, infer("broken", GOOD)),
    "unknown path": (404, raw_post("/v2/models/affine/inference", BODY)),
    "no model": (404, raw_post("/v2/models//infer", BODY)),
    "wrong method": (405, odd("Host: here", LENGTH, first=f"PUT {PATH} HTTP/1.1")),
    "model that raises": (500, infer("fussy", numbers(-1, 2, 3, 4) | {"id": "request-7"})),
    "model that raises, no id": (500, infer_raw("fussy", floats(-1, 2, 3, 4))),
    "empty body": (400, infer("affine", b"")),
    "no JSON": (400, infer("affine", b"hello")),
    "half the JSON": (400, infer("affine", BODY[:-9])),
    "more than the JSON": (400, infer("affine", BODY + b"}")),
    "JSON that is no object": (400, infer("affine", b"[]")),
    "wrong name": (400, infer("affine", {"inputs": [tensor("z", "FP32", [1, 4], [1, 2, 3, 4])]})),
    "wrong dtype": (400, infer("affine", {"inputs": [tensor("x", "FP64", [1, 4], [1, 2, 3, 4])]})),
    "unknown dtype": (400, infer("affine", {"inputs": [tensor("x", "FP4", [1, 4], [1, 2, 3, 4])]})),
    "wrong shape": (400, infer("affine", {"inputs": [tensor("x", "FP32", [1, 3], [1, 2, 3])]})),
    "wrong rank": (400, infer("affine", {"inputs": [tensor("x", "FP32", [4], [1, 2, 3, 4])]})),
    "negative size": (400, infer("affine", {"inputs": [tensor("x", "FP32", [-1, 4], [1])]})),
    "fractional size": (400, infer("affine", BODY.replace(b"[1, 4]", b"[1.0, 4]"))),
    "immense shape": (400, infer("affine", {"inputs": [tensor("x", "FP32", [2**62, 4], [1])]})),
    "too few numbers": (400, infer("affine", {"inputs": [tensor("x", "FP32", [1, 4], [1, 2])]})),
    "too many numbers": (400, infer("affine", {"inputs": [tensor("x", "FP32", [1, 4], [1] * 5)]})),
    "empty batch": (400, infer("affine", {"inputs": [tensor("x", "FP32", [0, 4], [])]})),
    "too large a batch": (400, infer("affine", rows(65))),
    "text for numbers": (400, infer("affine", {"inputs": [tensor("x", "FP32", [1, 1], ["1"])]})),
    "out of range": (400, infer("affine", numbers(1e39, 2, 3, 4))),
    "NaN in JSON": (400, infer("affine", numbers(float("nan"), 2, 3, 4))),
    "infinity in JSON": (400, infer("affine", numbers(float("inf"), 2, 3, 4))),
    "NaN out as JSON": (400, infer_binary("affine", {"inputs": [X]}, NAN)),
    "infinity out as JSON": (400, infer("affine", numbers(3e38, 2, 3, 4))),
    "bytes that are no text out as JSON": (
        400,
        infer_binary("shout", {"inputs": [described("text", "BYTES", [1], 5)]}, strings(b"\xff")),
    ),
    "an input missing": (400, infer("pair", {"inputs": PAIR["inputs"][:1]})),
    "an input twice": (400, infer("affine", {"inputs": GOOD["inputs"] * 2})),
    "an input too many": (400, infer("affine", {"inputs": GOOD["inputs"] + PAIR["inputs"][:1]})),
    "no inputs": (400, infer("affine", {"inputs": []})),
    "unknown output": (400, infer("affine", GOOD | {"outputs": [output("z")]})),
    "an output twice": (400, infer("affine", GOOD | {"outputs": [output("y")] * 2})),
    "key twice": (400, infer("affine", b'{"inputs":[],' + BODY[1:-1] + b',"inputs":[]}')),
    "id that is no text": (400, infer("affine", GOOD | {"id": 7})),
    **{
        f"{key} of {json.dumps(value)}": (400, asking(**{key: value}))
        for key in ("timeout", "priority")
        for value in (-1, -(2**63), 1.0, 1.5, 1e300, "1", "", True, False, [1], {"a": 1})
    },
    **{
        f"priority of {value}": (400, asking(priority=value))
        for value in (4, 255, 256, 257, 2**32 + 1, 2**62, 2**64 + 1, 10**400)
    },
    "timeout that passes": (
        504,
        infer("patient", GOOD | {"parameters": {"timeout": 20_000}, "id": "late"}),
    ),
    "data and size": (
        400,
        infer_binary("affine", {"inputs": [X | {"data": [1, 2, 3, 4]}]}, ROW),
    ),
    "size without header": (400, infer("affine", {"inputs": [X]})),
    "bytes missing": (400, infer_binary("affine", {"inputs": [X]}, ROW[:-1])),
    "bytes too many": (400, infer_binary("affine", {"inputs": [X]}, ROW + b"x")),
    "size that lies": (
        400,
        infer_binary("affine", {"inputs": [described("x", "FP32", [1, 4], 12)]}, ROW),
    ),
    "strings that lie": (
        400,
        infer_binary("shout", {"inputs": [described("text", "BYTES", [1], 5)]}, b"\x09\0\0\0a"),
    ),
    "bool that is none": (
        400,
        infer_binary("every", {"inputs": [described("boolean", "BOOL", [1, 2], 2)]}, b"\x02\x00"),
    ),
    "raw body of no row": (400, infer_raw("affine", b"")),
    "raw body of half a row": (400, infer_raw("affine", ROW[:8])),
    "raw body of too many rows": (400, infer_raw("affine", ROW * 65)),
    "raw body for two inputs": (400, infer_raw("pair", bytes(48))),
    "header length too long": (400, infer("affine", BODY, "Inference-Header-Content-Length: 9999")),
    "header length too short": (400, infer("affine", BODY, "Inference-Header-Content-Length: 9")),
    "header length that is none": (
        400,
        infer("affine", BODY, "Inference-Header-Content-Length: +"),
    ),
    "header length that is empty": (400, infer("affine", BODY, "Inference-Header-Content-Length:")),
    "header length of 20 digits": (
        400,
        infer("affine", BODY, "Inference-Header-Content-Length: " + "9" * 20),
    ),
    "header length in hexadecimal": (
        400,
        infer("affine", BODY, "Inference-Header-Content-Length: 0x10"),
    ),
    "body that is not gzip": (400, infer("affine", GOOD, "Content-Encoding: gzip")),
    "body in an unknown coding": (400, infer("affine", GOOD, "Content-Encoding: br")),
    "a bomb": (413, infer("affine", gzip.compress(bytes(2 * LIMIT)), "Content-Encoding: gzip")),
    "chunked and damaged": (
        400,
        head(f"POST {PATH} HTTP/1.1", "Host: here", "Transfer-Encoding: chunked") + b"5\r\nhello!",
    ),
    "too many chunks": (
        400,
        head(f"POST {PATH} HTTP/1.1", "Host: here", "Transfer-Encoding: chunked")
        + b"1\r\n \r\n" * (MAX_CHUNKS + 1)
        + b"0\r\n\r\n",
    ),
}


NO_HTTP = {
    "no Host": odd(LENGTH),
    "two Hosts": odd("Host: here", "Host: there", LENGTH),
    "negative length": odd("Host: here", "Content-Length: -1"),
    "length with a sign": odd("Host: here", LENGTH.replace(": ", ": +")),
    "length that is none": odd("Host: here", "Content-Length: x"),
    "empty length": odd("Host: here", "Content-Length:"),
    "length of 20 digits": odd("Host: here", "Content-Length: " + "9" * 20),
    "two lengths": odd("Host: here", LENGTH, LENGTH),
    "two different lengths": odd("Host: here", LENGTH, "Content-Length: 3"),
    "two lengths in one": odd("Host: here", f"{LENGTH}, {len(BODY)}"),
    "length and chunks": odd("Host: here", LENGTH, "Transfer-Encoding: chunked"),
    "chunks not at the end": odd("Host: here", "Transfer-Encoding: chunked, gzip"),
    "two Content-Types": odd("Host: here", LENGTH, "Content-Type: a", "Content-Type: b"),
    "a space before the colon": odd("Host : here", LENGTH),
    "a header without colon": odd("Host: here", LENGTH, "hello"),
    "a header without name": odd("Host: here", LENGTH, ": hello"),
    "a folded header": odd("Host: here", LENGTH, "X: a", " b"),
    "a control character": odd("Host: here", LENGTH, "X: a\x01b"),
    "a NUL": odd("Host: here", LENGTH, "X: a\0b"),
    "line ends without CR": odd("Host: here", LENGTH).replace(b"\r\n", b"\n"),
    "line ends without LF": odd("Host: here", LENGTH).replace(b"\r\n", b"\r"),
    "a CR in a header": odd("Host: here", LENGTH, "X: a\rb"),
    "beyond ASCII": odd("Host: here", LENGTH, "X: é"),
    "two spaces before the version": odd("Host: here", LENGTH, first=f"POST {PATH}  HTTP/1.1"),
    "two spaces after the method": odd("Host: here", LENGTH, first=f"POST  {PATH} HTTP/1.1"),
    "a tab after the method": odd("Host: here", LENGTH, first=f"POST\t{PATH} HTTP/1.1"),
    "a method in lower case": odd("Host: here", LENGTH, first=f"post {PATH} HTTP/1.1"),
    "an unknown method": odd("Host: here", LENGTH, first=f"POSE {PATH} HTTP/1.1"),
    "another protocol": odd("Host: here", LENGTH, first=f"POST {PATH} HTTQ/1.1"),
    "HTTP/1.2": odd("Host: here", LENGTH, first=f"POST {PATH} HTTP/1.2"),
    "HTTP/2.0": odd("Host: here", LENGTH, first=f"POST {PATH} HTTP/2.0"),
    "HTTP/0.9": odd("Host: here", LENGTH, first=f"POST {PATH}"),
    "HTTP/1.0": odd("Host: here", LENGTH, first=f"POST {PATH} HTTP/1.0"),
    "HTTP/1.0, keep-alive": odd(
        "Host: here", LENGTH, "Connection: keep-alive", first=f"POST {PATH} HTTP/1.0"
    ),
    "close": odd("Host: here", LENGTH, "Connection: close"),
    "close, in capitals": odd("Host: here", LENGTH, "CONNECTION: CLOSE"),
    "close and more": odd("Host: here", LENGTH, "Connection: close, x"),
    "close after keep-alive": odd(
        "Host: here", LENGTH, "Connection: keep-alive", "Connection: close"
    ),
    "Proxy-Connection": odd("Host: here", LENGTH, "Proxy-Connection: close"),
    "an upgrade": odd("Host: here", LENGTH, "Connection: upgrade", "Upgrade: websocket"),
    "a websocket key": odd("Host: here", LENGTH, "Sec-WebSocket-Key1: 1"),
    "a GET with a body": odd("Host: here", LENGTH, first="GET /v2 HTTP/1.1"),
    "CONNECT": odd("Host: here", LENGTH, first="CONNECT here:1 HTTP/1.1"),
    "a path that climbs": odd(
        "Host: here", LENGTH, first="POST /v2/models/x/../affine/infer HTTP/1.1"
    ),
    "a path of an empty segment": odd(
        "Host: here", LENGTH, first="POST /v2/models//affine/infer HTTP/1.1"
    ),
    "a path beyond ASCII": odd("Host: here", LENGTH, first="POST /v2/modéls HTTP/1.1"),
    "too many headers": odd("Host: here", LENGTH, *(f"X-{i}: {i}" for i in range(200))),
    "too long a header": odd("Host: here", LENGTH, "X: " + "x" * 9000),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "nothing": b"",
    "empty lines": b"\r\n\r\n\r\n",
}
