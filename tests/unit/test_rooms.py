"""Imports and includes run one way; docs/architecture.md draws the rooms."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A room may use itself and everything before it.  Rooms in one set do not know each other.
CPP_FLOORS: list[set[str]] = [
    {"base"},
    {"wire", "tensor"},
    {"batching", "runtime"},
    {"engine"},
    {"python"},
    {"bindings.cc"},
]

PYTHON_FLOORS: list[set[str]] = [
    {"errors", "protos"},
    {"messages", "signature", "strict_yaml", "futures", "deadlines", "_C"},
    {"typed", "metrics", "process_config"},
    {"config", "log", "scheduling"},
    {"_native", "plan", "beside", "triton_model"},
    {"class_labels"},
    {"wire", "completions", "notices", "triton_config"},
    {"shared_memory", "classification", "processing"},
    {"model", "repository"},
    {"live"},
    {"model_state"},
    {"loader", "watcher"},
    {"registry"},
    {"engine"},
    {"staged"},
    {"service", "guard", "descriptions", "triton_settings"},
    {"torchserve"},
    {"http", "grpc"},
    {"restart"},
    {"server"},
    {"client"},
    {"learn"},
    {"scripting"},
    {"export"},
    {"zoo"},
    {"bench"},
    {"cli"},
    {"__main__"},
]

# Taken from the package itself, as a stranger would.
PUBLIC = {
    "load",
    "Engine",
    "Model",
    "TensorSpec",
    "Signature",
    "read_signature",
    "Client",
    "AsyncClient",
}


def floor_of(room: str, floors: list[set[str]]) -> int:
    for number, rooms in enumerate(floors):
        if room in rooms:
            return number
    raise AssertionError(f"{room} is in no room: add it to the list and to docs/architecture.md")


def may_use(user: str, used: str, floors: list[set[str]]) -> bool:
    return user == used or floor_of(used, floors) < floor_of(user, floors)


def cpp_uses() -> list[tuple[Path, str, str]]:
    uses = []
    for path in sorted((ROOT / "csrc").rglob("*")):
        if path.suffix in {".h", ".cc"}:
            room = path.relative_to(ROOT / "csrc").parts[0]
            for used in re.findall(r'^#include "([^"/]+)/', path.read_text(), re.MULTILINE):
                uses.append((path, room, used))
    return uses


def python_uses() -> list[tuple[Path, str, str]]:
    uses = []
    for path in sorted((ROOT / "pyserve").rglob("*.py")):
        room = path.relative_to(ROOT / "pyserve").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
                if node.module == "pyserve":
                    names = [f"pyserve.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                parts = name.split(".")
                if parts[0] == "pyserve" and len(parts) > 1 and not parts[1].startswith("__v"):
                    uses.append((path, room, parts[1]))
    return uses


def violations(uses: list[tuple[Path, str, str]], floors: list[set[str]]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} in {room} uses {used}"
        for path, room, used in uses
        if not may_use(room, used, floors)
    ]


def test_cpp_files_include_only_rooms_before_their_own() -> None:
    uses = cpp_uses()
    assert len(uses) > 50
    assert violations(uses, CPP_FLOORS) == []


def test_python_files_import_only_rooms_before_their_own() -> None:
    uses = [use for use in python_uses() if use[2] not in PUBLIC]
    assert len(uses) > 100
    assert violations(uses, PYTHON_FLOORS) == []


def test_protocols_know_no_torch() -> None:
    for folder in ("wire", "http", "grpc", "cli"):
        for path in (ROOT / "pyserve" / folder).rglob("*.py"):
            if folder == "cli" and path.stem in {"export", "bench"}:
                continue
            assert not re.search(r"^\s*(import|from) torch", path.read_text(), re.MULTILINE), path


def test_only_one_file_says_torchscript() -> None:
    for path in (ROOT / "csrc").rglob("*"):
        if path.suffix in {".h", ".cc"} and "torch::jit" in path.read_text():
            assert path.name == "torchscript.cc"
