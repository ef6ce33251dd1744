"""Where figures were taken: without it they mean nothing."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

_PACKAGES = ("pyserve", "torch", "aiohttp", "uvloop", "msgspec")
_HERE = Path(__file__).resolve().parent


def describe() -> dict[str, object]:
    """Return machine, versions, commit and date as JSON has them."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "wrk": _first_line("wrk", "--version"),
        "commit": commit(),
    }


def cpu_model() -> str:
    """Return the processor's name as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str:
    """Return the commit that pyserve runs from, "+" for changes on top; "" outside a checkout."""
    revision = _first_line("git", "-C", str(_HERE), "rev-parse", "--short=12", "HEAD", ok_only=True)
    if not revision:
        return ""
    changed = _first_line("git", "-C", str(_HERE), "status", "--porcelain", "-uno", ok_only=True)
    return f"{revision}+" if changed else revision


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _first_line(*command: str, ok_only: bool = False) -> str:
    """Return what a command prints first; "" where there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # wrk tells its version with exit code 1.
    if ok_only and done.returncode:
        return ""
    return (done.stdout or done.stderr).partition("\n")[0].strip()
