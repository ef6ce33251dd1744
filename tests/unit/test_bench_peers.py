"""The comparison's pure parts: medians, winners, tables, and a run that goes on after a cut."""

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.peers import chart, page, results
from benchmarks.peers.case import ModelCase, Tensor, flattened, nested, unpacked
from benchmarks.peers.columns import OWN, RAW, best, columns_of, rows_of, verdict
from benchmarks.peers.launchers.own import Pyserve
from benchmarks.peers.launchers.plain_aiohttp import PlainAiohttp
from benchmarks.peers.measure import rotated
from benchmarks.peers.peer import Answer, Environment
from benchmarks.peers.results import Cell, Log, Plan, Visit
from benchmarks.peers.tree import ProcessTree, read_stat
from pyserve.bench.values import Latency, Run
from pyserve.errors import ConfigError

MACHINE: dict[str, object] = {
    "cpu": "A processor",
    "cores": 2,
    "system": "Linux 6",
    "python": "3.11",
    "versions": {"torch": "2.13"},
    "commit": "abc",
    "date": "2026-01-02T03:04:05+00:00",
    "load_average": 0.1,
}
PLAN = Plan(
    models=("tiny",),
    peers=("bare", "pyserve", "aiohttp"),
    passes=3,
    seconds=2.0,
    warm_up_s=1.0,
    connections=(1, 64),
    json_connections=(64,),
    command="the command",
    machine=MACHINE,
)
TINY = ModelCase(
    name="tiny",
    folder=Path("tiny"),
    path=Path("tiny/model.pt"),
    inputs=(Tensor("features", "FP32", (1, 2)), Tensor("mask", "INT64", (1, 1))),
    outputs=(Tensor("logits", "FP32", (1, 2)),),
    request=struct.pack("<2fq", 0.5, -1.0, 7),
    expected=(1.5, 2.5),
    max_batch_size=8,
)


def cell(rate: float, *, p50: float = 100.0, **fields: Any) -> Cell:
    given: dict[str, Any] = {"form": "binary", "mode": "closed", "connections": 64, **fields}
    return Cell(
        requests_per_s=rate,
        p50_us=p50,
        p99_us=3 * p50,
        cpu_s_per_1000=0.1,
        generator_cpu_s_per_1000=0.01,
        **given,
    )


def visit(peer: str, turn: int, *cells: Cell, **fields: Any) -> Visit:
    return Visit(turn=turn, model="tiny", peer=peer, cells=cells, **fields)


def log_of(tmp_path: Path, *visits: Visit) -> Log:
    log = Log(tmp_path / "peers.jsonl", PLAN, resume=False)
    for one in visits:
        log.add(one)
    return log


def tables(tmp_path: Path, *visits: Visit) -> str:
    return page.markdown(document(tmp_path, *visits))


def document(tmp_path: Path, *visits: Visit) -> dict[str, Any]:
    environment = Environment(folder=tmp_path, torch_packages=tmp_path)
    installed = {peer.name: (peer, environment) for peer in (Pyserve(), PlainAiohttp())}
    return page.document(log_of(tmp_path, *visits), installed, {"tiny": TINY}, {})


def row_of(text: str, start: str) -> str:
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return row


def test_run_of_a_load_becomes_a_cell_with_cpu_per_thousand_requests() -> None:
    run = Run(
        tool="wrk",
        requests=4000,
        seconds=2.0,
        latency_us=Latency(p50=10.0, p99=20.0),
        failures={"read": 2},
        details={"generator_cpu_s": 0.4},
    )
    one = results.cell_of(run, "json", "closed", 8, server_cpu_s=1.2)
    assert one.key == ("json", "closed", 8)
    assert one.requests_per_s == 2000
    assert one.cpu_s_per_1000 == pytest.approx(0.3)
    assert one.generator_cpu_s_per_1000 == pytest.approx(0.1)
    assert one.failures == {"read": 2}


def test_medians_are_taken_over_passes_and_failed_passes_are_left_out() -> None:
    visits = [
        visit("mosec", turn, cell(rate), memory_bytes=rate, cold_start_s=turn + 1.0)
        for turn, rate in enumerate((10, 1000, 30))
    ]
    middle = results.median_visit([*visits, visit("mosec", 3, error="it ended by itself")])
    assert middle.cells[0].requests_per_s == 30
    assert middle.memory_bytes == 30
    assert middle.cold_start_s == 2.0


def test_cell_of_the_medians_keeps_every_failure() -> None:
    some = [cell(1, failures={"read": 2}), cell(1), cell(1, failures={"read": 1, "timeout": 4})]
    assert results.median_cell(some).failures == {"read": 3, "timeout": 4}


def test_best_is_highest_or_lowest_and_ignores_who_has_no_figure() -> None:
    values = {"a": 2.0, "b": None, "c": 3.0}
    assert best(values, lowest=False) == "c"
    assert best(values, lowest=True) == "a"
    assert best({"b": None}, lowest=True) is None


def test_best_of_a_column_is_bold_whoever_it_is(tmp_path: Path) -> None:
    text = tables(
        tmp_path,
        visit("pyserve", 0, cell(900, p50=10.0), cell(50, connections=1)),
        visit("aiohttp", 0, cell(800, p50=20.0), cell(70, connections=1)),
    )
    assert "| 50 | **900** |" in row_of(text, "pyserve |")
    assert "| **70** | 800 |" in row_of(text, "aiohttp, `model(x)` |")


def test_verdict_is_the_median_of_the_ratios_to_each_pass_s_best() -> None:
    visits = [
        visit(peer, turn, cell(rate))
        for turn, rates in enumerate([(100, 50, 80), (300, 100, 20), (90, 60, 30)])
        for peer, rate in zip(("pyserve", "a", "b"), rates, strict=True)
    ]
    column = next(one for one in columns_of(PLAN) if one.title == "requests/s, 64")
    found = verdict(visits, column, OWN, passes=3)
    assert found is not None
    assert found.ratio == pytest.approx(1.5)  # of 1.25, 3 and 1.5
    assert (found.ahead, found.other, found.value) == (True, "a", 60)
    assert found.text({"a": "A"}) == "**1.50** of A 60"


def test_verdict_says_where_a_peer_wins(tmp_path: Path) -> None:
    text = tables(
        tmp_path, visit("pyserve", 0, cell(50, p50=10.0)), visit("aiohttp", 0, cell(100, p50=5.0))
    )
    assert "0.50 of **aiohttp, `model(x)` 100**" in row_of(text, "requests/s, 64 |")
    assert "2.00 of **aiohttp, `model(x)` 0.005**" in row_of(text, "p50 ms, 64 |")


def test_verdict_compares_raw_and_binary_bodies_with_the_best_of_both() -> None:
    rows = rows_of(
        [
            visit("pyserve", 0, cell(50), cell(800, form="raw")),
            visit("a", 0, cell(100), cell(200, form="raw")),
        ]
    )
    column = next(one for one in columns_of(PLAN) if one.title == "requests/s, 64")
    binary, raw = (verdict(rows, column, own, passes=1) for own in (OWN, OWN + RAW))
    assert binary is not None
    assert raw is not None
    assert (binary.ratio, binary.ahead) == (0.25, False)
    assert (raw.ratio, raw.ahead) == (4.0, True)
    assert raw.text({"a": "A"}) == "**4.00** of A, raw body 200"


def test_raw_bodies_have_a_row_that_can_win(tmp_path: Path) -> None:
    own = visit("pyserve", 0, cell(90), cell(900, form="raw"), memory_bytes=1 << 30)
    text = tables(tmp_path, own, visit("aiohttp", 0, cell(800)))
    assert "**900**" in row_of(text, "pyserve, raw body |")
    assert "**1,024**" in row_of(text, "pyserve |")
    assert "1,024" not in row_of(text, "pyserve, raw body |")


def test_cell_with_failed_requests_says_so_and_never_wins(tmp_path: Path) -> None:
    text = tables(
        tmp_path,
        visit("pyserve", 0, cell(10)),
        visit("aiohttp", 0, cell(1000, failures={"status not 2xx or 3xx": 1234})),
    )
    assert "failed: 1,234 times status not 2xx or 3xx" in row_of(text, "aiohttp")
    assert "**10**" in row_of(text, "pyserve |")
    assert "requests/s, 64 |" not in text.split("### tiny")[0]


def test_server_that_could_not_be_measured_says_why(tmp_path: Path) -> None:
    text = tables(
        tmp_path,
        visit("pyserve", 0, cell(10)),
        visit("aiohttp", 0, error="it ended by itself:\n no module | named x"),
    )
    assert "none: it ended by itself: no module / named x" in row_of(text, "aiohttp")


def test_pass_that_the_medians_leave_out_is_named(tmp_path: Path) -> None:
    text = tables(
        tmp_path,
        visit("pyserve", 0, cell(10)),
        visit("aiohttp", 0, cell(5)),
        visit("aiohttp", 1, error="no answer in 180 s"),
    )
    assert "(1 of 3 passes: no answer in 180 s) |" in row_of(text, "aiohttp")


def test_page_names_machine_command_floor_and_settings(tmp_path: Path) -> None:
    floor = {
        "samples_per_s": 87000.0,
        "batch": 64.0,
        "instances": 2.0,
        "threads": 1.0,
        "optimized": 0.0,
        "one_thread_p50_us": 40.0,
        "one_thread_per_s": 24000.0,
        "all_threads_p50_us": 30.0,
        "all_threads_per_s": 33000.0,
    }
    text = tables(tmp_path, visit("pyserve", 0, cell(10)), visit("bare", 0, floor=floor))
    for fact in ("A processor", "2 cores", "Commit abc", "`the command`", "medians of 3 passes"):
        assert fact in text
    assert "87,000 samples/s, in batches of 64 on 2 by 1 threads" in text
    assert "`pip install aiohttp uvloop`" in text
    assert "| event loop | uvloop |" in text


def test_page_has_the_markers_that_the_comparison_writes_between(tmp_path: Path) -> None:
    copy = tmp_path / "performance.md"
    copy.write_text(page.PAGE.read_text())
    page.update(document(tmp_path, visit("pyserve", 0, cell(123))), copy)
    assert "**123**" in copy.read_text()
    assert copy.read_text().startswith(page.PAGE.read_text().partition(page.START)[0])


def test_chart_leaves_out_what_failed(tmp_path: Path) -> None:
    drawn = chart.bars(
        document(
            tmp_path,
            visit("pyserve", 0, cell(10)),
            visit("aiohttp", 0, cell(5, failures={"timeout": 1})),
        )
    )
    assert drawn["models"] == ["tiny"]
    assert drawn["servers"] == [["pyserve", [10.0]]]


def test_cut_run_goes_on_with_what_it_has(tmp_path: Path) -> None:
    log = log_of(tmp_path, visit("pyserve", 0, cell(10)), visit("aiohttp", 0, error="no answer"))
    path = tmp_path / "peers.jsonl"
    with path.open("ab") as file:
        file.write(msgspec.json.encode(visit("aiohttp", 1, cell(5)))[:40])
    again = Log(path, PLAN, resume=True)
    assert again.visits == [log.visits[0]]
    assert again.has((0, "tiny", "pyserve"))
    assert not again.has((0, "tiny", "aiohttp"))  # what failed is tried again
    again.add(visit("aiohttp", 0, cell(7)))
    assert results.read(path)[1] == again.visits


def test_run_with_other_options_or_of_another_commit_does_not_go_on(tmp_path: Path) -> None:
    log_of(tmp_path, visit("pyserve", 0, cell(10)))
    path = tmp_path / "peers.jsonl"
    elsewhere = {**MACHINE, "commit": "def"}
    for other in (
        msgspec.structs.replace(PLAN, seconds=9.0),
        msgspec.structs.replace(PLAN, machine=elsewhere),
    ):
        with pytest.raises(ConfigError, match="other options or of another commit"):
            Log(path, other, resume=True)
    later = msgspec.structs.replace(PLAN, command="another", machine={**MACHINE, "date": "later"})
    assert len(Log(path, later, resume=True).visits) == 1


def test_run_that_does_not_resume_begins_anew(tmp_path: Path) -> None:
    log_of(tmp_path, visit("pyserve", 0, cell(10)))
    assert Log(tmp_path / "peers.jsonl", PLAN, resume=False).visits == []
    assert results.read(tmp_path / "peers.jsonl")[1] == []


def test_order_turns_with_each_pass() -> None:
    assert [rotated("abc", turn) for turn in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_plain_request_is_the_inputs_one_after_the_other_or_lists_by_name() -> None:
    peer = PlainAiohttp()
    binary, as_json = peer.request(TINY, "binary"), peer.request(TINY, "json")
    assert binary is not None
    assert binary.body == TINY.request
    assert as_json is not None
    assert msgspec.json.decode(as_json.body) == {"features": [[0.5, -1.0]], "mask": [[7]]}
    assert peer.request(TINY, "raw") is None


def test_own_request_is_raw_for_one_input_only() -> None:
    assert Pyserve().request(TINY, "raw") is None
    one = msgspec.structs.replace(TINY, inputs=TINY.inputs[:1], request=TINY.request[:8])
    raw = Pyserve().request(one, "raw")
    assert raw is not None
    assert raw.body == one.request


def test_answers_are_read_in_every_form() -> None:
    data = struct.pack("<2f", 1.5, 2.5)
    assert PlainAiohttp().numbers(TINY, "binary", Answer(200, {}, data)) == [1.5, 2.5]
    text = b'{"logits": [[1.5, 2.5]]}'
    assert PlainAiohttp().numbers(TINY, "json", Answer(200, {}, text)) == [1.5, 2.5]
    header = {"inference-header-content-length": "2"}
    assert Pyserve().numbers(TINY, "binary", Answer(200, header, b"{}" + data)) == [1.5, 2.5]
    oip = b'{"outputs": [{"name": "logits", "shape": [1, 2], "data": [1.5, 2.5]}]}'
    assert Pyserve().numbers(TINY, "json", Answer(200, {}, oip)) == [1.5, 2.5]


@pytest.mark.parametrize("size", [4, 12])
def test_answer_of_another_length_is_unreadable(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes"):
        unpacked(TINY.outputs, bytes(size))


def test_answer_is_right_within_what_kernels_differ() -> None:
    assert TINY.is_right([1.5001, 2.5])
    assert not TINY.is_right([1.51, 2.5])
    assert not TINY.is_right([1.5])
    assert not TINY.is_right([float("nan"), 2.5])


def test_nested_lists_and_back() -> None:
    lists = nested([1, 2, 3, 4, 5, 6], (1, 2, 3))
    assert lists == [[[1, 2, 3], [4, 5, 6]]]
    assert list(flattened(lists)) == [1, 2, 3, 4, 5, 6]


def test_stat_line_is_read_whatever_the_process_is_called() -> None:
    fields = ["S", "7", "8", "9", *["0"] * 7, "150", "50", *["0"] * 6, "777", "0"]
    one = read_stat(f"42 (a) b (c) {' '.join(fields)}\n")
    assert (one.pid, one.parent, one.session, one.started) == (42, 7, 9, 777)
    assert one.cpu_s == pytest.approx(200 / 100)
    assert not one.zombie


# Says the id of a grandchild in a session of its own, whose parent then ends.
_DAEMON = """
import subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
)
print(child.pid, flush=True)
sys.stdin.readline()
"""


def test_tree_ends_with_a_daemon_that_has_left_parent_and_session() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _DAEMON],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        daemon = int(parent.stdout.readline())
        tree = ProcessTree(parent.pid)
        assert {one.pid for one in tree.look()} == {parent.pid, daemon}
        assert tree.memory_bytes() > 1 << 20
        before = tree.cpu_seconds()
        assert parent.stdin is not None
        parent.stdin.close()
        parent.wait(60)  # the daemon stays
        assert [one.pid for one in tree.look()] == [daemon]
        assert tree.cpu_seconds() >= before > 0
        tree.end()
        assert tree.look() == []
