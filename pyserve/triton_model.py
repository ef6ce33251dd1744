"""Triton's ModelConfig as typed values, and what it says in the words of our own configuration.

What has no counterpart here and changes no answer becomes a note; what would change answers and
cannot be honoured is a ConfigError.  Where the configuration stands (a request's JSON,
`config.pbtxt`) is for `triton_config.py`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, TypeAlias

import msgspec

from pyserve import typed
from pyserve.errors import ConfigError
from pyserve.signature import DTYPES

# Protobuf's JSON has 64-bit integers as text.
Whole: TypeAlias = int | Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,18}$")]
Key: TypeAlias = tuple[str, ...]

_BACKENDS = ("", "pytorch", "pyserve")
_PLATFORMS = ("", "pytorch_libtorch", "torchscript", "aotinductor")

# What changes answers and is not done here.
REFUSED: Mapping[str, str] = {
    "ensemble_scheduling": "ensembles are not supported",
    "sequence_batching": "sequences are not supported",
    "batch_input": "inputs that the batcher makes are not supported",
    "batch_output": "outputs that the batcher cuts are not supported",
    "model_repository_agents": "repository agents are not supported",
    "model_operations": "libraries of custom operators are not loaded",
}
_REFUSED_OF_TENSORS: Mapping[str, str] = {
    "reshape": "reshaping is not supported, declare the shape that the model takes",
    "allow_ragged_batch": "ragged batches are not supported",
    "is_shape_tensor": "shape tensors are TensorRT's",
}

# What changes no answer: who asks for it is told, and served.
_NOTED = (
    "optimization",
    "parameters",
    "cc_model_filenames",
    "metric_tags",
    "model_warmup",
    "model_metrics",
    "response_cache",
)
_NOTED_OF_BATCHING = (
    "preferred_batch_size",
    "preserve_ordering",
    "priority_queue_policy",
)
_NOTED_OF_INSTANCES = ("rate_limiter", "profile", "passive", "secondary_devices", "host_policy")

_PRIORITIES = 3  # that our requests may have

_INDEXED = re.compile(r".+__([0-9]{1,6})")


class _Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message of Triton's, as far as it has a counterpart."""


class _Latest(_Group, frozen=True, kw_only=True):
    num_versions: Whole = 1


class _All(_Group, frozen=True, kw_only=True):
    pass


class _Specific(_Group, frozen=True, kw_only=True):
    versions: tuple[Whole, ...] = ()


class _VersionPolicy(_Group, frozen=True, kw_only=True):
    latest: _Latest | None = None
    all: _All | None = None
    specific: _Specific | None = None


class _Tensor(_Group, frozen=True, kw_only=True):
    name: str
    data_type: str = "TYPE_INVALID"
    dims: tuple[Whole, ...] = ()
    # Of inputs: what a picture's dimensions are, and whether the model has a default.
    format: str = ""
    optional: bool = False
    # Of outputs.
    label_filename: str = ""
    is_non_linear_format_io: bool = False


class _InstanceGroup(_Group, frozen=True, kw_only=True):
    name: str = ""
    count: Whole = 1
    kind: Literal["KIND_AUTO", "KIND_CPU", "KIND_GPU", "KIND_MODEL"] = "KIND_AUTO"
    gpus: tuple[Whole, ...] = ()


class _QueuePolicy(_Group, frozen=True, kw_only=True):
    timeout_action: Literal["REJECT", "DELAY"] = "REJECT"
    default_timeout_microseconds: Whole = 0
    # A request's own timeout always counts here.
    allow_timeout_override: bool = False
    max_queue_size: Whole = 0


class _DynamicBatching(_Group, frozen=True, kw_only=True):
    max_queue_delay_microseconds: Whole | None = None
    default_queue_policy: _QueuePolicy | None = None
    priority_levels: Whole = 0
    default_priority_level: Whole = 0


class _TransactionPolicy(_Group, frozen=True, kw_only=True):
    decoupled: bool = False


class _ModelConfig(_Group, frozen=True, kw_only=True):
    name: str = ""
    platform: str = ""
    backend: str = ""
    runtime: str = ""
    default_model_filename: str = ""
    version_policy: _VersionPolicy | None = None
    max_batch_size: Whole | None = None
    input: tuple[_Tensor, ...] = ()
    output: tuple[_Tensor, ...] = ()
    dynamic_batching: _DynamicBatching | None = None
    instance_group: tuple[_InstanceGroup, ...] = ()
    model_transaction_policy: _TransactionPolicy | None = None


TRITON_KEYS = frozenset({*_ModelConfig.__struct_fields__, *REFUSED, *_NOTED})
"""The fields of ModelConfig that are known here."""


class Translated(NamedTuple):
    """What a ModelConfig says: values by the keys of our configuration, and what they leave out.

    name: the model's, or empty.  model_file: the name of its file in a version's folder, or empty.
    """

    changes: dict[Key, object]
    notes: tuple[str, ...]
    name: str
    model_file: str


def translate(plain: Mapping[str, object], *, source: str) -> Translated:
    """Translate a ModelConfig in the form of protobuf's JSON, with the names of its fields.

    Raises ConfigError for what is unknown, wrong or cannot be honoured; `source` opens its message.
    """
    notes: list[str] = []
    rest = _sifted(plain, "", _NOTED, REFUSED, notes, source)
    for key, noted, refused in (
        ("dynamic_batching", _NOTED_OF_BATCHING, {}),
        ("instance_group", _NOTED_OF_INSTANCES, {}),
        ("input", (), _REFUSED_OF_TENSORS),
        ("output", (), _REFUSED_OF_TENSORS),
    ):
        rest[key] = _sifted_within(rest.get(key), f"{key}.", noted, refused, notes, source)
        if rest[key] is None:
            del rest[key]
    config = typed.to_typed(rest, _ModelConfig, source=source)
    _check(config, source)
    changes: dict[Key, object] = {}
    if config.platform in ("torchscript", "aotinductor"):
        changes["platform",] = config.platform
    if config.max_batch_size is not None:
        changes["batching", "max_batch_size"] = int(config.max_batch_size)
    if config.input:
        changes |= _specs("inputs", config.input, source)
    if config.output:
        changes |= _specs("outputs", config.output, source) | _labels(config.output, notes)
    if config.dynamic_batching is not None:
        changes |= _batching(config.dynamic_batching, notes)
    if config.instance_group:
        changes |= _instances(config.instance_group, notes)
    if config.version_policy is not None:
        changes |= _versions(config.version_policy)
    return Translated(changes, tuple(notes), config.name, config.default_model_filename)


def _sifted(
    plain: Mapping[str, object],
    prefix: str,
    noted: Sequence[str],
    refused: Mapping[str, str],
    notes: list[str],
    source: str,
) -> dict[str, object]:
    """Return `plain` without what has no counterpart."""
    kept = dict(plain)
    for key, why in refused.items():
        # An empty message says something, unlike an empty list.
        if kept.pop(key, None) not in (None, False, "", []):
            raise ConfigError(f"{source}: {prefix}{key}: {why}")
    notes += [f"{prefix}{key}: no effect here" for key in noted if kept.pop(key, None)]
    return kept


def _sifted_within(
    value: object,
    prefix: str,
    noted: Sequence[str],
    refused: Mapping[str, str],
    notes: list[str],
    source: str,
) -> object:
    """Return a message, or a list of them, sifted; what is neither is for the types to judge."""
    if isinstance(value, dict):
        return _sifted(value, prefix, noted, refused, notes, source)
    if isinstance(value, list):
        return [_sifted_within(one, prefix, noted, refused, notes, source) for one in value]
    return value


def _check(config: _ModelConfig, source: str) -> None:
    if config.backend not in _BACKENDS:
        raise ConfigError(f"{source}: backend is {typed.show(config.backend)}, expected pytorch")
    if config.platform not in _PLATFORMS:
        raise ConfigError(
            f"{source}: platform is {typed.show(config.platform)}, expected pytorch_libtorch"
        )
    if config.runtime:
        raise ConfigError(
            f"{source}: runtime: models in Python are not supported, export the model"
        )
    policy = config.model_transaction_policy
    if policy is not None and policy.decoupled:
        raise ConfigError(
            f"{source}: model_transaction_policy.decoupled: a request has one answer here"
        )


def _specs(key: str, tensors: Sequence[_Tensor], source: str) -> dict[Key, object]:
    """Declare inputs or outputs, in the order in which the model has them.

    Names like INPUT__0 say the position themselves, as for Triton's PyTorch backend.  TYPE_INVALID
    declares nothing: it is what a model without a signature says of itself.
    """
    if all(one.data_type == "TYPE_INVALID" for one in tensors):
        return {}
    positions = [
        int(match[1]) if (match := _INDEXED.fullmatch(one.name)) else -1 for one in tensors
    ]
    if sorted(positions) == list(range(len(tensors))):
        tensors = [one for _, one in sorted(zip(positions, tensors, strict=True))]
    return {
        (key,): [
            {
                "name": one.name,
                "dtype": _dtype(one, source),
                "shape": [int(size) for size in one.dims],
            }
            for one in tensors
        ]
    }


def _dtype(tensor: _Tensor, source: str) -> str:
    name = tensor.data_type.removeprefix("TYPE_")
    name = "BYTES" if name == "STRING" else name
    if name not in DTYPES or name == tensor.data_type:
        raise ConfigError(
            f"{source}: {typed.show(tensor.name)} has data_type {typed.show(tensor.data_type)}, "
            "expected one such as TYPE_FP32"
        )
    return name


def _labels(outputs: Sequence[_Tensor], notes: list[str]) -> dict[Key, object]:
    files = list(dict.fromkeys(one.label_filename for one in outputs if one.label_filename))
    if len(files) > 1:
        notes.append(f"one file of labels for all outputs: {files[0]}")
    return {("class_labels",): files[0]} if files else {}


def _batching(batching: _DynamicBatching, notes: list[str]) -> dict[Key, object]:
    changes: dict[Key, object] = {}
    if batching.max_queue_delay_microseconds is not None:
        changes["batching", "max_queue_delay_us"] = int(batching.max_queue_delay_microseconds)
    if int(batching.priority_levels) > _PRIORITIES:
        notes.append("priority_levels: there are three here, requests with others are refused")
    if int(batching.default_priority_level):
        lowest = min(int(batching.default_priority_level), _PRIORITIES)
        changes["queue", "default_priority"] = lowest
    policy = batching.default_queue_policy
    if policy is None:
        return changes
    timeout_us = int(policy.default_timeout_microseconds)
    if timeout_us and policy.timeout_action == "DELAY":
        notes.append("timeout_action DELAY: no effect here, requests have no default deadline")
    elif timeout_us:
        # Ours are milliseconds; a deadline is not to become none.
        changes["queue", "timeout_ms"] = -(-timeout_us // 1000)
    if int(policy.max_queue_size):
        changes["queue", "capacity"] = int(policy.max_queue_size)
    return changes


def _instances(groups: Sequence[_InstanceGroup], notes: list[str]) -> dict[Key, object]:
    first = groups[0]
    if len({(one.kind, one.gpus) for one in groups}) > 1 or len(first.gpus) > 1:
        notes.append("instances run on one device here, the first that instance_group names")
    changes: dict[Key, object] = {
        ("instances", "count"): sum(max(int(one.count), 1) for one in groups)
    }
    if first.kind == "KIND_CPU":
        changes["device",] = "cpu"
    elif first.gpus:
        changes["device",] = f"cuda:{int(first.gpus[0])}"
    return changes


def _versions(policy: _VersionPolicy) -> dict[Key, object]:
    if policy.specific is not None:
        value: dict[str, object] = {
            "policy": "specific",
            "specific": [int(one) for one in policy.specific.versions],
        }
    elif policy.all is not None:
        value = {"policy": "all"}
    else:
        count = 1 if policy.latest is None else max(int(policy.latest.num_versions), 1)
        value = {"policy": "latest", "count": count}
    return {("versions",): value}
