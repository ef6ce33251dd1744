"""What a server says about itself and its models, in the words of the Open Inference Protocol."""

from typing import Any

import msgspec


class ServerMetadata(msgspec.Struct, frozen=True):
    """Who answers, and which extensions of the protocol it speaks."""

    name: str
    version: str
    extensions: tuple[str, ...] = ()


class TensorMetadata(msgspec.Struct, frozen=True):
    """An input or output; -1 in the shape is the batch or any size.

    Of a model without a signature only the names are known: datatype "" and no shape.
    """

    name: str
    datatype: str = ""
    shape: tuple[int, ...] = ()


class ModelMetadata(msgspec.Struct, frozen=True):
    """What a model takes and gives; `properties` only where the server is pyserve, over HTTP."""

    name: str
    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[TensorMetadata, ...] = ()
    outputs: tuple[TensorMetadata, ...] = ()
    properties: dict[str, Any] = {}


class IndexEntry(msgspec.Struct, frozen=True):
    """One version of a model in the repository; `version` is "" for one that was never loaded."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


class DurationStatistics(msgspec.Struct, frozen=True):
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0


class ModelStatistics(msgspec.Struct, frozen=True):
    """What one version has done since it was loaded.

    inference_count counts rows, execution_count calls of the model; inference_stats has `success`,
    `fail`, `queue`, `compute_input`, `compute_infer`, `compute_output` and what else the server
    counts; last_inference is milliseconds since 1970.
    """

    name: str
    version: str = ""
    last_inference: int = 0
    inference_count: int = 0
    execution_count: int = 0
    inference_stats: dict[str, DurationStatistics] = {}
