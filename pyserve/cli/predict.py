"""`pyserve predict`: one request from the shell."""

import json
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pyserve.cli.inputs import Given, Wanted

# Longer outputs are cut on a terminal's behalf; --json prints all.
_SHOWN_VALUES = 12


@click.command("predict", short_help="Send one request to a running server.")
@click.argument("name", metavar="NAME[/VERSION]")
@click.option(
    "--url", default="http://127.0.0.1:8000", show_default=True, help="Where the server listens."
)
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="[NAME=]VALUE",
    help="JSON such as [1, 2], or a file: @digit.png, @array.npy, @numbers.json, @raw.bin. "
    "NAME may be left out where the model has one input.",
)
@click.option("--output", "outputs", multiple=True, metavar="NAME", help="Only this output.")
@click.option("--timeout", default=30.0, show_default=True, metavar="SECONDS")
@click.option("--json", "as_json", is_flag=True, help="Print the server's JSON answer.")
def command(
    name: str,
    url: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    timeout: float,
    as_json: bool,
) -> None:
    """Send one request to model NAME and print its outputs.

    \b
      pyserve predict digits --input @digit.png
      pyserve predict affine --input '[1, 2, 3, 4]'
      pyserve predict encoder --input token_ids=@ids.npy --input mask='[[1, 1, 1]]'

    Numbers are given a batch dimension if they lack it. Pictures need Pillow (pip install
    'pyserve[image]'); they are scaled to the model's size, and to 0..1 for float inputs.
    """
    from pyserve.cli.inputs import Wanted, read_input
    from pyserve.cli.remote import Server, model_path

    server = Server(url, timeout_s=timeout)
    path = model_path(name)
    metadata = server.get(path)
    wanted = {
        one["name"]: Wanted(one["name"], one["datatype"], tuple(one["shape"]))
        for one in metadata["inputs"]
    }
    tensors = [
        read_input(value, wanted[input_name]) for input_name, value in _assign(inputs, wanted)
    ]
    header: dict[str, Any] = {"parameters": {"timeout": int(timeout * 1e6)}}
    if outputs:
        header["outputs"] = [{"name": output} for output in outputs]
    body, headers = encode(header, tensors)
    answer, reply = server.post(f"{path}/infer", body, headers)
    if as_json:
        click.echo(json.dumps(answer))
        return
    for output in answer["outputs"]:
        click.echo(_describe(output))
    timing = reply.headers.get("server-timing")
    if timing:
        click.echo(f"server timing in ms: {timing.replace(';dur=', ' ').replace(';desc=', ' ')}")


def _assign(inputs: Sequence[str], wanted: "dict[str, Wanted]") -> list[tuple[str, str]]:
    """Return every input's name with its text; a lone input may leave its name out."""
    from pyserve.errors import ConfigError

    pairs = []
    for text in inputs:
        name, equals, value = text.partition("=")
        if equals and name in wanted:
            pairs.append((name, value))
        elif len(wanted) == 1 and not (equals and name.isidentifier()):
            pairs.append((next(iter(wanted)), text))
        else:
            expected = ", ".join(f"{one}=..." for one in wanted)
            raise ConfigError(f"--input {text[:60]!r}: expected {expected}")
    return pairs


def encode(header: dict[str, Any], tensors: "Sequence[Given]") -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of a request: bytes as binary data, lists as JSON."""
    described = []
    blobs = []
    for tensor in tensors:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        data = tensor.data
        if tensor.datatype == "FP16" and isinstance(data, list):
            # FP16 has no form in JSON.
            data = struct.pack(f"<{len(data)}e", *data)
        if isinstance(data, bytes):
            entry["parameters"] = {"binary_data_size": len(data)}
            blobs.append(data)
        else:
            entry["data"] = data
        described.append(entry)
    text = json.dumps({**header, "inputs": described}).encode()
    headers = {"Content-Type": "application/json"}
    if blobs:
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(text)),
        }
    return b"".join([text, *blobs]), headers


def _describe(output: dict[str, Any]) -> str:
    values, shape = output["data"], output["shape"]
    shown = ", ".join(_short(value) for value in values[:_SHOWN_VALUES])
    more = f", ... {len(values)} values" if len(values) > _SHOWN_VALUES else ""
    text = f"{output['name']}  {output['datatype']}{shape}  [{shown}{more}]"
    if output["datatype"].startswith("FP") and len(shape) == 2 and shape[1] > 1:
        rows = [values[start : start + shape[1]] for start in range(0, len(values), shape[1])]
        best = ", ".join(str(max(range(shape[1]), key=row.__getitem__)) for row in rows[:20])
        text += f"\n  largest at index {best}"
    return text


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else json.dumps(value)
