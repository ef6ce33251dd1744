"""Prints a curl line with a real handwritten digit in it, for the server of `make serve`."""

import argparse
import json

from pyserve.zoo.digits import load_digits_split

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the server listens")
parser.add_argument("--number", type=int, default=0, help="which of the held-out images")
options = parser.parse_args()

_, _, images, labels = load_digits_split()
image, label = images[options.number], labels[options.number]
request = {
    "inputs": [
        {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": image.ravel().tolist()}
    ],
    "outputs": [{"name": "digit"}],
}
body = json.dumps(request, separators=(",", ":"))
print(f"A handwritten {label}; when the server is ready, paste this into another terminal:\n")
print(f"curl {options.url}/v2/models/digits/infer -d '{body}'\n")
