"""A torch module as TorchScript, and the proof that it still does what it did.

The only Python file that asks torch.jit to compile.  What the runs teach about the signature is for
`pyserve/learn.py`, the file for `pyserve/export.py`.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch

from pyserve import learn
from pyserve.errors import ConfigError
from pyserve.learn import Outputs, Sample

_DEPRECATION = r"`torch\.jit\.\w+` is (deprecated|not supported in Python)"

Method: TypeAlias = Literal["auto", "script", "trace"]


@contextmanager
def quiet_torchscript() -> Iterator[None]:
    """Keep torch's notice that TorchScript is deprecated off the screen, and nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_DEPRECATION, category=DeprecationWarning)
        yield


@contextmanager
def eval_mode(module: torch.nn.Module) -> Iterator[None]:
    """The module and all inside it in eval mode, each as it was afterwards."""
    # A frozen ScriptModule has no mode any more.
    modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def compile_module(
    module: torch.nn.Module, samples: Sequence[Sample], method: Method
) -> tuple[torch.jit.ScriptModule, list[Outputs]]:
    """The module as TorchScript, and what it returned for each sample."""
    if isinstance(module, torch.jit.ScriptModule):
        return module, [_run("the module", module, sample) for sample in samples]
    expected = [_run("the module", module, sample) for sample in samples]
    compiled, how = _to_torchscript(module, samples[0], method)
    results = []
    for sample, want in zip(samples, expected, strict=True):
        got = _run(f"the {how} module", compiled, sample)
        differs = learn.difference(want.values, got.values)
        if differs is not None:
            raise ConfigError(
                f"the {how} module does not do what the original does: {differs} for inputs of "
                f"{_shapes(sample)}; "
                + (
                    "tracing freezes Python's branches and sizes, so make forward scriptable, "
                    "or export only the sizes that you need"
                    if how == "traced"
                    else "try method='trace', or export a ScriptModule of your own"
                )
            )
        # A trace forgets the field names of a NamedTuple.
        results.append(Outputs(got.names or want.names, got.values))
    return compiled, results


def _to_torchscript(
    module: torch.nn.Module, sample: Sample, method: Method
) -> tuple[torch.jit.ScriptModule, str]:
    """The compiled module, and "scripted" or "traced"."""
    reason = ""
    if method != "trace":
        try:
            return torch.jit.script(module), "scripted"
        except Exception as error:  # script() raises whatever its parser of Python stumbles on
            if method == "script":
                raise ConfigError(
                    f"the module cannot be scripted: {_first_line(error)}; "
                    "change that line, or try method='trace'"
                ) from error
            reason = f" (nor scripted: {_first_line(error)})"
    if any(isinstance(value, list) for value in sample):
        raise ConfigError(
            "a module that takes strings cannot be traced" + reason + "; make forward scriptable"
        )
    trace: Callable[..., torch.jit.ScriptModule] = torch.jit.trace
    try:
        with torch.no_grad():
            return trace(module, sample, strict=False, check_trace=False), "traced"
    except Exception as error:  # trace() runs the user's code
        raise ConfigError(
            f"the module cannot be traced: {_first_line(error)}{reason}; "
            "see docs/export.md for what TorchScript accepts"
        ) from error


def _run(what: str, module: torch.nn.Module, sample: Sample) -> Outputs:
    try:
        return learn.run_sample(module, sample)
    except ConfigError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(
            f"{what} raises for inputs of {_shapes(sample)}: {_last_line(error)}; if it cannot "
            "take these sizes, change `inputs`, `examples` and `dynamic`, or pass batched=False"
        ) from error


def _shapes(sample: Sample) -> str:
    return ", ".join(str(list(learn.shape_of(value))) for value in sample)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def _last_line(error: Exception) -> str:
    """TorchScript puts its own traceback before the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
