"""What callgrind and perf write, read and summed up by group."""

import pytest

from benchmarks.groups import (
    ANSWER,
    CPYTHON,
    HEAD,
    MODEL,
    PYBIND,
    QUEUE,
    UVLOOP,
    group_of,
    is_allocator,
    sampled_group,
)
from benchmarks.profile import Cost, Function, by_group, parse
from benchmarks.sampled import stacks

# main: 10 of its own, 5 of them in a header; calls handle (60) and, 40 in two calls, malloc.
# handle: 20 of its own, and malloc for 40, whose half is in its helper.
CALLGRIND = """\
version: 1
events: Ir

ob=(1) /usr/bin/server
fl=(1) main.cc
fn=(1) main
10 5
fi=(2) header.h
3 5
fe=(1)
cfn=(2) handle
calls=3 20
11 60
cob=(2) /lib/libc.so.6
cfi=(3) malloc.c
cfn=(3) malloc
calls=2 7
+1 40

fn=(2)
20 20
cob=(2)
cfi=(3)
cfn=(3)
calls=1 7
* 40

ob=(2)
fl=(3)
fn=(3)
7 40
cfn=(4) helper
calls=4 9
8 40
fn=(4)
9 40

totals: 110
"""

MAIN, HANDLE = Function("server", "main"), Function("server", "handle")
MALLOC, HELPER = Function("libc.so.6", "malloc"), Function("libc.so.6", "helper")


def test_callgrind_file_is_read_with_its_abbreviations() -> None:
    profile = parse(CALLGRIND.splitlines())
    assert profile.own == {MAIN: 10, HANDLE: 20, MALLOC: 40, HELPER: 40}
    assert profile.files[MAIN] == {"main.cc": 5, "header.h": 5}
    assert profile.calls == {
        (MAIN, HANDLE): 60,
        (MAIN, MALLOC): 40,
        (HANDLE, MALLOC): 40,
        (MALLOC, HELPER): 40,
    }
    assert profile.total == 110
    assert profile.inclusive("main") == 110
    assert profile.inclusive("handle") == 60


def test_what_libraries_did_is_the_cost_of_their_callers() -> None:
    profile = parse(CALLGRIND.splitlines())
    costs = by_group(
        profile,
        lambda function, file: function.symbol if function.library == "server" else "",
        lambda function: function.symbol == "malloc",
    )
    # The helper is the allocator's too, since the allocator called it.
    assert costs == {"main": Cost(50, 40), "handle": Cost(60, 40)}


def test_recursion_is_not_counted_twice() -> None:
    text = ["ob=server", "fn=f", "1 10", "cfn=f", "calls=1 1", "2 90", "fn=f", "3 5"]
    profile = parse(text)
    assert profile.total == 15
    assert not profile.calls


@pytest.mark.parametrize(
    ("library", "symbol", "file", "group"),
    [
        ("_C.so", "pyserve::parse_http_head(...)", "/src/csrc/wire/http_head.cc", HEAD),
        ("_C.so", "pyserve::write_oip_answer(...)", "/src/csrc/wire/oip_answer.cc", ANSWER),
        ("_C.so", "pyserve::Batcher::next_batch", "/src/csrc/batching/batcher.cc", QUEUE),
        ("_C.so", "pyserve::Waiter::wake_one", "atomic_base.h", QUEUE),
        ("_C.so", "pyserve::(anonymous namespace)::TorchScript::run", "vector.h", MODEL),
        ("_C.so", "pybind11::cpp_function::dispatcher", "pybind11.h", PYBIND),
        ("_C.so", "std::_Hashtable<...>::find", "/pybind11/detail/internals.h", PYBIND),
        ("_C.so", "std::vector<long>::~vector", "stl_vector.h", ""),
        ("libpython3.11.so.1.0", "_PyEval_EvalFrameDefault", "ceval.c", CPYTHON),
        ("loop.cpython-311-x86_64-linux-gnu.so", "uv__read", "stream.c", UVLOOP),
        ("libtorch_cpu.so", "at::empty", "???", ""),
        ("libc.so.6", "malloc", "malloc.c", ""),
    ],
)
def test_function_belongs_to_the_part_of_the_request_where_it_stands(
    library: str, symbol: str, file: str, group: str
) -> None:
    assert group_of(Function(library, symbol), file) == group


def test_allocator_is_known_by_its_functions() -> None:
    assert is_allocator(Function("libc.so.6", "_int_free"))
    assert is_allocator(Function("libstdc++.so.6.0.30", "operator new(unsigned long)"))
    assert not is_allocator(Function("libc.so.6", "memcpy"))
    assert not is_allocator(Function("_C.so", "pyserve::free_slots"))


PERF_SCRIPT = """\
python
\tffffffff81 tcp_sendmsg ([kernel.kallsyms])
\tffffffff82 ksys_write ([kernel.kallsyms])
\t7f0000001 __GI___libc_write (/usr/lib/libc.so.6)

ps-tiny
\t7f0000002 pyserve::Batcher::next_batch(pyserve::Batch&) (/x/pyserve/_C.cpython-311.so)

"""


def test_perf_samples_are_read_and_the_kernels_are_told_by_their_system_call() -> None:
    found = list(stacks(PERF_SCRIPT.splitlines()))
    assert [(thread, len(stack)) for thread, stack in found] == [("python", 3), ("ps-tiny", 1)]
    assert [sampled_group(stack) for _, stack in found] == ["kernel: write", "the core"]
