"""One loaded model version in this process: call it, await it, or hand it a request's bytes.

Loading, proving and running are the core's (`pyserve._C`); names, versions and swaps are the
registry's.  Requests from any number of threads and tasks meet in the core and run in batches.
"""

import asyncio
import atexit
import os
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pyserve._native import core
from pyserve.completions import CompletionReader, reader_for
from pyserve.config import ModelConfig
from pyserve.deadlines import deadlines_here
from pyserve.errors import ConfigError, LoadFailed
from pyserve.messages import Completed, Histogram, InputTensor, VersionStats
from pyserve.plan import InstancePlan, plan_instances
from pyserve.scheduling import NEVER_NS, deadline_after, overdue, priority_of
from pyserve.signature import Example, Signature, TensorSpec, UntypedSpec

if TYPE_CHECKING:
    from pyserve import _C
    from pyserve.processing.processor import Processor

DEFAULT_MAX_BATCH_SIZE = 32
PLATFORMS = {".pt": "torchscript", ".pt2": "aotinductor"}

# How long an idle instance spins before it sleeps, in microseconds: longer than a caller takes
# between two requests, far shorter than anyone would notice on an idle server.
_IDLE_SPIN_US = 50

_T = TypeVar("_T")


class Model:
    """A loaded version.  Thread-safe; also a context manager that closes it.

    inputs, outputs: specs without the batch dimension; `UntypedSpec` where only a name is known.
    batched: every input and output has the batch as dimension 0, of at most `max_batch_size` rows.
    combines: requests may share a model call; if not, `batching_note` says why.
    """

    def __init__(
        self,
        version: "_C.ModelVersion",
        *,
        name: str,
        number: str,
        path: Path,
        platform: str,
        threads: int,
        timeout_ns: int,
        example: Sequence[InputTensor],
    ) -> None:
        self._version = version
        self._reader: CompletionReader | None = None
        self._readers: set[CompletionReader] = set()
        self._closed = False
        self._timeout_ns = timeout_ns  # the core's default, of requests that bring no deadline
        self.name = name
        self.version = number
        self.path = path
        self.platform = platform
        self.instances: int = version.instances
        self.threads = threads
        self.elastic: bool = version.elastic  # a lone request gets the threads of all instances
        # A light model answers a lone request on the thread that asks; `example` is such a request,
        # empty where none is known.
        self.light: bool = version.runs_here
        self.example = tuple(example)
        self.device: str = version.device
        self.inputs = tuple(_spec(item) for item in version.inputs)
        self.outputs = tuple(_spec(item) for item in version.outputs)
        self.max_batch_size: int = version.max_batch_size
        self.batched = self.max_batch_size > 0
        # Rows and lengths that the model is run with; empty: any.
        self.allowed_batch_sizes: tuple[int, ...] = tuple(version.allowed_batch_sizes)
        self.length_buckets: tuple[int, ...] = tuple(version.length_buckets)
        # A row's bits do not depend on its batch mates.
        self.batch_invariant: bool = version.batch_invariant
        self.combines: bool = version.combines
        self.batching_note: str = version.batching_note
        self._notes: tuple[str, ...] = tuple(version.notes)
        # What stands between a client's data and the tensors; a server sets it, see processing/.
        self.processor: Processor | None = None
        self.class_labels: tuple[str, ...] = ()
        _open_models.add(self)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not as the configuration or the file would have it, one line each."""
        limit = self._version.row_limit
        if not limit:
            return self._notes
        return (*self._notes, f"batches have at most {limit} rows: more did not fit into memory")

    @property
    def failure(self) -> str:
        """Why this version will never serve again, such as a lost device; empty if it may."""
        return self._version.failure

    @property
    def state(self) -> str:
        """READY, DRAINING, FAILED or GONE."""
        if self._closed:
            return "GONE"
        if self.failure:
            return "FAILED"
        return "READY" if self._version.accepting else "DRAINING"

    def __call__(
        self, *args: Any, timeout: float | None = None, priority: Any = None, **kwargs: Any
    ) -> Any:
        """Run one request and wait for it: torch tensors in (by position or name), the same out.

        Inputs include the batch dimension.  Returns a tensor, or a tuple or dict of tensors as the
        module does.  timeout: seconds; raises `DeadlineExceeded` after it, and whatever else
        `pyserve.errors` names.  priority: 1 (high), 2 or 3 (low); of a model that has an input of
        this name, it is that input.
        """
        level = self._priority(priority, kwargs)
        return self._version.call(args, kwargs, _deadline_ns(timeout), level)

    async def infer(
        self, *args: Any, timeout: float | None = None, priority: Any = None, **kwargs: Any
    ) -> Any:
        """Like a call, from asyncio; cancelling the task cancels the request."""
        reader = self._reader_here()
        future = reader.loop.create_future()
        level = self._priority(priority, kwargs)
        request = self._version.submit_tensors(
            reader.queue, args, kwargs, _deadline_ns(timeout), future, level
        )
        return await settled(request, future)

    async def infer_tensors(
        self,
        inputs: Sequence[InputTensor],
        *,
        deadline_ns: int = 0,
        priority: int = 0,
        outputs: Sequence[str] | None = None,
    ) -> Completed:
        """Run a request that is bytes, as protocols deliver it; no torch tensor is made in Python.

        deadline_ns: an instant of `time.monotonic_ns()`.  priority: 1 (high) to 3 (low).  0 stands
        for the model's default of either.  outputs: the names wanted.
        The buffers of `inputs` are kept alive, not copied, and must not change until this returns.
        """
        reader = self._reader_here()
        future: asyncio.Future[Completed] = reader.loop.create_future()
        here = reader.lone_arrival()
        request = self._version.submit_wire(
            reader.queue, inputs, deadline_ns, outputs, future, here, priority
        )
        if isinstance(request, Completed):  # a light model, asked while idle, answers at once
            return request
        return await settled(request, future)

    @property
    def express_version(self) -> "_C.ModelVersion | None":
        """The core's version, for a lane that hands it requests itself.

        None where there is more to a request: pictures need a thread.
        """
        return None if self.processor is not None else self._version

    def submit_grpc(
        self, lane: "_C.GrpcLane", message: bytes, deadline_ns: int, token: Any
    ) -> "tuple[bytes, bytes] | _C.Request | None":
        """Submit a request as it came over gRPC; on the event loop.

        The answer and its timing if it is answered at once; a request whose answer goes to `token`,
        a future, and is to be awaited by `settled`; or None, if the plain lane must see to it.
        deadline_ns: as for `infer_tensors`.
        """
        if self.processor is not None:
            return None
        # Beside what gRPC takes for a call, a light model's run is next to nothing, and a batch
        # would spare less than it costs to hand it over.
        reader = self._reader_here()
        return lane.submit(self._version, reader.queue, message, deadline_ns, token)

    def stats(self) -> VersionStats:
        """Return what this version has done since it was loaded."""
        raw = self._version.stats()

        def seconds(name: str) -> Histogram:
            return _histogram(raw.pop(name), core().DURATION_BOUNDS_NS, 1e-9)

        return VersionStats(
            request_seconds=seconds("request"),
            queue_seconds=seconds("queue"),
            copy_in_seconds=seconds("copy_in"),
            compute_seconds=seconds("compute"),
            copy_out_seconds=seconds("copy_out"),
            batch_size=_histogram(raw.pop("batch_size"), core().ROW_BOUNDS, 1),
            **raw,
        )

    def drain(self, timeout_s: float | None = None) -> bool:
        """Admit nothing more and wait for what is in flight; False when `timeout_s` came first."""
        until_ns = NEVER_NS if timeout_s is None else deadline_after(timeout_s)
        return self._version.drain(until_ns)

    def close(self) -> None:
        """Cancel what waits, wait for what runs, free the model.  Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._version.close()
        for reader in list(self._readers):
            reader.discard()
        _open_models.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pyserve.Model {self.name!r} version {self.version} on {self.device}>"

    def default_deadline_ns(self) -> int:
        """Return the deadline of a request that arrives now and brings none; 0 for none."""
        return time.monotonic_ns() + self._timeout_ns if self._timeout_ns else 0

    def _priority(self, value: Any, inputs: dict[str, Any]) -> int:
        """Return the priority that a caller named, unless it is one of the model's `inputs`."""
        if value is not None and any(one.name == "priority" for one in self.inputs):
            inputs["priority"] = value
            return 0
        return priority_of(value)

    def _reader_here(self) -> CompletionReader:
        loop = asyncio.get_running_loop()
        reader = self._reader
        if reader is None or reader.loop is not loop:
            reader = self._reader = reader_for(loop)
            self._readers.add(reader)
        return reader


def load_model(
    path: str | Path, *, name: str, version: str, config: ModelConfig, signature: Signature | None
) -> Model:
    """Load, prove and warm a model file; blocks, without the GIL, until it is ready to serve.

    Raises `LoadFailed` when the file cannot be loaded, `ConfigError` when the configuration asks
    for what the model cannot do.
    """
    path = Path(path)
    platform = config.platform or PLATFORMS.get(path.suffix, "torchscript")
    if not path.is_file():
        raise LoadFailed(f"{path.name}: there is no such file")
    plan = _plan(name, version, config)
    inputs, outputs, max_batch_size = _declared(config, signature)
    examples = _examples(config, signature)
    try:
        loaded = core().ModelVersion(
            name=name,
            version=version,
            path=os.fspath(path),
            platform=platform,
            device=config.device,
            inputs=inputs,
            outputs=outputs,
            max_batch_size=max_batch_size,
            insist_on_batching=(config.batching.rows or 0) > 1,
            allowed_batch_sizes=config.batching.allowed_batch_sizes,
            length_buckets=config.lengths.buckets,
            length_inputs=[(name, one.dim, one.pad) for name, one in config.lengths.inputs.items()],
            length_outputs=[(name, one.dim) for name, one in config.lengths.outputs.items()],
            length_mask=config.lengths.mask or "",
            batch_invariant=config.batching.invariant,
            max_queue_delay_us=config.batching.max_queue_delay_us,
            queue_capacity=config.queue.capacity,
            instances=plan.instances,
            plan_instances=config.instances.count is None,
            threads=plan.threads,
            elastic=plan.elastic,
            warmup=config.warmup,
            cuda_graphs=config.cuda_graphs,
            idle_spin_us=_IDLE_SPIN_US,
            examples=examples,
            default_timeout_ns=config.queue.timeout_ms * 1_000_000,
            default_priority=config.queue.default_priority,
        )
    except ValueError as error:  # std::invalid_argument
        raise ConfigError(f'model "{name}" version {version}: {error}') from None
    except RuntimeError as error:
        raise LoadFailed(f"{path.name}: {error}") from None
    return Model(
        loaded,
        name=name,
        number=version,
        path=path,
        platform=platform,
        threads=plan.threads,
        timeout_ns=config.queue.timeout_ms * 1_000_000,
        example=examples[0] if examples else (),
    )


def _plan(name: str, version: str, config: ModelConfig) -> InstancePlan:
    try:
        device = core().resolve_device(config.device)
    except ValueError as error:
        raise ConfigError(f'model "{name}" version {version}: {error}') from None
    return plan_instances(
        core().available_cpus(),
        config.instances.count,
        config.instances.threads,
        on_gpu=device != "cpu",
    )


async def settled(request: "_C.Request", future: asyncio.Future[_T]) -> _T:
    """Await `future`; at its deadline, or when the task is cancelled, the request ends with it."""

    def expire() -> None:
        if not future.done() and request.expire():
            future.set_exception(overdue())

    deadline_ns = request.deadline_ns
    ticket = deadlines_here().add(deadline_ns, expire) if deadline_ns else 0
    try:
        return await future
    except asyncio.CancelledError:
        request.cancel()
        raise
    finally:
        if ticket:
            deadlines_here().drop(ticket)


_Specs = list[tuple[str, str, tuple[int, ...]]]


def _declared(
    config: ModelConfig, signature: Signature | None
) -> tuple[_Specs | None, _Specs | None, int]:
    """Return the specs that the core checks against, and the largest batch (0: not batched)."""
    inputs = config.inputs or (signature.inputs if signature else None)
    outputs = config.outputs or (signature.outputs if signature else None)
    asked = config.batching.rows
    batched = config.inputs is not None or (signature is not None and signature.batched)
    if inputs is None:
        if config.lengths.buckets:
            raise ConfigError(
                "lengths.buckets are given, but the model's inputs are not known: export it with "
                "pyserve.export, or declare inputs and outputs in config.yaml"
            )
        if asked:
            raise ConfigError(
                f"batching.max_batch_size is {asked}, but the model's inputs are not known: export "
                "it with pyserve.export, or declare inputs and outputs in config.yaml"
            )
        return None, _core_specs(outputs, ()), 0
    if asked and signature is not None and not signature.batched:
        raise ConfigError(
            f"batching.max_batch_size is {asked}, but the model was exported without a batch "
            "dimension"
        )
    if not batched or asked == 0:
        # Its signature leaves out a batch dimension that the model does take.
        lead = (-1,) if config.inputs is None and signature is not None and batched else ()
        return _core_specs(inputs, lead), _core_specs(outputs, lead), 0
    own = signature.max_batch_size if signature else None
    return _core_specs(inputs, ()), _core_specs(outputs, ()), asked or own or DEFAULT_MAX_BATCH_SIZE


def _core_specs(specs: Sequence[TensorSpec] | None, lead: tuple[int, ...]) -> _Specs | None:
    if specs is None:
        return None
    return [(spec.name, spec.dtype, lead + spec.shape) for spec in specs]


def _examples(config: ModelConfig, signature: Signature | None) -> list[list[InputTensor]]:
    if signature is None or (config.inputs and config.inputs != signature.inputs):
        return []
    return [_example(example) for example in signature.examples]


def _example(example: Example) -> list[InputTensor]:
    return [
        InputTensor(name, tensor.dtype, tensor.shape, tensor.data)
        for name, tensor in example.items()
    ]


def _spec(item: tuple[str, str, tuple[int, ...] | None]) -> TensorSpec:
    name, dtype, shape = item
    return UntypedSpec(name) if shape is None else TensorSpec(name, dtype, shape)


def _histogram(raw: dict[str, Any], bounds: Sequence[int], unit: float) -> Histogram:
    counts = raw["counts"] or (0,) * (len(bounds) + 1)
    return Histogram(tuple(bound * unit for bound in bounds), counts, raw["sum"] * unit)


def _deadline_ns(timeout: float | None) -> int:
    return 0 if timeout is None else deadline_after(timeout)


_open_models: weakref.WeakSet[Model] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    if not core.cache_info().currsize:
        return  # nothing was ever loaded
    # Instance threads must end before the interpreter's state goes, and a daemon thread that waits
    # for an answer must not come back to it.
    core().begin_exit()
    for model in list(_open_models):
        model.close()
    core().await_native_calls()


def _mark_forked() -> None:
    core().mark_forked()


os.register_at_fork(after_in_child=_mark_forked)
