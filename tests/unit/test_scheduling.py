"""pyserve.scheduling: timeouts and priorities as they come in, sensible or not."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from pyserve.errors import InvalidInput
from pyserve.scheduling import (
    NEVER_NS,
    deadline_after,
    nearest_deadline,
    priority_of,
    timeout_us_in,
    timeout_us_of,
)

NO_COUNT: list[Any] = [-1, -(10**5000), 1.0, 1.5, math.nan, math.inf, 1e300]
NO_COUNT += ["1", "", True, False, [1], {}, b"1"]


def kind(value: object) -> str:
    return type(value).__name__  # Python writes no integer of thousands of digits


@pytest.mark.parametrize(("value", "priority"), [(None, 0), (0, 0), (1, 1), (2, 2), (3, 3)])
def test_there_are_three_priorities_and_none(value: object, priority: int) -> None:
    assert priority_of(value) == priority


@pytest.mark.parametrize("value", [*NO_COUNT, 4, 255, 256, 2**63, 10**5000], ids=kind)
def test_any_other_priority_is_refused_with_what_came_and_what_is_expected(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        priority_of(value)
    assert str(caught.value).startswith("priority is ")
    assert str(caught.value).endswith("expected 1 (high), 2 (normal), 3 (low) or 0 (the model's)")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [0, 1, 2**53 + 1, 2**63, 2**64, 10**5000], ids=kind)
def test_a_timeout_is_a_whole_number_of_any_size(value: int) -> None:
    assert timeout_us_of(value) == value


@pytest.mark.parametrize("value", NO_COUNT, ids=kind)
def test_any_other_timeout_is_refused_with_what_came_and_what_is_expected(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^timeout is .*, expected microseconds: a whole num"):
        timeout_us_of(value)


def test_the_nearer_of_timeout_and_deadline_counts() -> None:
    before = time.monotonic_ns()
    assert nearest_deadline(0, 0) == 0
    assert nearest_deadline(before + 5, 0) == before + 5
    assert nearest_deadline(before + 5, 1_000_000) == before + 5
    for deadline_ns in (0, before + 10**12):
        found = nearest_deadline(deadline_ns, 1_000_000)
        assert before + 10**9 <= found <= time.monotonic_ns() + 10**9


@pytest.mark.parametrize("timeout_us", [2**62, 2**63, 2**64, 10**300])
def test_a_timeout_beyond_all_time_is_never(timeout_us: int) -> None:
    assert nearest_deadline(0, timeout_us) == NEVER_NS


@pytest.mark.parametrize("seconds", [1e10, 1e300, math.inf])
def test_seconds_beyond_all_time_are_never(seconds: float) -> None:
    assert deadline_after(seconds) == NEVER_NS


@pytest.mark.parametrize("seconds", [0, -0.0, -1, -1e300, -math.inf])
def test_a_deadline_is_never_before_now(seconds: float) -> None:
    before = time.monotonic_ns()
    assert before <= deadline_after(seconds) <= time.monotonic_ns()


def test_seconds_that_are_not_a_number_are_refused() -> None:
    with pytest.raises(InvalidInput, match="timeout is not a number"):
        deadline_after(math.nan)


@pytest.mark.parametrize(
    ("seconds", "timeout_us"),
    [(math.inf, 0), (1.5, 1_500_000), (1e-9, 1), (1e9, 10**15)],
)
def test_a_clients_timeout_always_has_a_form_on_the_wire(seconds: float, timeout_us: int) -> None:
    assert timeout_us_in(seconds) == timeout_us
