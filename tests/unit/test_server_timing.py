"""The Server-Timing of an answer: with processing where there was any."""

from pyserve.messages import Timing
from pyserve.wire.server_timing import server_timing

RUN = (
    b"parse;dur=0.002, queue;dur=2.500, batch;desc=8, "
    b"copy-in;dur=0.000, compute;dur=1.000, copy-out;dur=0.125"
)


def test_a_run_has_its_stages() -> None:
    assert server_timing(2_000, Timing(2_500_000, 8, 0, 1_000_000, 125_000)) == RUN


def test_processing_has_entries_where_there_was_any() -> None:
    timing = Timing(2_500_000, 8, 0, 1_000_000, 125_000, 3_000_000, 0)
    expected = RUN + b", preprocess;dur=3.000, postprocess;dur=0.000"
    assert server_timing(2_000, timing) == expected
