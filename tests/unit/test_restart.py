"""What one server process leaves to the next."""

import socket

import msgspec
import pytest

from pyserve.restart import Handover, listeners, next_handover, taken_over, too_often


def test_a_first_start_takes_nothing_over() -> None:
    assert taken_over({"HOME": "/"}) is None


def test_what_was_left_is_taken_once() -> None:
    left = Handover(sockets=(7, 9), grpc_port=8001, device="cuda:1", restarts=(1.5,))
    environment = {"PYSERVE_RESTARTED": msgspec.json.encode(left).decode(), "HOME": "/"}
    assert taken_over(environment) == left
    assert environment == {"HOME": "/"}


def test_each_restart_is_remembered_for_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = None
    for now in (100.0, 650.0, 705.0):
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        before = next_handover(before, sockets=(3,), grpc_port=0, device="cuda:0")
    assert before is not None
    assert before.restarts == (650.0, 705.0)


@pytest.mark.parametrize(
    ("restarts", "expected"),
    [((), False), ((900.0, 950.0), False), ((900.0, 950.0, 990.0), True),
     ((399.0, 950.0, 990.0), False)],
)  # fmt: skip
def test_three_restarts_in_ten_minutes_are_enough(
    restarts: tuple[float, ...], expected: bool
) -> None:
    assert too_often(Handover(sockets=(), restarts=restarts), now=1000.0) is expected
    assert not too_often(None, now=1000.0)


def test_listeners_are_not_inherited_by_the_children_of_the_next_process() -> None:
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        first.listen()
        address = first.getsockname()
        first.set_inheritable(True)
        (second,) = listeners(Handover(sockets=(first.detach(),)))
        with second:
            assert second.getsockname() == address
            assert not second.get_inheritable()
