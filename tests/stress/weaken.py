"""Weakens one memory order (or one step) of csrc/base at a time and expects the tests to object.

Each mutant is built in a scratch copy with ThreadSanitizer and must fail its tests; one that
passes means that a test is missing or that the order is not understood. Takes a few minutes, so
it is run by hand after a change to the lock-free files:

    python tests/stress/weaken.py [WORD ...]      # only mutants whose name has one of the words
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-std=c++20", "-O2", "-w", "-Icsrc", "-Itests/cpp"]


@dataclass(frozen=True)
class Mutant:
    """In `csrc/base/<file>.h`, `old` becomes `new`, and `tests` of test_<file>.cc must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str = "*"
    repeat: int = 1  # how often to run the tests where the race needs luck
    sanitize: bool = True


MUTANTS = [
    Mutant(
        "ring: push publishes the item with a relaxed store",
        "ring",
        "slot.turn.store(ticket + 1, std::memory_order_release)",
        "slot.turn.store(ticket + 1, std::memory_order_relaxed)",
    ),
    Mutant(
        "ring: pop reads the turn relaxed",
        "ring",
        "if (slot.turn.load(std::memory_order_acquire) != head + 1)",
        "if (slot.turn.load(std::memory_order_relaxed) != head + 1)",
    ),
    Mutant(
        "ring: pop frees the slot with a relaxed store",
        "ring",
        "slot.turn.store(head + mask_ + 1, std::memory_order_release)",
        "slot.turn.store(head + mask_ + 1, std::memory_order_relaxed)",
    ),
    Mutant(
        "ring: push reads the turn relaxed",
        "ring",
        "const std::size_t turn = slot.turn.load(std::memory_order_acquire);\n"
        "      if (turn == ticket)",
        "const std::size_t turn = slot.turn.load(std::memory_order_relaxed);\n"
        "      if (turn == ticket)",
    ),
    Mutant(
        "ring: an onlooker that the consumer overtakes calls the ring empty",
        "ring",
        "if (turn == head || turn == head + 1) {\n        return turn == head;",
        "{\n        return turn != head + 1;",
        "Ring.AnOnlooker*",
        repeat=1000,
        sanitize=False,  # it slows both sides too much for one to overtake the other
    ),
    Mutant(
        "claim: the winner's claim is relaxed",
        "claim",
        "std::memory_order_acq_rel,",
        "std::memory_order_relaxed,",
    ),
    Mutant(
        "claim: the loser reads the outcome relaxed",
        "claim",
        "                            std::memory_order_acquire);",
        "                            std::memory_order_relaxed);",
    ),
    Mutant(
        "claim: outcome() is relaxed",
        "claim",
        "outcome_.load(std::memory_order_acquire)",
        "outcome_.load(std::memory_order_relaxed)",
    ),
    Mutant(
        "completion queue: push publishes relaxed",
        "completion_queue",
        "newest, std::memory_order_release,",
        "newest, std::memory_order_relaxed,",
    ),
    Mutant(
        "completion queue: drain takes the list relaxed",
        "completion_queue",
        "head_.exchange(nullptr, std::memory_order_acquire)",
        "head_.exchange(nullptr, std::memory_order_relaxed)",
    ),
    Mutant(
        "completion queue: drain resets the eventfd after it took the list",
        "completion_queue",
        "    event_.reset();\n"
        "    T* item = reversed(head_.exchange(nullptr, std::memory_order_acquire));\n",
        "    T* item = reversed(head_.exchange(nullptr, std::memory_order_acquire));\n"
        "    event_.reset();\n",
    ),
    Mutant(
        "waiter: the condition is checked before the epoch is read",
        "waiter",
        "      const std::uint32_t epoch = epoch_.load(std::memory_order_seq_cst);\n"
        "      if (ready()) {\n"
        "        return true;\n"
        "      }\n",
        "      if (ready()) {\n"
        "        return true;\n"
        "      }\n"
        "      const std::uint32_t epoch = epoch_.load(std::memory_order_seq_cst);\n",
        "Waiter.AChange*",
    ),
    Mutant(
        "waiter: notify_one leaves the epoch alone",
        "waiter",
        "  void notify_one() noexcept {\n    epoch_.fetch_add(1, std::memory_order_seq_cst);",
        "  void notify_one() noexcept {",
        "Waiter.AChange*",
    ),
    Mutant(
        "waiter: notify_one_if asks nobody",
        "waiter",
        "sleepers_.load(std::memory_order_seq_cst) > 0 && worth()",
        "worth()",
        "Waiter.AsksWhether*",
    ),
    Mutant(
        "waiter: notify_one wakes a sleeper though another spins",
        "waiter",
        "    if (spinners_.load(std::memory_order_seq_cst) == 0 &&\n"
        "        sleepers_.load(std::memory_order_seq_cst) > 0) {\n",
        "    if (sleepers_.load(std::memory_order_seq_cst) > 0) {\n",
        "Waiter.NotifyingOneWakesNobody*",
        repeat=50,
    ),
    Mutant(
        "waiter: a sleeper that is past its deadline asks no more",
        "waiter",
        "      sleep(epoch, timeout);\n",
        "      sleep(epoch, timeout);\n"
        "      if (deadline != kNever && clock.now() >= deadline) {\n"
        "        return false;\n"
        "      }\n",
        "Waiter.ASleeper*",
    ),
    Mutant(
        "histogram: a bucket excludes its bound",
        "histogram",
        "lower_bound",
        "upper_bound",
    ),
]


def launcher() -> list[str]:
    """`setarch -R` where it works: gcc 12's libtsan fails under strong address randomisation."""
    setarch = shutil.which("setarch")
    if setarch and subprocess.run([setarch, "-R", "true"], check=False).returncode == 0:
        return [setarch, "-R"]
    return []


def objection(mutant: Mutant | None, file: str) -> str | None:
    """The line with which the tests of `file` object to the mutant, or None if they pass."""
    with tempfile.TemporaryDirectory(prefix="pyserve-weaken-") as scratch:
        for part in ("csrc/base", "tests/cpp"):
            shutil.copytree(ROOT / part, Path(scratch) / part)
        if mutant is not None:
            header = Path(scratch) / "csrc/base" / f"{file}.h"
            text = header.read_text()
            if text.count(mutant.old) != 1:
                raise SystemExit(f"{mutant.name}: the text to weaken is not in {header.name} once")
            header.write_text(text.replace(mutant.old, mutant.new))
        sources = [f"tests/cpp/test_{file}.cc", "csrc/base/clock.cc"]
        if (ROOT / f"csrc/base/{file}.cc").exists():
            sources.append(f"csrc/base/{file}.cc")
        if mutant is None or mutant.sanitize:
            sources.append("-fsanitize=thread")
        build = ["g++", *FLAGS, *sources, "-lgtest", "-lgtest_main", "-pthread", "-o", "tests.out"]
        subprocess.run(build, cwd=scratch, check=True)
        environment = os.environ | {
            "TSAN_OPTIONS": "halt_on_error=1",
            "PYSERVE_TEST_PATIENCE_MS": "3000",
        }
        command = [*launcher(), "./tests.out", "--gtest_break_on_failure"]
        if mutant is not None:
            command += [f"--gtest_filter={mutant.tests}", f"--gtest_repeat={mutant.repeat}"]
        ran = subprocess.run(
            command, cwd=scratch, env=environment, capture_output=True, text=True, check=False
        )
    if ran.returncode == 0:
        return None
    marks = ("WARNING: ThreadSanitizer", "Failure")
    lines = (ran.stdout + ran.stderr).splitlines()
    return next((line for line in lines if any(mark in line for mark in marks)), "crashed")


def main(words: list[str]) -> int:
    """Prints a line per mutant; the exit code is 1 if one survived."""
    chosen = [m for m in MUTANTS if not words or any(word in m.name for word in words)]
    for file in sorted({m.file for m in chosen}):
        if trouble := objection(None, file):
            raise SystemExit(f"the tests of {file} fail unweakened: {trouble}")
    survivors = 0
    for mutant in chosen:
        found = objection(mutant, mutant.file)
        survivors += found is None
        print(f"{'SURVIVED' if found is None else 'caught':8}  {mutant.name}", flush=True)
        if found is not None:
            print(f"          {found.strip().split(' (pid')[0].rsplit('/', 1)[-1]}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
