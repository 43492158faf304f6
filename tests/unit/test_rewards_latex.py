"""Rewards that read LaTeX judge real answers with the real math-verify."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import UsageError
from launcher.recipe.types import Score
from launcher.worker import heartbeat
from launcher.worker.evaluate import score
from launcher.worker.evaluate.generate import Completion
from launcher.worker.rewards.build import function_judge
from launcher.worker.stop import STOP_SIGNALS, Leave, Stop

ENDLESS = r"\boxed{9^{9^{9}}}"
"""What no comparison comes to the end of."""
LATEX: dict[str, Any] = {"max": 100, "correct": "latex", "column": "solution"}
"""Options of `cosine_length`."""


def judged(
    text: Any, answer: Any, name: str = "accuracy_reward", options: dict[str, Any] | None = None
) -> float | None:
    judge = function_judge("it", name, options or {}, Path)
    (given,) = judge(["?"], [text], [[7] * 50], solution=[answer])
    return given


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (r"so \boxed{\frac{1}{2}}", "0.5", 1),
        (r"\boxed{0.5}", r"$\frac{1}{2}$", 1),
        (r"\boxed{50\%}", r"\frac{1}{2}", 1),
        (r"\boxed{\frac{1}{3}}", "0.5", 0),
        (r"\boxed{0.333333}", r"$\frac13$", 1),
        (r"\boxed{(x-1)(x+1)}", "$x^2-1$", 1),
        (r"\boxed{\{2, 1\}}", r"$\{1, 2\}$", 1),
        (r"\boxed{(2, 1)}", "$(1, 2)$", 0),
        (r"\boxed{\text{Paris}}", r"\boxed{\text{Paris}}", 1),
        (r"\boxed{1{,}234 \text{ m}}", "1234", 1),
        ("The final answer is $7$.", "7", 1),
        ("Answer: \\(7\\)", "7", 1),
        # It is to be marked as the answer.
        ("it is $7$", "7", 0),
        ("The answer is 7", "7", 0),
        # All boxes are one answer.
        (r"\boxed{1} or \boxed{2}", "2", 0),
        (r"\boxed{1} or \boxed{2}", r"$\{1, 2\}$", 1),
        (r"\boxed{7", "7", 0),
        (r"\boxed{\frac{1}{}", "7", 0),
        ("", "7", 0),
        ([{"role": "assistant", "content": r"\boxed{7}"}], "7", 1),
    ],
)
def test_an_answer_is_right_in_whatever_form(text: Any, answer: str, right: float) -> None:
    assert judged(text, answer) == right


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        (r"3\pi", r"3\pi", "3"),
        (r"\dfrac{\sqrt{3}}{2}", r"\frac{\sqrt{3}}{2}", "3"),
        (r"2\frac{1}{2}", "2.5", r"\frac{1}{2}"),
        ("x^2-1", "x^2-1", "-1"),
        ("(1, 2)", "(1, 2)", "2"),
        ("xy + 2", "2 + xy", "2"),
        (r"\text{Paris}", r"\text{Paris}", r"\text{Rome}"),
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}", "2"),
        ("1,234", "1234", "234"),
        ("-.5", r"-\frac{1}{2}", "5"),
        (7, "7", "8"),
        (0.5, r"\frac{1}{2}", "5"),
        ("The answer is 7", "7", "8"),
        ("48/2 = 24\n48+24 = 72\n#### 72", "72", "24"),
    ],
)
@pytest.mark.parametrize("name", ["accuracy_reward", "cosine_length"])
def test_a_row_s_answer_may_be_latex_alone_a_number_or_a_text(
    name: str, answer: Any, right: str, wrong: str
) -> None:
    options = LATEX if name == "cosine_length" else {}
    for text, good in ((right, True), (wrong, False)):
        given = judged(rf"\boxed{{{text}}}", answer, name, options)
        assert given is not None and (given > 0) == good, text


@pytest.mark.parametrize("answer", [None, "", "nobody knows"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("accuracy_reward", {}),
        ("get_cosine_scaled_reward", {"max_len": 100}),
        ("cosine_length", LATEX),
        ("brevity", {"correct": "latex", "column": "solution"}),
    ],
)
def test_a_row_without_a_readable_answer_is_not_judged(
    name: str, options: dict[str, Any], answer: str | None
) -> None:
    assert judged(r"\boxed{7}", answer, name, options) is None


def test_what_follows_the_reasoning_alone_is_judged() -> None:
    name = "reasoning_accuracy_reward"
    assert judged(r"<think>\boxed{1}</think> \boxed{7}", "7", name) == 1
    assert judged(r"<think>\boxed{7}</think> \boxed{1}", "7", name) == 0
    assert judged(r"<think>\boxed{7}", "7", name) == 0
    assert judged(r"\boxed{1} so \boxed{7}", "7", name, {"reasoning_delimiters": ["so"]}) == 1


def test_a_cosine_of_the_length_is_of_right_answers_and_of_wrong_ones() -> None:
    name = "get_cosine_scaled_reward"
    assert judged(r"\boxed{\frac{1}{2}}", "0.5", name, {"max_len": 100}) == pytest.approx(0.75)
    assert judged(r"\boxed{2}", "0.5", name, {"max_len": 100}) == pytest.approx(-0.75)


@pytest.mark.parametrize(
    ("end", "right"),
    [
        (r"#### \frac{1}{2}", 1),
        (r"#### $\frac{1}{2}$", 1),
        (r"#### \boxed{0.5}", 1),
        ("#### 0.5.\nThat is all.", 1),
        ("#### 0.5 m", 1),
        (r"\boxed{0.5} #### 2", 0),
        (r"\boxed{0.5}", 0),
        (r"\boxed{0.5} ####", 0),
    ],
)
def test_what_follows_the_mark_is_the_answer_without_a_box(end: str, right: float) -> None:
    given = judged(f"so {end}", "0.5", "cosine_length", {**LATEX, "after": "####"})
    assert given is not None and (given > 0) == right


def test_scores_that_find_no_answer_to_read_are_refused() -> None:
    completion = Completion([1], [2], r"\boxed{7}", ended=True)
    rows: list[dict[str, Any]] = [{"prompt": "a", "solution": 7}, {"prompt": "b", "solution": None}]
    assert score.function("it", Score("accuracy_reward"), rows)(rows, [completion] * 2) == [1, None]
    with pytest.raises(UsageError, match=r"it \(accuracy_reward\) finds no answer in any row"):
        score.function("it", Score("accuracy_reward"), [{"prompt": "a", "solution": "none known"}])


def test_each_answer_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = heartbeat.Listener()
    monkeypatch.setenv(heartbeat.PIPE, str(listener.write))
    judge = function_judge("it", "accuracy_reward", {}, Path)
    assert judge(["?"] * 3, [r"\boxed{7}"] * 3, [[1]] * 3, solution=["7", "8", "9"]) == [1, 0, 0]
    assert len(os.read(listener._read, 100)) == 3
    listener.started()
    listener.close()


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGALRM)}
    stop = Stop()
    stop.listen()
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


def signalled_soon(number: signal.Signals) -> None:
    """By another process: a long multiplication lets no other thread in."""
    subprocess.Popen(["sh", "-c", f"sleep 1; kill -{number.value} {os.getpid()}"])


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_an_answer_that_takes_for_ever_is_wrong_and_a_stop_meanwhile_is_heard(
    stop: Stop, number: signal.Signals
) -> None:
    before = signal.getsignal(signal.SIGALRM)
    signalled_soon(number)
    began = time.monotonic()
    assert judged(ENDLESS, "7") == 0
    assert time.monotonic() - began < 60
    assert stop.told
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getsignal(number) == stop._note


def test_where_nothing_is_to_be_saved_a_stop_ends_the_reading_at_once(stop: Stop) -> None:
    judged(r"\boxed{7}", "7")  # what is imported and compiled once
    stop.leave_at_once()
    signalled_soon(signal.SIGTERM)
    began = time.monotonic()
    with pytest.raises(Leave):
        judged(ENDLESS, "7")
    assert time.monotonic() - began < 4.5


def test_in_another_thread_answers_are_judged_without_an_alarm() -> None:
    given: list[float | None] = []
    thread = threading.Thread(target=lambda: given.append(judged(r"\boxed{0.5}", "1/2")))
    thread.start()
    thread.join()
    assert given == [1]
