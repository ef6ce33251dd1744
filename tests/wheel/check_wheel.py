"""Run by `make test-wheel` with the Python of an environment that has the wheel and nothing else:
builds a zoo model, serves it, asks it, stops it."""

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pyserve

assert "site-packages" in str(pyserve.__file__), f"not the wheel: {pyserve.__file__}"
command = str(Path(sys.executable).with_name("pyserve"))
with tempfile.TemporaryDirectory() as repository:
    subprocess.run([command, "zoo", "build", "affine", "-o", repository], check=True)
    server = subprocess.Popen(
        [command, "serve", "--model-repository", repository, "--http-port=0", "--log-format=json"],
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["http"]
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
        body = json.dumps({"inputs": [tensor]}).encode()
        with urllib.request.urlopen(f"{url}/v2/models/affine/infer", body, timeout=30) as answer:
            assert json.load(answer)["outputs"][0]["data"] == [3, 5, 7, 9]
    finally:
        server.terminate()
        assert server.wait(60) == 0
print("the wheel serves")
