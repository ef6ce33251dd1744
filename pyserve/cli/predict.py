"""`pyserve predict`: one request from the shell."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pyserve.cli.inputs import Given, Wanted
    from pyserve.client import InferResult

# Longer outputs are cut on a terminal's behalf; --json prints all.
_SHOWN_VALUES = 12


@click.command("predict", short_help="Send one request to a running server.")
@click.argument("name", metavar="NAME[/VERSION]")
@click.option(
    "--url",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="Where the server listens; grpc://HOST:PORT works too.",
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
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="The request's deadline: the server does not start what is late.",
)
@click.option(
    "--priority",
    type=int,
    help="1 is high, 2 normal, 3 low; without it the model's default.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's JSON answer.")
def command(
    name: str,
    url: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    timeout: float,
    priority: int | None,
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
    from pyserve.cli.asking import asking, name_and_version
    from pyserve.cli.inputs import Wanted, read_input

    model, version = name_and_version(name)
    with asking(url, timeout_s=timeout) as client:
        metadata = client.metadata(model, version)
        wanted = {one.name: Wanted(one.name, one.datatype, one.shape) for one in metadata.inputs}
        given = [read_input(value, wanted[one]) for one, value in _assign(inputs, wanted)]
        result = client.infer(
            model,
            {one.name: _value(one) for one in given},
            version=version,
            outputs=outputs or None,
            timeout=timeout,
            priority=priority,
        )
    answer = _answer(result)
    if as_json:
        click.echo(json.dumps(answer))
        return
    for output in answer["outputs"]:
        click.echo(_describe(output))
    timing = result.timing
    if timing.seconds:
        shown = [f"{stage} {seconds * 1000:.3f}" for stage, seconds in timing.seconds.items()]
        if timing.batch_size is not None:
            shown.append(f"batch {timing.batch_size}")
        click.echo(f"server timing in ms: {', '.join(shown)}")


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


def _value(given: "Given") -> object:
    """Return what the client takes: bytes as they are, other values in nested lists."""
    import numpy as np

    from pyserve.messages import InputTensor

    if isinstance(given.data, bytes):
        return InputTensor(given.name, given.datatype, given.shape, given.data)
    return np.array(given.data, dtype=object).reshape(given.shape).tolist()


def _answer(result: "InferResult") -> dict[str, Any]:
    """Return the answer as the REST API has it."""
    outputs = [
        {
            "name": one.name,
            "datatype": one.datatype,
            "shape": list(one.shape),
            "data": _elements(one.datatype, result[one.name]),
        }
        for one in result.tensors
    ]
    return {"model_name": result.model, "model_version": result.version, "outputs": outputs}


def _elements(datatype: str, array: Any) -> list[Any]:
    """Return an output's elements, flat: strings as text, floats in the digits that tell."""
    flat = array.reshape(-1)
    if datatype == "BYTES":
        return [element.decode("utf-8", "replace") for element in flat.tolist()]
    if datatype in ("FP16", "BF16", "FP32"):
        return [float(str(element)) for element in flat]
    elements: list[Any] = flat.tolist()
    return elements


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
