"""The same hostile requests through every door: the same rows of the one table of errors.

What is sent stands in hostile_cases.py, how it is sent in hostile_doors.py. After every case the
same server answers a good request through the same door.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hostile_cases import ALL, CASES, GOOD, Case, Door
from hostile_doors import LIMIT_BYTES, numbers_of, send
from server_process import Server, start, three_waiting

from pyserve.errors import InvalidInput

MATRIX = [(case, door) for case in CASES for door in Door if door in case.doors]


@pytest.fixture(scope="module")
def server(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that all cases go to; it keeps its memory, and must end cleanly."""
    log = tmp_path_factory.mktemp("server") / "log"
    options = ["--max-body-bytes", str(LIMIT_BYTES), "--shared-memory"]
    with start(log, "--model-repository", str(model_repository), *options) as running:
        for door in Door:
            check_serving(running, door)
        before = running.rss_bytes()
        yield running
        # What a body and its copies take is kept by the allocator; a leak or a bomb is more.
        assert running.rss_bytes() < before + 8 * LIMIT_BYTES
        assert running.stop() == 0
        assert "Traceback" not in log.read_text()


def check_serving(server: Server, door: Door) -> None:
    outcome = send(server, door, GOOD)
    assert outcome.code == outcome.expected(None), outcome.message
    assert numbers_of(door, outcome) == [3, 5, 7, 9]


@pytest.mark.parametrize(
    ("case", "door"), MATRIX, ids=[f"{case.name}-{door}" for case, door in MATRIX]
)
def test_a_hostile_request_gets_its_row_of_the_table(
    server: Server, case: Case, door: Door
) -> None:
    with three_waiting(server) if case.setting == "queue full" else nullcontext():
        outcome = send(server, door, case)
    assert outcome.code == outcome.expected(case.error), outcome.message
    assert case.error is None or len(outcome.message) > 10
    check_serving(server, door)


def test_the_matrix_is_as_wide_as_it_claims() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60
    everywhere = [case for case in CASES if case.doors == ALL]
    assert len(everywhere) >= 20
    for door in Door:
        assert sum(door in case.doors for case in CASES) >= 25


@pytest.mark.parametrize("door", [Door.BINARY, Door.RAW])
def test_large_requests_that_are_refused_leave_no_memory_behind(server: Server, door: Door) -> None:
    case = next(case for case in CASES if case.name == "a million empty strings for two")
    size = 4_000_000

    def refused(times: int) -> None:
        for _ in range(times):
            outcome = send(server, door, case)
            assert outcome.code == outcome.expected(InvalidInput)

    refused(5)
    before = server.rss_bytes()
    refused(40)
    assert server.rss_bytes() < before + 12 * size
