"""The engine, csrc/bindings.cc.  Private: use the pyserve package."""

from collections.abc import Sequence
from typing import Any, final

from pyserve.messages import Buffer, Completed, InputTensor

DURATION_BOUNDS_NS: tuple[int, ...]
ROW_BOUNDS: tuple[int, ...]

_Spec = tuple[str, str, tuple[int, ...]]

def code_names() -> list[str]: ...
def available_cpus() -> int: ...
def mark_forked() -> None: ...
def end_native_calls() -> None: ...
def parse_json_numbers(json: Buffer, datatype: str, count: int) -> bytearray: ...
def format_json_numbers(datatype: str, data: Buffer) -> bytes: ...

@final
class CompletionQueue:
    def __init__(self) -> None: ...
    def fileno(self) -> int: ...
    def drain(self) -> list[tuple[Any, str | None, Any]]: ...

@final
class Request:
    def cancel(self) -> bool: ...
    def expire(self) -> bool: ...

@final
class ModelVersion:
    def __init__(
        self,
        *,
        name: str,
        version: str,
        path: str,
        platform: str,
        device: str,
        inputs: Sequence[_Spec] | None,
        outputs: Sequence[_Spec] | None,
        max_batch_size: int,
        insist_on_batching: bool,
        max_queue_delay_us: int | None,
        queue_capacity: int,
        instances: int,
        plan_instances: bool,
        threads: int,
        warmup: bool,
        idle_spin_us: int,
        examples: Sequence[Sequence[InputTensor]],
    ) -> None: ...
    @property
    def device(self) -> str: ...
    @property
    def inputs(self) -> list[tuple[str, str, tuple[int, ...] | None]]: ...
    @property
    def outputs(self) -> list[tuple[str, str, tuple[int, ...] | None]]: ...
    @property
    def max_batch_size(self) -> int: ...
    @property
    def combines(self) -> bool: ...
    @property
    def batching_note(self) -> str: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def instances(self) -> int: ...
    @property
    def accepting(self) -> bool: ...
    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_ns: int) -> Any: ...
    def submit_wire(
        self,
        queue: CompletionQueue,
        inputs: Sequence[InputTensor],
        deadline_ns: int,
        wanted: Sequence[str] | None,
        token: Any,
        here: bool,
    ) -> Request | Completed: ...
    def submit_tensors(
        self,
        queue: CompletionQueue,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline_ns: int,
        token: Any,
    ) -> Request: ...
    def stats(self) -> dict[str, Any]: ...
    def drain(self, until_ns: int) -> bool: ...
    def close(self) -> None: ...
