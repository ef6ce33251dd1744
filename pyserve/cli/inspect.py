"""`pyserve inspect`: what a model file, or a model on a running server, takes and gives."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click


@click.command("inspect", short_help="Show a model's inputs, outputs and versions.")
@click.argument("target", metavar="FILE|NAME@URL")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(target: str, as_json: bool) -> None:
    """Show what a model takes and gives.

    \b
    A file (nothing is loaded or run):
      pyserve inspect models/digits/1/model.pt
    A model on a running server, or one version of it:
      pyserve inspect digits@http://127.0.0.1:8000
      pyserve inspect digits/1@http://127.0.0.1:8000
    """
    name, at, url = target.rpartition("@")
    if at and not Path(target).exists():
        facts = _from_server(name, url)
    else:
        facts = _from_file(Path(target))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        _show(facts)


def _from_server(name: str, url: str) -> dict[str, Any]:
    import msgspec

    from pyserve.cli.asking import asking, name_and_version

    model, version = name_and_version(name)
    with asking(url) as client:
        metadata, statistics = client.metadata(model, version), client.statistics(model, version)
    facts: dict[str, Any] = msgspec.to_builtins(metadata)
    return facts | {"statistics": msgspec.to_builtins(statistics)}


def _from_file(path: Path) -> dict[str, Any]:
    from pyserve.errors import ConfigError
    from pyserve.signature import TensorSpec, read_signature

    if not path.exists():
        raise ConfigError(
            f"{path}: no such file; for a model on a server say NAME@http://HOST:PORT"
        )
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, expected a model file such as {path}/1/model.pt")
    signature = read_signature(path)
    facts: dict[str, Any] = {"name": path.name, "bytes": path.stat().st_size}
    if signature is None:
        note = "no signature inside: batching is off and shapes are unchecked until it has one; "
        return facts | {"notes": [note + "write the file with `pyserve export`"]}

    def describe(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        batch = (-1,) if signature.batched else ()
        return [
            {"name": spec.name, "datatype": spec.dtype, "shape": [*batch, *spec.shape]}
            for spec in specs
        ]

    facts["inputs"] = describe(signature.inputs)
    facts["outputs"] = describe(signature.outputs)
    facts["properties"] = {"batched": signature.batched, "max_batch_size": signature.max_batch_size}
    facts["examples"] = len(signature.examples)
    provenance = signature.provenance
    if provenance is not None:
        facts["provenance"] = {
            "created": provenance.created,
            "torch": provenance.torch_version,
            "pyserve": provenance.pyserve_version,
            "source_sha256": provenance.source_hash,
        }
    return facts


def _show(facts: dict[str, Any]) -> None:
    click.echo(facts["name"])
    if "bytes" in facts:
        click.echo(f"  size      {facts['bytes']:,} bytes")
    if "versions" in facts:
        click.echo(f"  versions  {', '.join(facts['versions'])}")
    if "platform" in facts:
        click.echo(f"  platform  {facts['platform']}")
    for kind in ("inputs", "outputs"):
        for tensor in facts.get(kind, ()):
            click.echo(f"  {kind[:-1]:<8}  {_tensor(tensor)}")
    properties = {**facts.get("properties", {}), **facts.get("provenance", {})}
    notes = properties.pop("notes", []) + facts.get("notes", [])
    for key, value in properties.items():
        if value is not None:
            click.echo(f"  {key.replace('_', ' ')}: {value}")
    _show_statistics(facts.get("statistics", ()))
    for note in notes:
        click.echo(f"  note: {note}")


def _tensor(tensor: dict[str, Any]) -> str:
    sizes = ", ".join("any" if size == -1 else str(size) for size in tensor["shape"])
    return f"{tensor['name']}  {tensor['datatype']}[{sizes}]"


def _show_statistics(versions: Iterable[dict[str, Any]]) -> None:
    for one in versions:
        ended = one["inference_stats"]
        click.echo(
            f"  version {one['version']}: {ended['success']['count']} requests answered, "
            f"{ended['fail']['count']} failed, {one['inference_count']} rows in "
            f"{one['execution_count']} model calls"
        )
