"""Which part of a request a function belongs to, by where it stands in the sources."""

import re

from benchmarks.profile import Function

MODEL = "the model"
CPYTHON = "CPython"
UVLOOP = "uvloop"
PYBIND = "pybind11"
HEAD = "HTTP head"
JSON = "JSON of the request"
ANSWER = "answer"
BORROW = "inputs borrowed, inputs and outputs checked"
COLLATE = "collate and split"
QUEUE = "queue, batches, wake-ups (spins too)"
ENGINE = "run, time, record"
LANE = "lease, submit, complete in C++"
CLOCK = "reading the clock"
OTHER = "the rest of the core"

# By the beginning of a path below csrc/; the first that fits.  "" is for whoever calls it.
_BY_FILE = (
    ("wire/http", HEAD),
    ("http/http_head", HEAD),
    ("wire/oip_request", JSON),
    ("base/json_numbers", JSON),
    ("base/decimal", JSON),
    ("wire/oip_answer", ANSWER),
    ("tensor/collate", COLLATE),
    ("tensor/", BORROW),
    ("runtime/", MODEL),
    ("batching/", QUEUE),
    ("base/ring", QUEUE),
    ("base/waiter", QUEUE),
    ("base/completion_queue", QUEUE),
    ("base/claim", QUEUE),
    ("base/clock", CLOCK),
    ("base/", ""),
    ("engine/", ENGINE),
    ("python/", LANE),
    ("", OTHER),
)
# What the compiler made of a template has no file of ours.
_BY_SYMBOL = (
    (re.compile(r"pybind11"), PYBIND),
    (re.compile(r"pyserve::(Batcher|Admission|Ring|Waiter|CompletionQueue)"), QUEUE),
    (re.compile(r"TorchScript"), MODEL),
    (re.compile(r"pyserve::python::"), LANE),
    (re.compile(r"pyserve::(Runner|ModelVersion|Request|Instance)"), ENGINE),
    (re.compile(r"pyserve::"), OTHER),
)
_ALLOCATOR = re.compile(
    r"malloc|free|calloc|realloc|memalign|operator (new|delete)|_int_|unlink_chunk|sysmalloc"
)


def group_of(function: Function, file: str) -> str:
    """Return the group of a function whose own cost stands mostly in `file`; "": its caller's."""
    library, symbol = function
    if library.startswith("_C."):
        _, ours, path = file.partition("/csrc/")
        if ours:
            return next(group for start, group in _BY_FILE if path.startswith(start))
        text = symbol if "pybind11" not in file else f"pybind11 {symbol}"
        return next((group for pattern, group in _BY_SYMBOL if pattern.search(text)), "")
    if library.startswith("loop.cpython"):
        return UVLOOP
    if library.startswith("slow_clock"):
        return CLOCK
    if library.startswith("libpython") or ".cpython-" in library:
        return CPYTHON
    return ""


def is_allocator(function: Function) -> bool:
    """Whether a function is the C library's allocator."""
    return function.library.startswith(("libc.", "libc-", "libstdc++")) and bool(
        _ALLOCATOR.search(function.symbol)
    )


# What `perf` calls the memory of the kernel, and the system calls by words in their symbols.
_SYSTEM_CALLS = (
    ("write", re.compile(r"write|send")),
    ("read", re.compile(r"read|recv")),
    ("epoll", re.compile(r"epoll")),
    ("futex", re.compile(r"futex")),
)
KERNEL = "kernel: "


def sampled_group(stack: list[Function]) -> str:
    """Return where a sample belongs, by its innermost function and, in the kernel, its call."""
    library, symbol = stack[0]
    if "kernel" in library:
        for name, pattern in _SYSTEM_CALLS:
            if any(pattern.search(one.symbol) for one in stack):
                return KERNEL + name
        return KERNEL + "everything else"
    if library.startswith("_C."):
        return PYBIND if "pybind11::" in symbol else "the core"
    if library.startswith(("libtorch", "libc10", "libgomp", "libmkl")):
        return "torch"
    if is_allocator(Function(library, symbol)):
        return "allocator"
    return group_of(Function(library, symbol), "") or "C and C++ libraries"
