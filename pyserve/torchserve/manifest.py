"""`MAR-INF/MANIFEST.json` and `model-config.yaml`: what an archive says about itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec

from pyserve import strict_yaml
from pyserve.config import is_name
from pyserve.errors import ConfigError
from pyserve.torchserve.faults import BadArchive
from pyserve.typed import show

_MAX_MANIFEST_BYTES = 1 << 20
_VERSION = re.compile(r"([1-9][0-9]{0,17})(\.0+)*")

Text = Annotated[str, msgspec.Meta(max_length=512)]


class ModelManifest(msgspec.Struct, frozen=True, rename="camel"):
    """The part of the manifest that is about the model."""

    model_name: Text
    model_version: Text = "1.0"
    serialized_file: Text = ""
    handler: Text = ""
    model_file: Text = ""
    config_file: Text = ""
    requirements_file: Text = ""


class Manifest(msgspec.Struct, frozen=True):
    """The whole of it, as far as it matters here."""

    model: ModelManifest
    runtime: Text = "python"


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said about one model's serving; None leaves it to pyserve.

    Times are in the units of TorchServe: the delay in milliseconds, the timeout in seconds.
    """

    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay: int | None = None
    response_timeout: int | None = None
    job_queue_size: int | None = None

    def over(self, other: ModelSettings) -> ModelSettings:
        """Return these settings, with those of `other` where these say nothing."""
        mine = {name: value for name, value in msgspec.structs.asdict(self).items() if value}
        # 0 workers say something, 0 of anything else does not.
        if self.min_workers == 0:
            mine["min_workers"] = 0
        return msgspec.structs.replace(other, **mine)


SETTINGS = {
    "minWorkers": "min_workers",
    "maxWorkers": "max_workers",
    "batchSize": "batch_size",
    "maxBatchDelay": "max_batch_delay",
    "responseTimeout": "response_timeout",
    "jobQueueSize": "job_queue_size",
}
"""The settings by TorchServe's names."""


def read_manifest(root: Path) -> Manifest:
    """Read the manifest of an unpacked archive; BadArchive says what is wrong with it."""
    path = root / "MAR-INF" / "MANIFEST.json"
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise BadArchive(f"MANIFEST.json has more than {_MAX_MANIFEST_BYTES} bytes")
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadArchive(f"MANIFEST.json is not what was expected: {error}") from None
    check_name(manifest.model.model_name)
    version = manifest.model.model_version
    if not is_name(version):
        raise BadArchive(
            f"version {show(version)} cannot be one, expected at most 128 letters, digits, "
            '".", "_" and "-", such as 1.0'
        )
    return manifest


def check_name(name: str) -> None:
    """Raise BadArchive where `name` cannot name a model."""
    if not is_name(name):
        raise BadArchive(
            f"{show(name)} cannot name a model, expected at most 128 letters, digits, "
            '".", "_" and "-", not starting with a dot'
        )


def version_number(text: str) -> int | None:
    """Return the number that a version's text stands for: 2 for "2" and "2.0"; None for others."""
    match = _VERSION.fullmatch(text)
    return int(match[1]) if match else None


def read_settings(root: Path, manifest: Manifest) -> tuple[ModelSettings, list[str]]:
    """Read the settings in the archive's own configuration file; and notes on what was not read."""
    name = manifest.model.config_file
    path = root / Path(name).name if name else None
    if path is None or not path.is_file():
        return ModelSettings(), []
    try:
        text = strict_yaml.read_text(path, source=path.name)
        plain = strict_yaml.parse_mapping(text, source=path.name)
    except ConfigError as error:
        raise BadArchive(str(error)) from None
    return settings_of(plain, source=path.name)


def settings_of(plain: dict[str, object], *, source: str) -> tuple[ModelSettings, list[str]]:
    """Return the settings among TorchServe's keys in `plain`, and notes on the others."""
    found: dict[str, int] = {}
    notes = []
    for key, value in plain.items():
        field = SETTINGS.get(key)
        number = _number(value)
        if field is None:
            notes.append(f"{source}: {show(key)} has no counterpart and is ignored")
        elif number is None:
            notes.append(f"{source}: {key} is {show(value)}, expected a number: it is ignored")
        else:
            found[field] = number
    return ModelSettings(**found), notes


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value.strip()[:12])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**9:
        return None
    return value
