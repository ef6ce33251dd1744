"""A client that was written for TorchServe; only the addresses say where it goes today.

Registers an archive of the model store, gives it workers, asks it, looks at it, unregisters it.
"""

import argparse
import json
import urllib.error
import urllib.parse
import urllib.request

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--inference", default="http://127.0.0.1:8080", help="inference address")
parser.add_argument("--management", default="http://127.0.0.1:8081", help="management address")
parser.add_argument("archive", help="an archive in the model store, such as line.mar")
parser.add_argument("name", help="what to call the model meanwhile")
parser.add_argument("body", help="one request, such as [1, 2]")
options = parser.parse_args()


def ask(method: str, address: str, body: bytes = b"", **parameters: object) -> object:
    """Send one request; what the server refuses ends the program with its words."""
    query = urllib.parse.urlencode(parameters)
    request = urllib.request.Request(f"{address}?{query}", body or None, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        said = json.load(error)
        raise SystemExit(f"{said['code']} {said['type']}: {said['message']}") from None


print(ask("GET", f"{options.inference}/ping"))
models = f"{options.management}/models"
print(ask("POST", models, url=options.archive, model_name=options.name))
print(ask("PUT", f"{models}/{options.name}", min_worker=2, synchronous="true"))
print(ask("POST", f"{options.inference}/predictions/{options.name}", options.body.encode()))
print(ask("GET", f"{models}/{options.name}"))
print(ask("DELETE", f"{models}/{options.name}"))
