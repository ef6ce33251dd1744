"""The table of errors read backwards: statuses and codes become exceptions again."""

import pytest

from pyserve import errors
from pyserve.errors import PyserveError, from_grpc_code, from_http_status

ROWS = [
    errors.InvalidInput,
    errors.Unauthenticated,
    errors.PermissionDenied,
    errors.ModelNotFound,
    errors.PayloadTooLarge,
    errors.QueueFull,
    errors.Cancelled,
    errors.ModelFailed,
    errors.Unavailable,
    errors.DeadlineExceeded,
]


@pytest.mark.parametrize("row", ROWS)
def test_each_row_comes_back_from_its_status_and_its_code(row: type[PyserveError]) -> None:
    assert type(from_http_status(row.http_status, "why")) is row
    retry_after_s = 2.0 if row is errors.QueueFull else None
    found = from_grpc_code(row.grpc_code, "why", retry_after_s=retry_after_s)
    assert type(found) is row
    assert found.message == "why"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (405, errors.InvalidInput),
        (418, errors.InvalidInput),
        (502, errors.Unavailable),
        (501, PyserveError),
        (302, PyserveError),
    ],
)
def test_a_status_in_no_row_blames_the_caller_below_500(
    status: int, expected: type[PyserveError]
) -> None:
    assert type(from_http_status(status, "x")) is expected


def test_only_a_full_queue_says_when_to_come_again_over_grpc() -> None:
    full = from_grpc_code("RESOURCE_EXHAUSTED", "full", retry_after_s=3.0)
    assert isinstance(full, errors.QueueFull)
    assert full.retry_after_s == 3.0
    assert type(from_grpc_code("RESOURCE_EXHAUSTED", "large")) is errors.PayloadTooLarge


def test_retry_after_is_kept_where_the_error_has_a_place_for_it() -> None:
    busy = from_http_status(503, "x", retry_after_s=4.0)
    assert isinstance(busy, errors.Unavailable)
    assert busy.retry_after_s == 4.0
    assert not hasattr(from_http_status(400, "x", retry_after_s=4.0), "retry_after_s")


def test_codes_that_are_in_no_row_are_faults_or_the_callers() -> None:
    assert type(from_grpc_code("UNKNOWN", "x")) is PyserveError
    assert type(from_grpc_code("UNIMPLEMENTED", "x")) is errors.InvalidInput
