"""A directory on disk becomes models, versions and configurations; nothing is loaded here.

    REPO/NAME/config.yaml          optional
    REPO/NAME/config.pbtxt         Triton's, where there is no config.yaml
    REPO/NAME/VERSION/model.pt     TorchScript; VERSION is a positive integer
    REPO/NAME/VERSION/model.pt2    AOTInductor package

A fault in one model's folder is told in that model's entry, so that the others are served.
Only a repository that cannot be read at all is an error of its own.
"""

import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pyserve.config import ModelConfig, is_name, load_model_config
from pyserve.errors import ConfigError
from pyserve.triton_config import CONFIG_PBTXT, read_pbtxt
from pyserve.typed import show

CONFIG_FILE: Final = "config.yaml"
PLATFORM_BY_FILE: Final[Mapping[str, str]] = {
    "model.pt": "torchscript",
    "model.pt2": "aotinductor",
}

_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_log = logging.getLogger(__name__)

Configure = Callable[[str, ModelConfig], ModelConfig]
# What tells one state of a file from another: where it lies, inode, size, time of change.
Stamp = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """What the disk says about one model at the moment of the scan.

    versions: the versions that can be tried, each with its model file.
    problems: versions that cannot, each with the reason.
    error: why nothing of this model can be loaded; empty when something can.
    notes: what was passed over, for the log.
    stamps: changes whenever a file that matters here does.
    """

    name: str
    config: ModelConfig = field(default_factory=ModelConfig)
    versions: Mapping[int, Path] = field(default_factory=dict)
    problems: Mapping[int, str] = field(default_factory=dict)
    error: str = ""
    notes: tuple[str, ...] = ()
    stamps: tuple[Stamp, ...] = ()

    def chosen(self) -> dict[int, Path]:
        """Return the versions that the policy picks, lowest first."""
        return {version: self.versions[version] for version in self.policy_picks()}

    def policy_picks(self) -> tuple[int, ...]:
        """Return the numbers of the versions to be served; those with problems are not."""
        return self.config.versions.choose(self.versions)

    def stamp_of(self, version: int) -> Stamp | None:
        """Return the stamp of one version's file, to tell whether it is still the same."""
        path = str(self.versions[version])
        return next((stamp for stamp in self.stamps if stamp[0] == path), None)


def _as_configured(_name: str, config: ModelConfig) -> ModelConfig:
    return config


class Repository:
    """Where models come from: folders of models, and single files beside them.

    `configure` has the last word on a model's configuration (`--set`, keyword options); what
    it raises as `ConfigError` becomes the entry's error.
    """

    def __init__(
        self,
        directories: Iterable[str | Path] = (),
        *,
        files: Iterable[str | Path] = (),
        configure: Configure = _as_configured,
    ) -> None:
        self.directories = tuple(Path(one) for one in directories)
        self.files = tuple(Path(one) for one in files)
        self._configure = configure
        self._told: set[str] = set()

    def scan(self) -> dict[str, ModelEntry]:
        """Read all entries, in the order of their names; ConfigError if a folder is missing."""
        entries = scan(self.directories, passed_over=self._passed_over)
        for path in self.files:
            _add(entries, entry_for_file(path))
        return {name: self._finish(entries[name]) for name in sorted(entries)}

    def find(self, name: str) -> ModelEntry | None:
        """Read the entry for one model afresh, or None where there is none."""
        if not is_name(name):
            return None
        entries: dict[str, ModelEntry] = {}
        for directory in self.directories:
            folder = directory / name
            if _is_folder(folder):
                _add(entries, entry_for_folder(folder, name=folder.name))
        for path in self.files:
            if path.stem == name:
                _add(entries, entry_for_file(path))
        entry = entries.get(name)
        return None if entry is None else self._finish(entry)

    def _passed_over(self, folder: str) -> None:
        if folder not in self._told:
            self._told.add(folder)
            _log.warning(
                "model repository: folder %a is not served, expected a name of at most 128 "
                'letters, digits, ".", "_" and "-"',
                folder,
            )

    def _finish(self, entry: ModelEntry) -> ModelEntry:
        try:
            entry = replace(entry, config=self._configure(entry.name, entry.config))
        except ConfigError as error:
            return replace(entry, error=entry.error or error.message)
        if entry.error or entry.policy_picks():
            return entry
        if not entry.versions:
            reasons = [f"version {one}: {why}" for one, why in sorted(entry.problems.items())]
            return replace(
                entry, error="; ".join(reasons) or "no versions, expected NAME/1/model.pt"
            )
        wanted = ", ".join(str(one) for one in entry.config.versions.specific)
        present = ", ".join(str(one) for one in sorted(entry.versions))
        return replace(
            entry, error=f"versions.specific asks for {wanted}, the folder has {present}"
        )


def scan(
    directories: Iterable[str | Path], *, passed_over: Callable[[str], None] | None = None
) -> dict[str, ModelEntry]:
    """Read every model folder of the directories; one name in two of them is an error of both.

    Folders whose names cannot name a model are handed to `passed_over`.  Raises ConfigError
    where a directory cannot be read.
    """
    entries: dict[str, ModelEntry] = {}
    for directory in map(Path, directories):
        for folder in _folders(directory):
            if is_name(folder.name):
                _add(entries, entry_for_folder(folder, name=folder.name))
            elif passed_over is not None and not folder.name.startswith("."):
                passed_over(folder.name)
    return entries


def entry_for_folder(folder: Path, *, name: str | None = None) -> ModelEntry:
    """Read one model's folder; the model is named as the folder unless `name` is given.

    Raises ConfigError if that cannot name a model; all else that is wrong is in the entry.
    """
    name = _checked_name(folder, folder.resolve().name if name is None else name)
    config_path = folder / CONFIG_FILE
    pbtxt_path = folder / CONFIG_PBTXT
    stamps: list[Stamp] = []
    notes: list[str] = []
    error = ""
    config = ModelConfig()
    model_file = ""
    stamp = _stamp(config_path)
    pbtxt_stamp = _stamp(pbtxt_path)
    try:
        if stamp is not None:
            stamps.append(stamp)
            if pbtxt_stamp is not None:
                notes.append(f"{CONFIG_PBTXT} is not read, {CONFIG_FILE} is there")
            config = load_model_config(config_path, name=name)
        elif pbtxt_stamp is not None:
            stamps.append(pbtxt_stamp)
            config, model_file, passed_over = read_pbtxt(pbtxt_path, name=name)
            notes += passed_over
    except ConfigError as fault:
        error = fault.message
    if _is_file(folder / "config.yml"):
        notes.append("config.yml is not read, the name is config.yaml")

    versions: dict[int, Path] = {}
    problems: dict[int, str] = {}
    try:
        inner = _folders(folder)
    except ConfigError:
        inner = []
        error = error or "the folder cannot be read"
    for version_folder in inner:
        if _VERSION.fullmatch(version_folder.name) is None:
            if not version_folder.name.startswith("."):
                notes.append(
                    f"folder {version_folder.name!a} is not a version, "
                    "expected a positive integer without leading zeros"
                )
            continue
        version = int(version_folder.name)
        if version >= 2**63:
            notes.append(f"version {version} is too large")
            continue
        found = _model_file(version_folder, config.platform, model_file)
        if isinstance(found, str):
            problems[version] = found
            continue
        stamp = _stamp(found)
        if stamp is None:
            problems[version] = f"{found.name} cannot be read"
            continue
        versions[version] = found
        stamps.append(stamp)
    return ModelEntry(
        name=name,
        config=config,
        versions=dict(sorted(versions.items())),
        problems=problems,
        error=error,
        notes=tuple(notes),
        stamps=tuple(sorted(stamps)),
    )


def entry_for_file(path: str | Path, *, name: str | None = None) -> ModelEntry:
    """Make the entry for a bare model file: version 1, named by its stem unless `name` is given.

    Raises ConfigError if there is no such file or its name cannot name a model.
    """
    path = Path(path)
    if _is_folder(path):
        raise ConfigError(f"{path} is a folder, expected a model file such as model.pt")
    stamp = _stamp(path)
    if stamp is None:
        raise ConfigError(f"{path}: no such file")
    name = _checked_name(path, path.stem if name is None else name)
    return ModelEntry(name=name, versions={1: path}, stamps=(stamp,))


def _checked_name(path: Path, name: str) -> str:
    if not is_name(name):
        raise ConfigError(
            f"{path}: {show(name)} cannot name a model, expected at most 128 letters, digits, "
            '".", "_" and "-", not starting with a dot: rename it'
        )
    return name


def platform_of(path: Path, config: ModelConfig) -> str:
    """Return the platform of a model file: as configured, else by the file's suffix."""
    if config.platform is not None:
        return config.platform
    return "aotinductor" if path.suffix == ".pt2" else "torchscript"


def _add(entries: dict[str, ModelEntry], entry: ModelEntry) -> None:
    known = entries.get(entry.name)
    if known is not None:
        # Which of the two was meant cannot be known, and versions of both must not mix.
        entry = ModelEntry(
            name=entry.name,
            error="the name is there twice, in two repositories or files: rename one",
            stamps=known.stamps + entry.stamps,
        )
    entries[entry.name] = entry


def _folders(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as found:
            names = sorted(one.name for one in found)
    except OSError as error:
        raise ConfigError(
            f"{directory}: cannot be read as a folder: {error.strerror or error}"
        ) from error
    return [path for name in names if _is_folder(path := directory / name)]


def _model_file(folder: Path, platform: str | None, name: str) -> Path | str:
    """Return the model file of a version's folder, or what is wrong with the folder.

    name: what it is called where the configuration says so, else empty.
    """
    if name:
        return folder / name if _is_file(folder / name) else f"no {name}"
    present = {name: kind for name, kind in PLATFORM_BY_FILE.items() if _is_file(folder / name)}
    fitting = [name for name, kind in present.items() if platform in (None, kind)]
    if len(fitting) == 1:
        return folder / fitting[0]
    if fitting:
        return f"both {' and '.join(fitting)} are there: set platform in {CONFIG_FILE}"
    if present:
        return f"platform is {platform}, but the file is {', '.join(present)}"
    return "no model.pt or model.pt2"


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(_mode(path))


def _mode(path: Path) -> int:
    """Return the file's mode, 0 for what is not there or may not be looked at."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
