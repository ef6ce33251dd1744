"""Real digits through a real server: what HTTP says of each image is what the module says."""

import json
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from server_process import PATIENCE_S, start

import models
from models.digits import load_digits_split
from pyserve.scripting import quiet_torchscript

THREADS = 16


@pytest.fixture(scope="session")
def digits_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("digits")
    models.build("digits", repository)
    return repository


def ask(address: tuple[str, int], images: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Ask for one image after another on one connection, and return the logits of each."""
    connection = HTTPConnection(*address, timeout=PATIENCE_S)
    try:
        answers = []
        for image in images:
            header = json.dumps(
                {
                    "inputs": [
                        {
                            "name": "image",
                            "datatype": "FP32",
                            "shape": [1, *image.shape],
                            "parameters": {"binary_data_size": image.nbytes},
                        }
                    ],
                    "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
                }
            ).encode()
            connection.request(
                "POST",
                "/v2/models/digits/infer",
                header + image.tobytes(),
                {"Inference-Header-Content-Length": str(len(header))},
            )
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            length = int(response.headers["Inference-Header-Content-Length"])
            answers.append(np.frombuffer(body[length:], np.float32))
        return answers
    finally:
        connection.close()


def test_accuracy_through_http_under_concurrency_equals_the_local_one(
    digits_repository: Path, tmp_path: Path
) -> None:
    _, _, images, labels = load_digits_split()
    with quiet_torchscript(), torch.no_grad():
        module = torch.jit.load(digits_repository / "digits" / "1" / "model.pt")
        local = module(torch.from_numpy(images)).logits.numpy()
    assert (local.argmax(1) == labels).mean() >= 0.98

    shares = [list(range(first, len(images), THREADS)) for first in range(THREADS)]
    with start(tmp_path / "log", "--model-repository", str(digits_repository)) as server:
        with ThreadPoolExecutor(THREADS) as pool:
            parts = list(
                pool.map(lambda mine: ask(server.address, [images[i] for i in mine]), shares)
            )
        rows_run = server.metric("pyserve_rows_total", model="digits")
        batches = server.metric("pyserve_batches_total", model="digits")
        assert server.stop() == 0

    served = np.empty_like(local)
    for mine, part in zip(shares, parts, strict=True):
        served[mine] = part
    assert np.array_equal(served.argmax(1), local.argmax(1))  # image by image
    np.testing.assert_allclose(served, local, rtol=1e-3, atol=1e-4)
    assert rows_run == len(images)
    assert batches < len(images)  # concurrent requests were batched
