"""`pyserve export`: a module that Python code makes becomes a model file."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    import torch

_EXAMPLE = re.compile(r"(?:(?P<name>[^=]+)=)?(?P<dtype>[A-Z]+[0-9]*)\[(?P<sizes>[0-9,\s]*)\]")


class ExampleSpec(NamedTuple):
    """One `--example`: the input's name (empty: by position), dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@click.command("export", short_help="Turn a torch module into a model file.")
@click.argument("source", metavar="MODULE:CALLABLE")
@click.option(
    "--example",
    "examples",
    multiple=True,
    required=True,
    metavar="[NAME=]DTYPE[SIZES]",
    help="An example input with its batch dimension, such as image=FP32[1,3,224,224]. "
    "One for each input; more of the same name show which sizes may differ.",
)
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to write: model.pt")
@click.option("--output-name", multiple=True, metavar="NAME", help="Name of an output. Repeatable.")
@click.option(
    "--method",
    type=click.Choice(["auto", "script", "trace"]),
    default="auto",
    show_default=True,
    help="auto: script, and trace what cannot be scripted.",
)
@click.option("--max-batch-size", type=int, metavar="ROWS", help="Most rows of one call.")
@click.option("--no-batch", is_flag=True, help="The model takes no batch dimension.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the example's values."
)
def command(
    source: str,
    examples: tuple[str, ...],
    output: str,
    output_name: tuple[str, ...],
    method: str,
    max_batch_size: int | None,
    no_batch: bool,
    seed: int,
) -> None:
    """Write the module that MODULE:CALLABLE makes as TorchScript, its signature inside.

    MODULE is a Python file or an importable module; CALLABLE is called without arguments and
    returns a torch.nn.Module (a module class or an instance will do).

    \b
      pyserve export my_model.py:build --example image=FP32[1,3,224,224] -o model.pt
      pyserve export torchvision.models:resnet18 --example FP32[1,3,224,224] -o resnet18.pt
    """
    specs = [parse_example(one) for one in examples]
    from pyserve.cli.terminal import progress_bar
    from pyserve.export import export

    with progress_bar(source) as progress:
        progress(f"importing {source}", 0.1)
        module = load_module(source)
        progress("exporting", 0.5)
        inputs, *others = example_calls(specs, seed)
        signature = export(
            module,
            Path(output),
            inputs=inputs,
            examples=others,
            output_names=list(output_name) or None,
            batched=not no_batch,
            max_batch_size=max_batch_size,
            method="script" if method == "script" else "trace" if method == "trace" else "auto",
        )
    names = [", ".join(spec.name for spec in one) for one in (signature.inputs, signature.outputs)]
    click.echo(f"wrote {output}: {names[0]} -> {names[1]}")
    click.echo(f"serve with: pyserve serve {output}")


def parse_example(text: str) -> ExampleSpec:
    """Parse `[NAME=]DTYPE[SIZES]`."""
    from pyserve.signature import DTYPES

    found = _EXAMPLE.fullmatch(text.strip())
    if found is None:
        raise click.UsageError(f"--example {text!r}: expected NAME=DTYPE[SIZES], image=FP32[1,8,8]")
    dtype = found["dtype"]
    if dtype not in DTYPES:
        raise click.UsageError(f"--example {text!r}: dtype is one of {', '.join(DTYPES)}")
    sizes = [size.strip() for size in found["sizes"].split(",") if size.strip()]
    return ExampleSpec((found["name"] or "").strip(), dtype, tuple(map(int, sizes)))


def example_calls(
    specs: Sequence[ExampleSpec], seed: int
) -> "list[dict[str, torch.Tensor | list[str]] | list[torch.Tensor | list[str]]]":
    """Return the example calls: every repetition of a name begins or joins another one."""
    import torch

    torch.manual_seed(seed)
    if not any(spec.name for spec in specs):
        return [[_value(spec) for spec in specs]]
    calls: list[dict[str, torch.Tensor | list[str]]] = []
    for spec in specs:
        if not spec.name:
            raise click.UsageError("--example: name all of the inputs or none of them")
        call = next((one for one in calls if spec.name not in one), None)
        if call is None:
            call = {}
            calls.append(call)
        call[spec.name] = _value(spec)
    # What a later call leaves out is as in the first one.
    return [calls[0] | call for call in calls]


def _value(spec: ExampleSpec) -> "torch.Tensor | list[str]":
    import torch

    from pyserve.signature import DTYPES

    if spec.dtype == "BYTES":
        count = 1
        for size in spec.shape:
            count *= size
        return ["example"] * count
    dtype = getattr(torch, DTYPES[spec.dtype].torch or "")
    if dtype.is_floating_point:
        return torch.randn(spec.shape).to(dtype)
    # Zeros and ones are indices, token ids and truth values that every model knows.
    return torch.randint(0, 2, spec.shape).to(dtype)


def load_module(source: str) -> "torch.nn.Module":
    """Import MODULE, call CALLABLE, and return the torch module it makes."""
    import torch

    where, colon, name = source.rpartition(":")
    if not colon or not name:
        raise click.UsageError(f"{source!r}: expected MODULE:CALLABLE, such as my_model.py:build")
    made = getattr(_import(where), name, None)
    if made is None:
        raise click.UsageError(f"{where} has no {name}")
    if not isinstance(made, torch.nn.Module) and callable(made):
        made = made()
    if not isinstance(made, torch.nn.Module):
        kind = type(made).__name__
        raise click.UsageError(f"{source} made a {kind}, expected a torch.nn.Module")
    return made


def _import(where: str) -> ModuleType:
    path = Path(where)
    if path.suffix == ".py":
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise click.UsageError(f"{where}: no such file")
        module = importlib.util.module_from_spec(spec)
        # Its neighbours can be imported, as when Python runs the file.
        sys.path.insert(0, str(path.parent.resolve()))
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    sys.path.insert(0, "")
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name != where.partition(".")[0] and error.name != where:
            raise
        raise click.UsageError(
            f"cannot import {where}: is it a file? then say {where}.py"
        ) from None
