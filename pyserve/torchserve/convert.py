"""One archive becomes the folder of one version of a model, as a model repository has them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec

from pyserve.errors import LoadFailed
from pyserve.signature import read_signature
from pyserve.torchserve.archives import Limits, unpack
from pyserve.torchserve.faults import BadArchive
from pyserve.torchserve.handlers import ADAPTER, Mapping, map_handler
from pyserve.torchserve.manifest import (
    Manifest,
    ModelSettings,
    check_name,
    read_manifest,
    read_settings,
)

_EAGER = (
    "it is no TorchScript file, but weights for a Python class: build the model in Python, and "
    "export it with pyserve.export (or torch.jit.script and save), then archive that file without "
    "--model-file"
)


class Converted(NamedTuple):
    """A version's folder, complete with its model file, and what the archive said.

    signed: whether the model file knows its inputs and outputs.  notes: for the log.
    """

    folder: Path
    model: str
    version: str
    mapping: Mapping
    settings: ModelSettings
    runtime: str
    signed: bool
    notes: tuple[str, ...]

    @property
    def knows_inputs(self) -> bool:
        """Whether rows can be batched: the inputs are declared, by file or by handler."""
        return self.signed or "inputs" in self.mapping.config


def convert(
    archive: Path,
    scratch: Path,
    *,
    allow_handlers: bool,
    model_name: str = "",
    handler: str = "",
    limits: Limits | None = None,
) -> Converted:
    """Unpack an archive in the folder `scratch` and make a version's folder of it.

    model_name, handler: stand in for those of the manifest.  Blocks.  Raises BadArchive.
    """
    scratch.mkdir(parents=True)
    root = unpack(archive, scratch, limits)
    manifest = read_manifest(root)
    settings, notes = read_settings(root, manifest)
    shutil.rmtree(root / "MAR-INF")
    name = model_name or manifest.model.model_name
    check_name(name)
    signed = _place_model(root, manifest)
    files = {one.relative_to(root).as_posix() for one in root.rglob("*") if one.is_file()}
    mapping = map_handler(
        handler or manifest.model.handler, files, signed=signed, allow_handlers=allow_handlers
    )
    if mapping.adapter:
        (root / ADAPTER).write_text(mapping.adapter)
    if manifest.model.requirements_file:
        notes.append(f"{manifest.model.requirements_file}: nothing is installed from it")
    if manifest.model.model_file:
        notes.append(f"{manifest.model.model_file}: not needed, the model is TorchScript")
    return Converted(
        folder=root,
        model=name,
        version=manifest.model.model_version,
        mapping=mapping,
        settings=settings,
        runtime=manifest.runtime,
        signed=signed,
        notes=tuple(notes),
    )


def _place_model(root: Path, manifest: Manifest) -> bool:
    """Give the model file the name that a repository expects; whether it has a signature."""
    given = manifest.model.serialized_file
    if not given:
        reason = _EAGER if manifest.model.model_file else "serializedFile is missing"
        raise BadArchive(f"the manifest names no model file: {reason}")
    file = root / Path(given).name
    if not file.is_file():
        raise BadArchive(f"the model file {given[:80]!a} is not in the archive")
    target = root / ("model.pt2" if file.suffix == ".pt2" else "model.pt")
    if target != file and target.exists():
        raise BadArchive(f"{target.name} is there beside the model file {file.name}")
    if target.suffix == ".pt":
        try:
            signed = read_signature(file) is not None
        except LoadFailed as error:
            # A damaged TorchScript file has its own words; whatever else it is, is no TorchScript.
            raise BadArchive(f"{file.name}: {_EAGER}; {error}") from None
    else:
        signed = False
    file.rename(target)
    return signed


def write_config(folder: Path, config: dict[str, object]) -> None:
    """Write a model's `config.yaml` in one step; JSON is YAML too."""
    scratch = folder / ".config.new"
    text = msgspec.json.format(msgspec.json.encode(config), indent=2)
    scratch.write_bytes(b"# Written by pyserve for an archive of TorchServe.\n" + text + b"\n")
    scratch.rename(folder / "config.yaml")
