"""Makes the peers' environments under build/peers: one torch for all, one environment for each.

Torch comes first and at the version that pyserve is measured with, so that no peer's requirements
pull another one.  A peer's environment finds it through a `.pth` file; pip counts it as installed.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.peer import Environment, Peer
from pyserve.bench.processes import ChildFailed

BUILD = Path(__file__).resolve().parents[2] / "build" / "peers"

_TORCH = ("torch==2.13.0", "numpy")
_STAMP = "installed"


def missing_programs(peer: Peer) -> list[str]:
    """Return what has to be on PATH for a peer and is not."""
    return [name for name in peer.programs if shutil.which(name) is None]


def ensure(peer: Peer, build: Path = BUILD) -> Environment:
    """Install what a peer lacks; ChildFailed with pip's words where that fails."""
    folder = build / peer.name
    if not peer.packages:  # it is the checkout's own
        folder.mkdir(parents=True, exist_ok=True)
        return Environment(folder=folder, torch_packages=Path())
    shared = build / "torch"
    _install(shared, _TORCH, lambda: None)
    torch_packages = _packages(shared)
    environment = Environment(folder=folder, torch_packages=torch_packages)

    def finish() -> None:
        peer.finish_install(environment)

    _install(folder, peer.packages, finish, torch_packages)
    return environment


def tool(name: str, packages: tuple[str, ...], build: Path = BUILD) -> str:
    """Return the interpreter of an environment for something other than a peer."""
    _install(build / name, packages, lambda: None)
    return Environment(folder=build / name, torch_packages=Path()).python


def version_of(peer: Peer, environment: Environment) -> str:
    """Return the version of a peer's first package as its environment has it."""
    if not peer.packages:
        return ""
    name = peer.packages[0].partition("=")[0].partition("[")[0].partition("<")[0]
    code = f"from importlib.metadata import version; print(version({name!r}))"
    done = subprocess.run(
        [environment.python, "-c", code], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _install(
    folder: Path,
    requirements: tuple[str, ...],
    finish: Callable[[], None],
    torch_packages: Path | None = None,
) -> None:
    """Make an environment unless there is one that was made for the same requirements."""
    stamp = folder / _STAMP
    wanted = "\n".join(requirements) + "\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"installing {' '.join(requirements)}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _run(sys.executable, "-m", "venv", str(folder / "env"))
    if torch_packages is not None:
        (_packages(folder) / "shared_torch.pth").write_text(f"{torch_packages}\n")
    _run(str(folder / "env" / "bin" / "pip"), "install", "--quiet", *requirements)
    try:
        finish()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ChildFailed(f"after pip: {error}") from None
    stamp.write_text(wanted)


def _packages(folder: Path) -> Path:
    return next((folder / "env" / "lib").glob("python3*")) / "site-packages"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildFailed(f"{' '.join(command)}: {done.stderr.strip()[-800:]}")
