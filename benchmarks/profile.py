"""What callgrind counted, function by function: its files read, and costs summed up by group.

A function of ours, of CPython or of uvloop belongs to one group; what the libraries beneath did
(libc, libstdc++, torch) is the cost of whoever called it, in proportion to the calls' costs.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile(r"\((\d+)\)(?: (.*))?")
_ROUNDS = 40


class Function(NamedTuple):
    """A function by the object (the library's file name) and the symbol that callgrind gave it."""

    library: str
    symbol: str


class Profile:
    """Instructions of one thread: own ones by function and source file, and of calls by edge."""

    def __init__(self) -> None:
        self.own: defaultdict[Function, int] = defaultdict(int)
        self.files: defaultdict[Function, defaultdict[str, int]] = defaultdict(
            lambda: defaultdict(int)
        )
        self.calls: defaultdict[tuple[Function, Function], int] = defaultdict(int)

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(self.own.values())

    def inclusive(self, symbol: str) -> int:
        """Return the instructions of all functions whose symbol begins so, with all they called.

        For functions that do not call each other.
        """
        own = sum(cost for one, cost in self.own.items() if one.symbol.startswith(symbol))
        return own + sum(
            cost for (caller, _), cost in self.calls.items() if caller.symbol.startswith(symbol)
        )

    def add(self, other: "Profile") -> None:
        """Add another thread's instructions."""
        for one, cost in other.own.items():
            self.own[one] += cost
        for one, files in other.files.items():
            for name, cost in files.items():
                self.files[one][name] += cost
        for edge, cost in other.calls.items():
            self.calls[edge] += cost


class _Names:
    """Callgrind names a thing once and then by number."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __getitem__(self, text: str) -> str:
        match = _NAME.fullmatch(text)
        if match is None:
            return text
        number, name = match.groups()
        if name is not None:
            self._known[number] = name
        return self._known[number]


def parse(lines: Iterable[str]) -> Profile:
    """Return what a file of callgrind's says (its format: the Callgrind manual, "Format")."""
    profile = Profile()
    libraries, files, symbols = _Names(), _Names(), _Names()
    library = called_library = file = ""
    function = called = Function("", "")
    in_call = False
    for line in lines:
        key, equals, value = line.rstrip("\n").partition("=")
        if equals and key in ("ob", "fl", "fi", "fe", "fn", "cob", "cfi", "cfl", "cfn", "calls"):
            if key == "ob":
                library = called_library = _base(libraries[value])
            elif key in ("fl", "fi", "fe"):
                file = files[value]
            elif key == "fn":
                function = Function(library, symbols[value])
                called_library = library
            elif key == "cob":
                called_library = _base(libraries[value])
            elif key in ("cfi", "cfl"):
                files[value]
            elif key == "cfn":
                called = Function(called_library, symbols[value])
                called_library = library
            else:
                in_call = True
        elif line[:1] in "+-*0123456789":
            cost = _cost(line)
            if in_call:
                in_call = False
                if called != function:  # a recursion's cost is in the first call's already
                    profile.calls[function, called] += cost
            elif cost:
                profile.own[function] += cost
                profile.files[function][file] += cost
    return profile


def read(path: Path) -> Profile:
    """Return what a file of callgrind's says."""
    with path.open() as lines:
        return parse(lines)


def _base(library: str) -> str:
    return library.rpartition("/")[2]


def _cost(line: str) -> int:
    parts = line.split()
    return int(parts[1]) if len(parts) > 1 else 0


class Cost(NamedTuple):
    """A group's instructions, and how many of them were the allocator's."""

    instructions: float
    allocator: float


def by_group(
    profile: Profile,
    group_of: Callable[[Function, str], str],
    allocator: Callable[[Function], bool],
) -> dict[str, Cost]:
    """Return the cost of every group.

    group_of: a function's group, by it and the source file that most of its own cost stands in; ""
    leaves the function to its callers.
    """
    groups = {
        one: group_of(one, max(profile.files[one], key=profile.files[one].__getitem__, default=""))
        for one in {*profile.own, *(callee for _, callee in profile.calls)}
    }
    inherited = _inherited(profile, groups, allocator)
    total: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one, cost in profile.own.items():
        if groups[one]:
            total[groups[one]][0] += cost
    for (caller, callee), cost in profile.calls.items():
        if groups[caller] and not groups[callee]:
            share = inherited[callee]
            total[groups[caller]][0] += cost * share.instructions
            total[groups[caller]][1] += cost * share.allocator
    return {name: Cost(*costs) for name, costs in total.items()}


def _inherited(
    profile: Profile, groups: dict[Function, str], allocator: Callable[[Function], bool]
) -> dict[Function, Cost]:
    """Return which part of a call's cost is not some group's own, and which is the allocator's."""
    whole: defaultdict[Function, float] = defaultdict(float)
    edges: defaultdict[Function, list[tuple[Function, int]]] = defaultdict(list)
    for one, cost in profile.own.items():
        whole[one] += cost
    for (caller, callee), cost in profile.calls.items():
        whole[caller] += cost
        if not groups[callee]:
            edges[caller].append((callee, cost))
    share = {one: Cost(1.0, float(allocator(one))) for one, group in groups.items() if not group}
    for _ in range(_ROUNDS):  # a fixed point, for libraries' functions call each other in circles
        share = {one: _share(one, profile, whole, edges, share, allocator) for one in share}
    return share


def _share(
    one: Function,
    profile: Profile,
    whole: dict[Function, float],
    edges: dict[Function, list[tuple[Function, int]]],
    share: dict[Function, Cost],
    allocator: Callable[[Function], bool],
) -> Cost:
    if not whole[one]:
        return Cost(0.0, 0.0)
    own = float(profile.own.get(one, 0))
    instructions, spent = own, own if allocator(one) else 0.0
    for callee, cost in edges[one]:
        instructions += cost * share[callee].instructions
        spent += cost * (share[callee].instructions if allocator(one) else share[callee].allocator)
    return Cost(instructions / whole[one], spent / whole[one])
