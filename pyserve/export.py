"""`pyserve.export`: a torch module becomes a file that serves itself, signature inside.

The module is compiled (`pyserve/scripting.py`), run on the example and on variations of it, and
written with all that was learned (`pyserve/learn.py`).  Reading the signature back is for
`pyserve/signature.py`; that rows may share a batch is proven by the core when it loads the file.
"""

import hashlib
import inspect
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch

from pyserve import learn
from pyserve.errors import ConfigError
from pyserve.learn import Outputs, Sample, Value
from pyserve.scripting import Method, compile_module, eval_mode, quiet_torchscript
from pyserve.signature import SIGNATURE_FILE, Provenance, Signature, encode_signature

Inputs: TypeAlias = torch.Tensor | Mapping[str, Value] | Sequence[Value]


def export(
    module: torch.nn.Module,
    path: str | Path,
    *,
    inputs: Inputs,
    examples: Sequence[Inputs] = (),
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic: Mapping[str, Collection[int]] | None = None,
    batched: bool = True,
    max_batch_size: int | None = None,
    method: Method = "auto",
) -> Signature:
    """Write `module` to `path` as TorchScript with its signature inside, and return that signature.

    inputs: one example call: a tensor, a sequence in the order of forward's arguments, or a mapping
        by their names.  Strings are a `list[str]`.  Dimension 0 is the batch unless batched=False.
    examples: more calls, of other sizes: where sizes differ, the signature says -1.
    input_names, output_names: what clients call them; default: forward's argument names, and the
        keys of a returned dict, the fields of a returned NamedTuple or `output_0`, `output_1`, ...
    dynamic: for an input or output, the dimensions of any size, counted with the batch as 0.
    max_batch_size: most rows of one call; None leaves it to the server.
    method: script or trace; "auto" scripts, and traces what cannot be scripted.

    The module runs in eval mode and is left as it was.  The file appears whole or not at all.
    Fresh processes with the same SOURCE_DATE_EPOCH and PYTHONHASHSEED (torch writes constants in
    the order of a set) write the same bytes.  Raises ConfigError that says what to do next.
    """
    path = Path(path)
    dynamic = dynamic or {}
    _check_options(path, batched, max_batch_size, method)
    names, given = _arguments(module, [inputs, *examples], input_names)
    if batched and max_batch_size is not None:
        given = [learn.take_rows(sample, max_batch_size) for sample in given]
    samples = _variations(names, given, dynamic, batched, max_batch_size)
    input_specs = learn.learn_specs("input", names, samples, batched=batched, dynamic=dynamic)

    with eval_mode(module), quiet_torchscript():
        compiled, results = compile_module(module, samples, method)
        outputs = _output_names(results, output_names)
        _check_known(dynamic, [*names, *outputs])
        returned = [result.values for result in results]
        if batched:
            for sample, values in zip(samples, returned, strict=True):
                learn.check_rows(outputs, values, learn.rows_of(names, sample))
        kept = [learn.make_example(names, sample, batched=batched) for sample in given]
        signature = Signature(
            inputs=input_specs,
            outputs=learn.learn_specs(
                "output", outputs, returned, batched=batched, dynamic=dynamic
            ),
            batched=batched,
            max_batch_size=max_batch_size,
            examples=tuple(example for example in kept if example is not None),
            provenance=_provenance(compiled),
        )
        _write(compiled, path, signature)
    return signature


def _check_options(path: Path, batched: bool, max_batch_size: int | None, method: str) -> None:
    if path.suffix == ".pt2":
        raise ConfigError(f"{path.name}: TorchScript goes into a file named .pt, not .pt2")
    if method not in ("auto", "script", "trace"):
        raise ConfigError(f"method is {method!r}, expected 'auto', 'script' or 'trace'")
    if max_batch_size is not None and not batched:
        raise ConfigError("max_batch_size needs batched=True")
    if max_batch_size is not None and max_batch_size < 1:
        raise ConfigError(f"max_batch_size is {max_batch_size}, expected 1 or more")


def _arguments(
    module: torch.nn.Module, calls: Sequence[Inputs], input_names: Sequence[str] | None
) -> tuple[list[str], list[Sample]]:
    """The inputs' names and every call's arguments in forward's order, on the module's device."""
    required, optional = _parameters(module)
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    found = [_ordered(call, required, optional) for call in calls]
    names = found[0][0]
    if any(other != names for other, _ in found):
        raise ConfigError("every example must have the same inputs as the first")
    if input_names is not None:
        names = _renamed("input", names, input_names)
    samples = [
        tuple(
            value if isinstance(value, list) else value.detach().to(device) for value in arguments
        )
        for _, arguments in found
    ]
    return names, samples


def _parameters(module: torch.nn.Module) -> tuple[list[str], list[str]]:
    """Names of forward's arguments without and with a default value, `self` left out."""
    if isinstance(module, torch.jit.ScriptModule):
        forward: Any = module.forward
        arguments = forward.schema.arguments[1:]
        return (
            [argument.name for argument in arguments if not argument.has_default_value()],
            [argument.name for argument in arguments if argument.has_default_value()],
        )
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(module.forward).parameters.values()
    unusual = [parameter.name for parameter in parameters if parameter.kind not in plain]
    if unusual:
        raise ConfigError(
            f'forward takes "{unusual[0]}" as *args, **kwargs or by keyword only; '
            "wrap the module in one whose forward names each tensor"
        )
    empty = inspect.Parameter.empty
    return (
        [parameter.name for parameter in parameters if parameter.default is empty],
        [parameter.name for parameter in parameters if parameter.default is not empty],
    )


def _ordered(
    call: Inputs, required: Sequence[str], optional: Sequence[str]
) -> tuple[list[str], Sample]:
    """One call's names and values in forward's order; ConfigError where they do not fit forward."""
    order = [*required, *optional]
    if isinstance(call, torch.Tensor):
        call = [call]
    if not isinstance(call, Mapping):
        if isinstance(call, str) or (call and isinstance(call[0], str)):
            raise ConfigError("a list of str is one input: put it in a tuple or a mapping")
        if len(call) > len(order):
            raise ConfigError(f"{len(call)} inputs given, forward takes {', '.join(order)}")
        call = dict(zip(order, call, strict=False))
    names = order[: len(call)]
    if set(call) != set(names) or len(names) < len(required) or not names:
        needed = ", ".join(required) + "".join(f", {name} (optional)" for name in optional)
        raise ConfigError(
            f"inputs has {', '.join(call) or 'nothing'}, forward takes {needed or 'nothing'}; "
            "give them by these names, in order and without gaps "
            "(input_names=[...] changes what clients call them)"
        )
    for name, value in call.items():
        strings = isinstance(value, list) and all(isinstance(text, str) for text in value)
        if not strings and not isinstance(value, torch.Tensor):
            raise ConfigError(
                f'input "{name}" is a {type(value).__name__}, expected a tensor or a list of str'
            )
    return names, tuple(call[name] for name in names)


def _renamed(kind: str, found: Sequence[str], wanted: Sequence[str]) -> list[str]:
    if len(wanted) != len(found) or len(set(wanted)) != len(wanted) or isinstance(wanted, str):
        raise ConfigError(
            f"{kind}_names is {wanted!r}, expected {len(found)} different names "
            f"for {', '.join(found)}"
        )
    return list(wanted)


def _variations(
    names: Sequence[str],
    given: Sequence[Sample],
    dynamic: learn.Dims,
    batched: bool,
    max_batch_size: int | None,
) -> list[Sample]:
    """The samples given, and others that differ in rows and in each dynamic dimension."""
    dims = {
        name: learn.checked_dims(name, len(learn.shape_of(value)), dynamic.get(name, ()), batched)
        for name, value in zip(names, given[0], strict=True)
    }
    learn.learn_specs("input", names, given, batched=batched, dynamic={})
    samples = list(given)
    grown = learn.grown_sample(names, given, dims)
    if grown is not None:
        samples.append(grown)
    if batched:
        if learn.rows_of(names, given[0]) > 1:
            samples.append(learn.take_rows(given[0], 1))
        elif max_batch_size != 1:
            # First in the list, because a trace of one row may take that row for a constant.
            samples.insert(0, tuple(learn.double(value, [0]) for value in given[0]))
        for sample in samples:
            learn.rows_of(names, sample)
    return samples


def _output_names(results: Sequence[Outputs], wanted: Sequence[str] | None) -> list[str]:
    names, values = results[0]
    if any(other.names != names or len(other.values) != len(values) for other in results):
        raise ConfigError("the module's outputs change with the sizes of its inputs")
    if not values:
        raise ConfigError("the module returns nothing")
    found = list(names or (f"output_{index}" for index in range(len(values))))
    return found if wanted is None else _renamed("output", found, wanted)


def _check_known(dynamic: learn.Dims, known: Sequence[str]) -> None:
    unknown = [name for name in dynamic if name not in known]
    if unknown:
        raise ConfigError(
            f'`dynamic` names "{unknown[0]}", but inputs and outputs are {", ".join(known)}'
        )


def _provenance(compiled: torch.jit.ScriptModule) -> Provenance:
    digest = hashlib.sha256()
    for name, part in compiled.named_modules():
        # Numbers that torch puts into class names depend on what the process did before.
        code = re.sub(r"___torch_mangle_\d+\.", "", getattr(part, "code", ""))
        digest.update(f"{name}\n{code}\n".encode())
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    created = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    try:
        version = metadata.version("pyserve")
    except metadata.PackageNotFoundError:
        version = "unknown"
    return Provenance(
        torch_version=str(torch.__version__),
        pyserve_version=version,
        source_hash=digest.hexdigest(),
        created=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _write(compiled: torch.jit.ScriptModule, path: Path, signature: Signature) -> None:
    """Write beside the final place and rename, so that a server never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        # The archive remembers the name it was written under: keep that of the final file.
        draft = folder / path.name
        extra = {SIGNATURE_FILE: encode_signature(signature)}
        torch.jit.save(compiled, str(draft), _extra_files=extra)
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _CallableModule(ModuleType):
    """`import pyserve.export` puts this module in the function's place; so it is called like it."""

    __call__ = staticmethod(export)


sys.modules[__name__].__class__ = _CallableModule
