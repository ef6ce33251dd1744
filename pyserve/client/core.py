"""What `Client` and `AsyncClient` are made from, but for the transport."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from pyserve.client.address import parse_address
from pyserve.client.exchange import Dialect
from pyserve.client.options import Compression, Options, merged_headers
from pyserve.client.results import InferResult
from pyserve.client.retries import Deadline, Retries
from pyserve.client.steps import StepsOf
from pyserve.client.values import is_torch
from pyserve.errors import ConfigError, InvalidInput

DEFAULT_TIMEOUT_S = 60.0
"""A client's own timeout, where it is given none."""

# Some thirty years.  What is longer is no end: sockets and grpc have no form for it.
_LONGEST_S = 1e9

File: TypeAlias = str | PathLike[str]


@dataclass(frozen=True)
class Core:
    """One client's options, and the steps of what it can do."""

    options: Options
    dialect: Dialect
    steps: StepsOf
    retries: Retries
    timeout_s: float
    clock: Callable[[], float]

    def deadline(self, timeout_s: float | None) -> Deadline:
        """Return the end of one call; `timeout_s` None stands for the client's own."""
        if timeout_s is None:
            return Deadline(self.timeout_s, self.clock, told=self.timeout_s != DEFAULT_TIMEOUT_S)
        if not timeout_s > 0:
            raise InvalidInput(f"timeout is {timeout_s}, expected seconds above 0")
        return Deadline(_wait_s(timeout_s), self.clock, told=True)


def make_core(
    url: str,
    *,
    timeout: float | None,
    retries: int,
    connect_timeout: float,
    max_connections: int,
    compression: Compression | None,
    headers: Mapping[str, str] | None,
    token: str | None,
    ca_file: File | None,
    cert_file: File | None,
    key_file: File | None,
    clock: Callable[[], float],
) -> Core:
    """Return the checked core; ConfigError says which option makes no sense."""
    if timeout is not None and not timeout > 0:
        raise ConfigError(f"timeout is {timeout}, expected seconds above 0, or None")
    if retries < 0:
        raise ConfigError(f"retries is {retries}, expected 0 or more")
    options = Options(
        address=parse_address(url),
        connect_timeout_s=connect_timeout,
        max_connections=max_connections,
        compression=compression,
        headers=merged_headers(headers, token),
        ca_file=None if ca_file is None else Path(ca_file),
        cert_file=None if cert_file is None else Path(cert_file),
        key_file=None if key_file is None else Path(key_file),
    )
    dialect: Dialect
    if options.address.protocol == "grpc":
        from pyserve.client.grpc_dialect import GrpcDialect

        dialect = GrpcDialect(options.address.url)
    else:
        from pyserve.client.http_dialect import HttpDialect

        dialect = HttpDialect(options.address.url)
    return Core(
        options,
        dialect,
        StepsOf(dialect),
        Retries(retries),
        math.inf if timeout is None else _wait_s(timeout),
        clock,
    )


def _wait_s(timeout_s: float) -> float:
    return math.inf if timeout_s > _LONGEST_S else timeout_s


def called_with(values: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Return the arguments of a model's call as the inputs of a request."""
    if values and named:
        raise InvalidInput("inputs are given both by position and by name, expected one way")
    if not values and not named:
        raise InvalidInput("no input is given")
    if named:
        return named
    return values[0] if len(values) == 1 and isinstance(values[0], Mapping) else values


def answered_like(inputs: Any, result: InferResult) -> Any:
    """Return the outputs as what the inputs were: tensors of torch, on the first one's device, for
    tensors, else numpy arrays; the only output itself, several by name.
    """
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    tensor = next((one for one in values if is_torch(one)), None)
    if tensor is None:
        outputs: dict[str, Any] = dict(result.outputs)
    else:
        outputs = {
            one.name: result[one.name]
            if one.datatype == "BYTES"
            else result.torch(one.name).to(tensor.device)
            for one in result.tensors
        }
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs
