"""pyserve.errors: the one table, and messages that fit wherever they travel."""

import pytest

from pyserve import _native, errors
from pyserve.errors import PyserveError, cut, from_code

TABLE = [
    (errors.InvalidInput, 400, "INVALID_ARGUMENT"),
    (errors.LoadFailed, 400, "INVALID_ARGUMENT"),
    (errors.ConfigError, 400, "INVALID_ARGUMENT"),
    (errors.Unauthenticated, 401, "UNAUTHENTICATED"),
    (errors.PermissionDenied, 403, "PERMISSION_DENIED"),
    (errors.ModelNotFound, 404, "NOT_FOUND"),
    (errors.PayloadTooLarge, 413, "RESOURCE_EXHAUSTED"),
    (errors.QueueFull, 429, "RESOURCE_EXHAUSTED"),
    (errors.Cancelled, 499, "CANCELLED"),
    (errors.ModelFailed, 500, "INTERNAL"),
    (errors.Unavailable, 503, "UNAVAILABLE"),
    (errors.DeadlineExceeded, 504, "DEADLINE_EXCEEDED"),
]


@pytest.mark.parametrize(("error", "status", "code"), TABLE)
def test_every_error_has_its_row_in_the_table(
    error: type[PyserveError], status: int, code: str
) -> None:
    assert (error.http_status, error.grpc_code) == (status, code)
    assert error("why").message == str(error("why")) == "why"


def test_the_table_here_lists_every_error() -> None:
    defined = {
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, PyserveError) and one is not PyserveError
    }
    assert defined == {error for error, _, _ in TABLE}


def test_every_code_of_the_core_has_an_exception() -> None:
    assert set(_native.core().code_names()) - {"ok"} == set(errors.BY_CODE)


def test_a_code_of_the_core_becomes_its_exception() -> None:
    error = from_code("deadline_exceeded", "too late")
    assert type(error) is errors.DeadlineExceeded
    assert error.message == "too late"
    full = from_code("queue_full", "full")
    assert isinstance(full, errors.QueueFull)
    assert full.retry_after_s == 1


def test_an_unknown_code_is_a_fault_of_the_server() -> None:
    assert from_code("surprise", "x").http_status == 500


def test_long_messages_are_cut_to_a_kibibyte_of_valid_text() -> None:
    assert cut("short") == "short"
    assert cut("x" * 1024) == "x" * 1024
    for text in ("x" * 1025, "é" * 600, "日" * 5000, "\ud800" * 2000):
        encoded = cut(text).encode("utf-8")
        assert 1000 < len(encoded) <= 1024
        assert encoded.endswith("…".encode())
    assert len(errors.InvalidInput("é" * 5000).message.encode()) <= 1024


def test_a_message_that_is_no_text_is_made_into_one() -> None:
    assert cut("a\udcffb") == "a?b"
