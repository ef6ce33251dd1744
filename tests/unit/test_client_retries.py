"""Both clients' way of asking: retries, deadlines, metadata that grew old. No clock runs here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pyserve import AsyncClient, Client, errors
from pyserve.client.http_infer import HttpCall, HttpReply
from pyserve.client.retries import NoAnswer, Retries

ANSWER = b'{"model_name":"m","outputs":[]}'
X = {"x": np.zeros(1, np.float32)}


def metadata(*names: str) -> HttpReply:
    inputs = ",".join(f'{{"name":"{one}","datatype":"FP32","shape":[1]}}' for one in names)
    return HttpReply(200, {}, f'{{"name":"m","inputs":[{inputs}]}}'.encode())


OK = HttpReply(200, {}, ANSWER)
FULL = HttpReply(429, {"retry-after": "2"}, b'{"error": "full"}')
BUSY = HttpReply(503, {}, b'{"error": "draining"}')
WRONG = HttpReply(400, {}, b'{"error": "wrong"}')
MISSING = HttpReply(404, {}, b'{"error": "none"}')
FAILED = HttpReply(500, {}, b'{"error": "failed"}')


class Script:
    """A transport that answers with what was written down; time passes only by sleeping here."""

    def __init__(self, *steps: HttpReply | Exception, takes_s: float = 0.0) -> None:
        self.steps = list(steps)
        self.calls: list[HttpCall] = []
        self.timeouts: list[float] = []
        self.slept: list[float] = []
        self.now = 100.0
        self.takes_s = takes_s

    def send(self, call: HttpCall, timeout_s: float) -> HttpReply:
        self.calls.append(call)
        self.timeouts.append(timeout_s)
        self.now += self.takes_s
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class AsyncScript:
    def __init__(self, script: Script) -> None:
        self._script = script

    async def send(self, call: HttpCall, timeout_s: float) -> HttpReply:
        return self._script.send(call, timeout_s)


Ask = Callable[..., Any]


@pytest.fixture(params=["Client", "AsyncClient"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Call a method of a client whose server is a script; backoff is as long as it may be."""

    def ask_sync(script: Script, method: str, *values: Any, **options: Any) -> Any:
        client = Client(clock=lambda: script.now, sleep=script.sleep, **options.pop("client", {}))
        client._transport = script  # type: ignore[assignment]
        return answers(client, script, method, values, options)

    def ask_async(script: Script, method: str, *values: Any, **options: Any) -> Any:
        async def sleep(seconds: float) -> None:
            script.sleep(seconds)

        client = AsyncClient(clock=lambda: script.now, sleep=sleep, **options.pop("client", {}))
        client._transport = AsyncScript(script)  # type: ignore[assignment]
        return asyncio.run(answers(client, script, method, values, options))

    def answers(client: Any, script: Script, method: str, values: Any, options: Any) -> Any:
        object.__setattr__(client._core.retries, "draw", lambda: 1.0)
        return getattr(client, method)(*values, **options)

    return ask_sync if request.param == "Client" else ask_async


def test_what_is_refused_for_now_is_asked_again_later_and_later(ask: Ask) -> None:
    script = Script(BUSY, BUSY, BUSY, OK)
    assert ask(script, "infer", "m", X).model == "m"
    assert script.slept == [0.05, 0.1, 0.2]


def test_retry_after_is_waited_for_before_the_backoff(ask: Ask) -> None:
    script = Script(FULL, OK)
    ask(script, "infer", "m", X)
    assert script.slept == [2.05]


def test_the_last_refusal_is_raised(ask: Ask) -> None:
    script = Script(FULL, FULL, FULL, FULL)
    with pytest.raises(errors.QueueFull, match="full"):
        ask(script, "infer", "m", X)
    assert len(script.calls) == 4


@pytest.mark.parametrize("reply", [FULL, BUSY])
def test_no_retries_is_one_question(ask: Ask, reply: HttpReply) -> None:
    script = Script(reply)
    with pytest.raises(errors.PyserveError):
        ask(script, "infer", "m", X, client={"retries": 0})
    assert script.slept == []


@pytest.mark.parametrize(
    ("reply", "error"),
    [(WRONG, errors.InvalidInput), (MISSING, errors.ModelNotFound), (FAILED, errors.ModelFailed)],
)
def test_other_errors_are_final(ask: Ask, reply: HttpReply, error: type[Exception]) -> None:
    script = Script(reply)
    with pytest.raises(error):
        ask(script, "infer", "m", X)


def test_an_inference_without_an_answer_is_asked_again(ask: Ask) -> None:
    script = Script(NoAnswer("x", again="always"), NoAnswer("x", again="repeatable"), OK)
    ask(script, "infer", "m", X)
    assert len(script.calls) == 3


def test_an_answer_cut_off_in_the_middle_is_final(ask: Ask) -> None:
    script = Script(NoAnswer("x", again="never"))
    with pytest.raises(errors.Unavailable):
        ask(script, "infer", "m", X)


def test_a_load_that_may_have_begun_is_not_begun_again(ask: Ask) -> None:
    script = Script(NoAnswer("x", again="always"), NoAnswer("cut", again="repeatable"))
    with pytest.raises(errors.Unavailable, match="cut"):
        ask(script, "load", "m")
    assert len(script.calls) == 2


def test_the_timeout_holds_for_all_attempts_together(ask: Ask) -> None:
    script = Script(BUSY, BUSY, OK, takes_s=1.0)
    ask(script, "infer", "m", X, timeout=4.0)
    assert script.timeouts == pytest.approx([4.0, 2.95, 1.85])
    told = [b'"timeout":4000000', b'"timeout":29', b'"timeout":18']
    assert all(text in call.body for text, call in zip(told, script.calls, strict=True))


def test_a_wait_beyond_the_timeout_is_not_begun(ask: Ask) -> None:
    script = Script(FULL)
    with pytest.raises(errors.QueueFull):
        ask(script, "infer", "m", X, timeout=2.0)
    assert script.slept == []


def test_an_error_that_comes_at_the_last_moment_is_not_hidden_by_the_timeout(ask: Ask) -> None:
    script = Script(FAILED, takes_s=2.0)
    with pytest.raises(errors.ModelFailed):
        ask(script, "infer", "m", X, timeout=1.0)


def test_a_timeout_that_passes_between_two_questions_is_the_end(ask: Ask) -> None:
    script = Script(metadata("x"), takes_s=2.0)
    with pytest.raises(errors.DeadlineExceeded, match="1 s"):
        ask(script, "infer", "m", [1.0], timeout=1.0)


def test_the_clients_own_timeout_is_told_to_the_server(ask: Ask) -> None:
    script = Script(OK)
    ask(script, "infer", "m", X, client={"timeout": 7.0})
    assert script.timeouts == [7.0]
    assert b'"timeout":7000000' in script.calls[0].body


def test_a_timeout_that_nobody_has_chosen_is_kept_and_not_told(ask: Ask) -> None:
    script = Script(OK)
    ask(script, "infer", "m", X)
    assert script.timeouts == [60.0]
    assert b"timeout" not in script.calls[0].body


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_that_is_none_is_refused(ask: Ask, timeout: float) -> None:
    with pytest.raises(errors.InvalidInput, match="seconds above 0"):
        ask(Script(), "infer", "m", X, timeout=timeout)


def test_live_and_ready_are_false_where_nobody_answers_and_ask_once(ask: Ask) -> None:
    for method in ("live", "ready"):
        assert ask(Script(NoAnswer("x", again="always")), method) is False
        assert ask(Script(BUSY), method) is False
        assert ask(Script(OK), method) is True
    assert ask(Script(MISSING), "ready", "m") is False


def test_names_come_from_the_models_metadata_once() -> None:
    script = Script(metadata("a", "b"), OK, OK)
    client = Client()
    client._transport = script  # type: ignore[assignment]
    for _ in range(2):
        client.infer("m", (X["x"], X["x"]))
    assert [call.path for call in script.calls] == ["/v2/models/m", *["/v2/models/m/infer"] * 2]
    assert b'"name":"a"' in script.calls[1].body


def test_metadata_is_fetched_again_when_the_server_refuses_what_it_says() -> None:
    script = Script(metadata("old"), OK, WRONG, metadata("new"), OK, WRONG, metadata("new"))
    client = Client()
    client._transport = script  # type: ignore[assignment]
    client.infer("m", X["x"])
    client.infer("m", X["x"])
    assert b'"name":"new"' in script.calls[4].body
    with pytest.raises(errors.InvalidInput, match="wrong"):
        client.infer("m", X["x"])
    assert script.steps == []


def test_what_was_asked_with_fresh_metadata_is_not_asked_again(ask: Ask) -> None:
    script = Script(metadata("x"), WRONG)
    with pytest.raises(errors.InvalidInput):
        ask(script, "infer", "m", [1.0])
    assert script.steps == []


def test_backoff_is_drawn_from_nothing_to_its_bound_and_is_bounded() -> None:
    low, high = Retries(99, lambda: 0.0), Retries(99, lambda: 1.0)
    error = errors.Unavailable("x")
    assert low.pause_s(error, 50, 60.0, repeatable=True) == 0.0
    assert high.pause_s(error, 50, 60.0, repeatable=True) == 5.0
    assert high.pause_s(error, 99, 60.0, repeatable=True) is None
