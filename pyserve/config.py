"""What can be configured: a model's `config.yaml` and the server's `server.yaml`.

Every field is a key of the file, documented in docs/configuration.md.  Values arrive from
files, from `--set` and from keyword options; `typed.py` turns them into these structs and
words the errors.  Reading model files and planning threads belong to others.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec.inspect import LiteralType, NoneType, StrType

from pyserve import strict_yaml, typed
from pyserve.errors import ConfigError
from pyserve.process_config import Postprocess, Preprocess
from pyserve.signature import TensorSpec

_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
_DEVICE = re.compile(r"auto|cpu|cuda:[0-9]{1,3}")

Count = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Version = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Dimension = Annotated[int, msgspec.Meta(ge=0, le=63)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


def is_name(text: str) -> bool:
    """Whether `text` may name a model: letters, digits, `._-`, at most 128, no leading dot."""
    return _NAME.fullmatch(text) is not None


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of keys; frozen, so that one configuration may be shared by threads."""


def _check_ascending(key: str, sizes: tuple[int, ...]) -> None:
    for lower, higher in pairwise(sizes):
        if lower >= higher:
            raise ValueError(f"{key}: expected ascending numbers, got {lower} before {higher}")


class Batching(Group, frozen=True, kw_only=True):
    """How rows of several requests share one model call."""

    # None: the signature's maximum, or 32 where batching is proven.  A number insists.
    max_batch_size: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] | None = None
    # Rows that a model call may have, ascending; batches are filled up to the next.  (): any.
    allowed_batch_sizes: tuple[Annotated[int, msgspec.Meta(ge=1, le=1 << 20)], ...] = ()
    # A row's bits do not depend on the rows that it is run with.
    invariant: bool = False
    # None: wait for the callers of the batches before to come back, for a fraction of a run.
    max_queue_delay_us: Annotated[int, msgspec.Meta(ge=0, le=60_000_000)] | None = None

    def __post_init__(self) -> None:
        sizes = self.allowed_batch_sizes
        _check_ascending("allowed_batch_sizes", sizes)
        if sizes and self.max_batch_size not in (None, sizes[-1]):
            raise ValueError(
                f"allowed_batch_sizes ends at {sizes[-1]}, but max_batch_size is "
                f"{self.max_batch_size}: the last allowed size is the largest batch"
            )

        if self.invariant and self.rows == 0:
            raise ValueError("invariant needs a batch dimension, but max_batch_size is 0")

    @property
    def rows(self) -> int | None:
        """The largest batch that is asked for, by either key."""
        return self.allowed_batch_sizes[-1] if self.allowed_batch_sizes else self.max_batch_size


class LengthInput(Group, frozen=True, kw_only=True):
    """An input whose dimension `dim`, counted without the batch, is filled up with `pad`."""

    dim: Dimension
    pad: float = 0.0


class LengthOutput(Group, frozen=True, kw_only=True):
    """An output whose dimension `dim`, counted without the batch, is cut again."""

    dim: Dimension


class Lengths(Group, frozen=True, kw_only=True):
    """Lengths that vary from request to request, and what they are filled up to; empty: nothing."""

    buckets: tuple[Annotated[int, msgspec.Meta(ge=1, le=1 << 40)], ...] = ()
    inputs: dict[str, LengthInput] = {}
    # The input that is 1 where a length is real and 0 where it is padding.
    mask: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    outputs: dict[str, LengthOutput] = {}

    def __post_init__(self) -> None:
        _check_ascending("buckets", self.buckets)
        if self.buckets and not self.inputs:
            raise ValueError(
                "buckets need lengths.inputs, such as {tokens: {dim: 0}}: inputs that have a length"
            )
        if not self.buckets and (self.inputs or self.outputs or self.mask is not None):
            raise ValueError("lengths needs buckets, such as [32, 64, 128]")


class Instances(Group, frozen=True, kw_only=True):
    """Threads that run the model, and the threads of each one's operators."""

    count: Count | None = None
    threads: Count | None = None


class Queue(Group, frozen=True, kw_only=True):
    """Requests admitted and waiting for one version."""

    capacity: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 1024
    timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 0
    # Of requests that name none: 1 is high, 2 normal, 3 low.
    default_priority: Annotated[int, msgspec.Meta(ge=1, le=3)] = 2


class Versions(Group, frozen=True, kw_only=True):
    """Which versions of the repository are served."""

    policy: Literal["latest", "all", "specific"] = "latest"
    count: Annotated[int, msgspec.Meta(ge=1)] = 1
    specific: tuple[Version, ...] = ()

    def __post_init__(self) -> None:
        if self.policy == "specific" and not self.specific:
            raise ValueError('policy "specific" needs versions.specific, such as [1, 3]')
        if self.policy != "specific" and self.specific:
            raise ValueError(f'specific is only for policy "specific", got policy "{self.policy}"')

    def choose(self, present: Iterable[int]) -> tuple[int, ...]:
        """Return those of the `present` versions that are to be served, lowest first."""
        ordered = sorted(present)
        if self.policy == "all":
            return tuple(ordered)
        if self.policy == "specific":
            return tuple(version for version in ordered if version in self.specific)
        return tuple(ordered[-self.count :])


class ModelConfig(Group, frozen=True, kw_only=True):
    """A model's `config.yaml`; every key has a default or is read from the model file."""

    platform: Literal["torchscript", "aotinductor"] | None = None
    device: str = "auto"
    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    batching: Batching = Batching()
    lengths: Lengths = Lengths()
    instances: Instances = Instances()
    queue: Queue = Queue()
    versions: Versions = Versions()
    warmup: bool = True
    # Launch a warmed batch's kernels all at once, on a GPU.
    cuda_graphs: bool = False
    labels: dict[str, Version] = {}
    # Names of the classes, or a file of them beside the model.
    class_labels: str | tuple[str, ...] | None = None
    preprocess: tuple[Preprocess, ...] = ()
    postprocess: tuple[Postprocess, ...] = ()
    # FILE.py:CLASS, beside the model: Python that stands in for either.
    processor: Annotated[str, msgspec.Meta(min_length=1)] | None = None

    def __post_init__(self) -> None:
        _check_device(self.device)
        _check_specs("inputs", self.inputs)
        _check_specs("outputs", self.outputs)
        for label in self.labels:
            if not is_name(label) or label.isdigit():
                raise ValueError(
                    f"labels: {typed.show(label)} cannot be a label, expected letters, digits, "
                    '".", "_" or "-", and not digits alone'
                )


def _check_device(device: str) -> None:
    if _DEVICE.fullmatch(device) is None:
        raise ValueError(
            f"device: expected auto, cpu or cuda:N (such as cuda:0), got {typed.show(device)}"
        )


def _check_specs(key: str, specs: tuple[TensorSpec, ...] | None) -> None:
    if specs is None:
        return
    if not specs:
        raise ValueError(f"{key}: expected at least one tensor, got none")
    seen: set[str] = set()
    for index, spec in enumerate(specs):
        if spec.name in seen:
            raise ValueError(f'{key}[{index}].name: "{spec.name}" is given twice')
        seen.add(spec.name)


def load_model_config(source: str | Path, *, name: str | None = None) -> ModelConfig:
    """Read a `config.yaml`: a `Path` to it, or its text.  `name` is for error messages."""
    if isinstance(source, Path):
        label = f"{name}: {source.name}" if name else str(source)
        text: str | bytes = strict_yaml.read_text(source, source=label)
    else:
        label = f"{name}: config.yaml" if name else "config.yaml"
        text = source
    return typed.to_typed(strict_yaml.parse_mapping(text, source=label), ModelConfig, source=label)


# --- --set --------------------------------------------------------------------------------


class Setting(NamedTuple):
    """One `--set`: the model it is for (None: all), the key, and its typed value."""

    model: str | None
    key: tuple[str, ...]
    value: object
    text: str


def parse_setting(text: str) -> Setting:
    """Parse `[NAME:]key=value`; the value is YAML, or plain text where the key is a string."""
    source = f"--set {typed.show(text)}"
    left, equals, right = text.partition("=")
    if not equals:
        raise ConfigError(f"{source}: expected KEY=VALUE or NAME:KEY=VALUE")
    model, colon, dotted = left.rpartition(":")
    if not dotted.strip():
        raise ConfigError(f"{source}: expected a key before the equals sign")
    if colon and not is_name(model):
        raise ConfigError(f'{source}: "{model}" is not a model name')
    first, _, rest = dotted.strip().partition(".")
    # A label may hold dots itself: what follows `labels.` is one name.
    key = (first, rest) if first == "labels" and rest else tuple(dotted.strip().split("."))
    kind = typed.type_at(ModelConfig, key, source=source)
    raw = right.strip()
    value: object = raw
    if typed.part(kind, StrType) is None and typed.part(kind, LiteralType) is None:
        value = strict_yaml.parse(right, source=source)
    elif raw in ("", "null", "~") and typed.part(kind, NoneType) is not None:
        value = None
    return Setting(model if colon else None, key, value, text)


def apply_settings(
    config: ModelConfig, settings: Iterable[Setting | str], name: str
) -> ModelConfig:
    """Return `config` with the settings for model `name` applied; the last of equals wins.

    A setting that names the model is stronger than one for all models.  Every setting is
    parsed, also those for other models, so that a slip is found whichever model is loaded.
    """
    parsed = [one if isinstance(one, Setting) else parse_setting(one) for one in settings]
    chosen = [one for one in parsed if one.model is None]
    chosen += [one for one in parsed if one.model == name]
    if not chosen:
        return config
    changes = {one.key: one.value for one in chosen}
    return typed.overlay(config, changes, ModelConfig, source=f"--set for {name}")


# --- keyword options ----------------------------------------------------------------------

# What `pyserve.load` and `Engine` call the keys: flat, since Python callers know no groups.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "platform": ("platform",),
    "device": ("device",),
    "inputs": ("inputs",),
    "outputs": ("outputs",),
    "max_batch_size": ("batching", "max_batch_size"),
    "allowed_batch_sizes": ("batching", "allowed_batch_sizes"),
    "batch_invariant": ("batching", "invariant"),
    "max_queue_delay_us": ("batching", "max_queue_delay_us"),
    "lengths": ("lengths",),
    "instances": ("instances", "count"),
    "threads": ("instances", "threads"),
    "queue_capacity": ("queue", "capacity"),
    "timeout_ms": ("queue", "timeout_ms"),
    "default_priority": ("queue", "default_priority"),
    "warmup": ("warmup",),
    "cuda_graphs": ("cuda_graphs",),
}


def apply_options(
    config: ModelConfig, options: Mapping[str, object], *, source: str = "pyserve.load"
) -> ModelConfig:
    """Return `config` with keyword options such as `max_batch_size=32` applied."""
    for option in options:
        if option not in OPTIONS:
            hint = typed.nearest(option, OPTIONS) or f"; known options: {', '.join(OPTIONS)}"
            raise ConfigError(f'{source}: unknown option "{option}"{hint}')
    if not options:
        return config
    changes = {OPTIONS[option]: value for option, value in options.items()}
    return typed.overlay(config, changes, ModelConfig, source=source)


# --- the server ---------------------------------------------------------------------------


class ServerConfig(Group, frozen=True, kw_only=True):
    """The server's `server.yaml`; the command line's options carry the same names."""

    host: str = "127.0.0.1"
    http_port: Port = 8000
    grpc_port: Port = 8001
    model_repository: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    # None: `explicit` on a loopback listener, `none` on any other.
    model_control: Literal["none", "explicit", "poll"] | None = None
    load_model: tuple[str, ...] = ()
    poll_interval_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 5.0
    device: str = "auto"
    settings: tuple[str, ...] = ()
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    request_log: bool = False
    express: bool = True
    grpc: bool = True
    shared_memory: bool = False
    cors_origin: tuple[str, ...] = ()
    model_store: str | None = None
    ts_config: str | None = None
    torchserve_ports: bool = False
    allowed_urls: tuple[str, ...] = ()
    allow_handlers: bool = False
    drain_timeout_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 30.0
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)] = 64 << 20
    management_token: Annotated[str, msgspec.Meta(min_length=1)] | None = None

    def __post_init__(self) -> None:
        if not self.host.strip():
            raise ValueError("host: expected an address to listen on, got an empty one")
        _check_device(self.device)
        for setting in self.settings:
            try:
                parse_setting(setting)
            except ConfigError as error:
                raise ValueError(f"settings: {error}") from error

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the listener."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def control(self) -> Literal["none", "explicit", "poll"]:
        """The model control in force: `model_control`, or the default for the listener."""
        return self.model_control or ("explicit" if self.loopback else "none")

    def with_options(self, options: Mapping[str, object]) -> "ServerConfig":
        """Return a copy with the command line's `options`; those that are None change nothing."""
        changes: dict[tuple[str, ...], object] = {
            (name,): value for name, value in options.items() if value is not None
        }
        if not changes:
            return self
        return typed.overlay(self, changes, ServerConfig, source="command line")

    def configure(self, name: str, config: ModelConfig) -> ModelConfig:
        """Return model `name`'s configuration with this server's settings and device applied.

        The server's device stands in for `auto` only: what a model's own file says is kept.
        """
        if config.device == "auto":
            config = msgspec.structs.replace(config, device=self.device)
        return apply_settings(config, self.settings, name)

    def __repr__(self) -> str:
        fields = (
            f"{name}={'***' if name.endswith('token') and value else repr(value)}"
            for name, value in msgspec.structs.asdict(self).items()
        )
        return f"ServerConfig({', '.join(fields)})"


def load_server_config(path: Path) -> ServerConfig:
    """Read a `server.yaml`; relative paths in it are relative to its own folder."""
    label = str(path)
    plain = strict_yaml.parse_mapping(strict_yaml.read_text(path, source=label), source=label)
    config = typed.to_typed(plain, ServerConfig, source=label)
    folder = path.parent
    return msgspec.structs.replace(
        config,
        model_repository=tuple(str(folder / one) for one in config.model_repository),
        models=tuple(str(folder / one) for one in config.models),
        model_store=config.model_store and str(folder / config.model_store),
        ts_config=config.ts_config and str(folder / config.ts_config),
    )
