"""What the kernel says of a process: CPU time and memory, from /proc (Linux)."""

import os
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Memory(NamedTuple):
    """Resident memory in bytes; pss divides shared pages among those who share them."""

    rss: int
    pss: int


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, its threads and no children, to 10 ms."""
    # The name, in brackets, may itself hold spaces and brackets.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / _TICKS_PER_S


def thread_cpu_seconds(pid: int) -> dict[str, float]:
    """Return the CPU time of a process's living threads to the nanosecond, summed by name."""
    total: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            run_ns = int((task / "schedstat").read_text().split()[0])
        except OSError:  # it ended meanwhile
            continue
        total[name] = total.get(name, 0.0) + run_ns / 1e9
    return total


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            try:
                found += map(int, (task / "children").read_text().split())
            except OSError:
                continue
    return found


def memory(pid: int) -> Memory:
    """Return the resident memory of a process and all that descend from it."""
    rss = pss = 0
    for one in family(pid):
        fields = {}
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, rest = line.partition(":")
            fields[name] = int(rest.split()[0]) * 1024
        rss += fields["Rss"]
        pss += fields["Pss"]
    return Memory(rss, pss)
