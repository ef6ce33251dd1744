"""What a peer is to the comparison: how it is installed, started, asked and understood.

To add one, write `launchers/NAME.py` with a subclass of `Peer` and list an instance of it in
`catalogue.py`; nothing else knows a peer by name.

1. `name` (also its folder `build/peers/NAME/`), `title`, `packages` (pip requirements; the first
   is the one whose version is reported) and `programs` that have to be on PATH already.
   `environment.py` makes a virtual environment that finds the shared torch 2.13.0 and numpy, and
   installs `packages` there.  What else an installation takes goes into `finish_install`, which
   runs once, after pip.
2. `launch(model, place)` returns the command line and what to add to the environment variables.
   It may write files into `place.folder` (empty, one per start) first: a model archive, a
   repository, a configuration.  The server listens on 127.0.0.1, `place.ports[0]`; set
   `port_count` for further ports.  It stays in the foreground and ends when it gets SIGTERM; its
   whole process group is killed where it does not.
3. A server written for the peer's framework is a script in `servers/serve_NAME.py`, run by
   `place.environment.python`.  It cannot import pyserve or this package, but it finds
   `served_model.py` beside it: `ServedModel(path_of_the_case)` loads the TorchScript file as
   every peer does, turns bodies into tensors and outputs into bytes.
4. `settings(model, place)` says what was tuned and why; the page prints it.  The command line
   must be made from the same values, so that page and process cannot disagree.
5. `request(model, form)` returns what is POSTed for one request of one row, None where the peer
   has no such form.  `numbers(model, form, answer)` returns all outputs' numbers, in the model's
   order, flat; it raises ValueError for an answer that it cannot read.  The defaults are the
   plainest protocol there is: the inputs' bytes one after the other to `path`, the outputs' bytes
   back; as JSON an object of nested lists by input name, and the same by output name.

Ready means: the first answer that is right.  So there is no health check to write.  That all
workers are up is seen from the process tree's CPU time, which comes to rest.
"""

import json
import os
import struct
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from benchmarks.peers.case import ModelCase, flattened, nested, unpacked
from pyserve.bench.bodies import HttpRequest

Form: TypeAlias = Literal["binary", "raw", "json"]

SERVERS = Path(__file__).resolve().parent / "servers"

__all__ = [
    "SERVERS",
    "Answer",
    "Environment",
    "Form",
    "HttpRequest",
    "Launch",
    "ModelCase",
    "Peer",
    "Place",
    "Setting",
]


class Setting(NamedTuple):
    """One thing that was tuned: what, to which value, and why."""

    name: str
    value: str
    why: str


class Launch(NamedTuple):
    """How a server process is started: its command line, and what to add to the environment."""

    command: Sequence[str]
    env: Mapping[str, str] = {}


class Answer(NamedTuple):
    """What came back: header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A peer's virtual environment, `folder` beside whatever else its installation made."""

    folder: Path
    torch_packages: Path

    @property
    def python(self) -> str:
        """The interpreter of this environment."""
        return str(self.folder / "env" / "bin" / "python")

    @property
    def packages(self) -> Path:
        """Where pip has put the peer's packages."""
        return next((self.folder / "env" / "lib").glob("python3*")) / "site-packages"

    def program(self, name: str) -> str:
        """Return a command that one of the packages has installed."""
        return str(self.folder / "env" / "bin" / name)

    def run(self, command: Sequence[str], **env: str) -> None:
        """Run a command of the installation to its end; CalledProcessError if it fails."""
        subprocess.run(command, env={**os.environ, **env}, cwd=self.folder, check=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server is started: its environment, a fresh folder, free ports, and the cores."""

    environment: Environment
    folder: Path
    ports: tuple[int, ...]
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    @property
    def port(self) -> int:
        """The port to answer requests on."""
        return self.ports[0]


class Peer(ABC):
    """One server in the comparison."""

    name: str
    title: str
    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    port_count: int = 1
    path: str = "/predict"

    def finish_install(self, environment: Environment) -> None:  # noqa: B027 - most need no more
        """Do what pip does not; runs once."""

    @abstractmethod
    def launch(self, model: ModelCase, place: Place) -> Launch:
        """Write what the server reads, return how it is started."""

    @abstractmethod
    def settings(self, model: ModelCase, place: Place) -> list[Setting]:
        """Return what was tuned for this model, with reasons."""

    def request(self, model: ModelCase, form: Form) -> HttpRequest | None:
        """Return the request for one row, None where the peer cannot be asked in this form."""
        if form == "binary":
            headers = {"Content-Type": "application/octet-stream"}
            return HttpRequest(self.path, headers, model.request)
        if form == "json":
            headers = {"Content-Type": "application/json"}
            return HttpRequest(self.path, headers, json.dumps(json_inputs(model)).encode())
        return None

    def numbers(self, model: ModelCase, form: Form, answer: Answer) -> list[float]:
        """Return all numbers of an answer with status 200; ValueError for what cannot be read."""
        if form == "json":
            outputs = json.loads(answer.body)
            return [number for one in model.outputs for number in flattened(outputs[one.name])]
        return unpacked(model.outputs, answer.body)


def json_inputs(model: ModelCase) -> dict[str, Any]:
    """Return the request as nested lists by input name."""
    lists: dict[str, Any] = {}
    offset = 0
    for one in model.inputs:
        flat = struct.unpack_from(one.struct_format, model.request, offset)
        offset += one.size_bytes
        lists[one.name] = nested(flat, one.shape)
    return lists
