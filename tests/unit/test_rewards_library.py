"""What the library's rewards say of completions, and who is to blame for what they cannot."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import LauncherError, UsageError
from launcher.recipe.library import LIBRARY, options_of
from launcher.recipe.types import Score
from launcher.worker.evaluate import score
from launcher.worker.evaluate.generate import Completion
from launcher.worker.rewards import library
from launcher.worker.rewards.build import function_judge
from launcher.worker.rewards.judge import Judge, LibraryJudge, UserJudge
from launcher.worker.rewards.library import FUNCTIONS
from launcher.worker.rewards.patience import TooSlow, at_most
from launcher.worker.rewards.user import UserFunction


def judged(
    name: str, texts: list[Any], columns: dict[str, Any] | None = None, **options: Any
) -> Any:
    judge = LibraryJudge("it", name, options_of(name, options))
    ids = [[7] * len(str(text)) for text in texts]
    return judge(prompts=["?"] * len(texts), completions=texts, completion_ids=ids, **columns or {})


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_the_recipes_table_and_the_functions_are_the_same() -> None:
    assert set(LIBRARY) == set(FUNCTIONS)


def test_an_exact_match_passes_over_spaces_and_what_stands_before_the_mark() -> None:
    answers = {"answer": ["Paris", "Paris", "Paris", None, 5]}
    texts = [" Paris\n", "It is Paris", "paris", "Paris", "5"]
    assert judged("exact_match", texts, answers) == [1, 0, 0, None, 1]
    assert judged("exact_match", ["a # b # Paris"], {"answer": ["Paris"]}, after="#") == [1]
    assert judged("exact_match", ["Paris"], {"answer": ["Paris"]}, after="#") == [0]
    assert judged("exact_match", ["PARIS"], {"capital": ["paris"]}, column="capital",
                  ignore_case=True) == [1]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("so 3 + 4 = 7", "7", 1),
        ("it costs $1,234.50.", 1234.5, 1),
        ("1,234", "1234", 1),
        ("about -2e3", -2000, 1),
        ("1/4", "0.25", 1),
        ("0.333", "1/3", 0),
        ("70 %", "70", 1),
        ("seven", "7", 0),
        ("1/0", "7", 0),
        ("7", "no number", None),
        ("7", None, None),
        ("x" * 100_000 + "7", "7", 1),
        ("9" * 5000, "7", 0),
        ("1,2,3", "3", 1),
        ("3-4", "4", 1),
        ("-.5", "-1/2", 1),
    ],
)
def test_a_numeric_answer_is_the_last_number(text: str, answer: Any, right: float | None) -> None:
    assert judged("numeric_answer", [text], {"answer": [answer]}) == [right]


def test_a_number_may_be_off_by_the_tolerance() -> None:
    near = {"answer": ["100"]}
    assert judged("numeric_answer", ["101"], near, tolerance=0.02) == [1]
    assert judged("numeric_answer", ["103"], near, tolerance=0.02) == [0]


def test_tags_count_once_each() -> None:
    whole = "<think>\na\n</think>\n<answer>\nb\n</answer>"
    assert judged("tag_count", [whole, whole * 2, "<think>\na", ""]) == [1, 0, 0.25, 0]
    assert judged("tag_count", ["[a] b", "b"], tags=["[a]", "[b]"]) == [0.5, 0]


def test_steps_are_numbered_dashed_or_in_words() -> None:
    texts = ["First, a.\nStep 2: b\n3. c\n- d", "1. a\n2. b", "10.5 - 3 * 2"]
    assert judged("reasoning_steps", texts) == [1, pytest.approx(2 / 3), 0]
    assert judged("reasoning_steps", ["1. a\n2. b"], steps=2) == [1]


def test_a_short_right_answer_is_best_and_a_short_wrong_one_worst() -> None:
    texts, answers = ["7", "7" + " " * 9, "8", "8" + " " * 99, "7"], {"answer": [*"7777", None]}
    found = judged("cosine_length", texts, answers, max=10, unit="characters")
    assert found == [pytest.approx(x, abs=0.02) for x in (1, 0.5, -1, -0.5)] + [None]
    assert judged("cosine_length", ["7" + " " * 4], {"answer": ["7"]}, max=10) == [0.75]


def test_brevity_is_held_against_the_answers_to_the_same_prompt() -> None:
    judge = LibraryJudge("it", "brevity", options_of("brevity", {"unit": "words"}))
    texts = ["7", "so 7", "well so 7", "8", "it is 8", "so it is 7"]
    prompts = ["a", "a", "a", "a", "b", "b"]
    found = judge(prompts, texts, [[1]] * 6, answer=[7] * 6)
    assert found == [0.5, 0, -0.5, 0, 0, -0.5]
    assert judge(["a"], ["7"], [[1]], answer=["7"]) == [0]


@pytest.mark.parametrize(
    ("name", "options", "ids", "right"),
    [
        ("get_soft_overlong_punishment", {"max_completion_len": 100, "soft_punish_cache": 20},
         [1] * 90, -0.5),
        ("get_repetition_penalty_reward", {"ngram_size": 2}, [5] * 5, -0.75),
        ("think_format_reward", {}, [1], 1),
    ],
)  # fmt: skip
def test_trls_own_functions_judge_by_name_texts_and_messages(
    name: str, options: dict[str, Any], ids: list[int], right: float
) -> None:
    judge = function_judge("it", name, options, Path)
    for text in ("<think>a</think> b", said("<think>a</think> b")):
        assert judge(["?"], [text], [ids]) == [right]


def test_a_function_that_reads_latex_tells_that_math_verify_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("launcher.worker.rewards.of_trl.find_spec", lambda name: None)
    for name, options in (
        ("accuracy_reward", {}),
        ("get_cosine_scaled_reward", {"max_len": 9}),
        ("brevity", {"correct": "latex"}),
    ):
        with pytest.raises(UsageError, match="math-verify, which is not installed here"):
            function_judge("it", name, options, Path)


def test_a_function_of_trl_tells_the_column_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.worker.rewards.of_trl.find_spec", lambda name: object())
    judge = function_judge("it", "accuracy_reward", {}, Path)
    with pytest.raises(UsageError, match="with the column solution, and the data has answer"):
        judge(["?"], ["a"], [[1]], answer=["a"])


def test_an_option_that_trl_refuses_is_told_before_anything_loads() -> None:
    with pytest.raises(UsageError, match=r"max_penalty 1\.0 should not be positive"):
        function_judge("it", "get_repetition_penalty_reward", {"max_penalty": 1.0}, Path)


def test_a_path_of_import_is_imported_where_the_training_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept_rewards.py").write_text(
        "def size(completions, **others):\n    return [len(c) for c in completions]\n"
        "def bad(completions):\n    return [1 / 0]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert function_judge("it", "kept_rewards.size", {}, Path)(["?"], ["abc"], [[1]]) == [3]
    with pytest.raises(UsageError, match="kept_rewards:4 bad: ZeroDivisionError"):
        function_judge("it", "kept_rewards.bad", {}, Path)(["?"], ["abc"], [[1]])
    with pytest.raises(UsageError, match="kept_rewards has no function none"):
        function_judge("it", "kept_rewards.none", {}, Path)
    with pytest.raises(UsageError, match=r"nowhere\.f cannot be imported: No module named"):
        function_judge("it", "nowhere.f", {}, Path)


def test_a_format_is_matched_whole_over_lines_or_found_within() -> None:
    pattern = "<think>.+</think>\\s*<answer>.+</answer>"
    good, more = (
        "<think>a\nb</think>\n<answer>7</answer>",
        "Well: <think>a</think><answer>7</answer>",
    )
    assert judged("regex_format", [f" {good}\n", more, "7"], pattern=pattern) == [1, 0, 0]
    assert judged("regex_format", [good, more, "7"], pattern=pattern, whole=False) == [1, 1, 0]


def test_a_pattern_that_backtracks_for_ever_is_stopped_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "PATTERN_SECONDS", 0.05)
    with pytest.raises(UsageError, match=r"'\(a\+\)\+b' took more than 0.05 s .* 60 characters"):
        judged("regex_format", ["a" * 60], pattern="(a+)+b")


def test_an_alarm_that_was_set_before_goes_on_with_the_time_it_had_left() -> None:
    before = signal.getitimer(signal.ITIMER_REAL)[0]
    signal.setitimer(signal.ITIMER_REAL, 300)
    try:
        with pytest.raises(TooSlow), at_most(0.01):
            time.sleep(1)
        left = signal.getitimer(signal.ITIMER_REAL)[0]
        assert 290 < left < 300
    finally:
        signal.setitimer(signal.ITIMER_REAL, before)


@pytest.mark.parametrize(
    ("options", "rewards"),
    [
        ({"max": 4}, [1, 1, 0.5, 0, 0]),
        ({"min": 4}, [0.5, 1, 1, 1, 1]),
        ({"min": 4, "max": 4}, [0.5, 1, 0.5, 0, 0]),
    ],
)
def test_a_length_falls_in_a_line_outside_its_bounds(
    options: dict[str, Any], rewards: list[float]
) -> None:
    assert judged("length", ["x" * n for n in (2, 4, 6, 8, 100)], **options) == rewards


def test_a_length_may_be_of_words_or_characters_and_tokens_end_at_the_end() -> None:
    assert judged("length", ["one two three"], max=2, unit="words") == [0.5]
    assert judged("length", ["äöü"], min=6, unit="characters") == [0.5]
    judge = LibraryJudge("it", "length", options_of("length", {"min": 4}))
    judge._ends = frozenset({2})
    assert judge(["?"], ["ab"], [[5, 2, 0, 0, 0]]) == [0.5]


def test_repetition_is_the_share_of_n_grams_that_were_there_before() -> None:
    assert judged("repetition", ["a b c d", "a a a a a", "a"]) == [0, pytest.approx(1 / 3 - 1), 0]
    assert judged("repetition", ["a a b"], ngram=1) == [pytest.approx(2 / 3 - 1)]


def test_messages_are_judged_by_what_they_say() -> None:
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "Par"}, {"text": "is"}]}]
    silent = [{"role": "assistant", "content": None}]
    answers = {"answer": ["Paris"] * 3}
    assert judged("exact_match", [said("Paris"), parts, silent], answers) == [1, 1, 0]


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="column answer, and the data has solution"):
        judged("exact_match", ["7"], {"solution": ["7"], "trainer_state": None})


def user(folder: Path, text: str, name: str = "mine") -> Judge:
    (folder / "copy.py").write_text(text)
    return UserJudge("it", UserFunction("/home/ada/rewards.py", name, folder / "copy.py"))


def ask(judge: Judge, **columns: Any) -> Any:
    return judge(["p", "q"], [said("a"), said("b")], [[1], [2, 3]], **columns)


def test_a_users_function_gets_trls_keywords_and_the_columns(tmp_path: Path) -> None:
    judge = user(
        tmp_path,
        "def mine(prompts, completions, completion_ids, answer, **others):\n"
        "    assert prompts == ['p', 'q'] and sorted(others) == ['level', 'trainer_state']\n"
        "    return [float(c[0]['content'] == a) for c, a in zip(completions, answer)]\n",
    )
    assert ask(judge, answer=["a", "a"], level=[1, 2], trainer_state=None) == [1, 0]


def test_a_users_function_may_take_what_it_wants_alone_and_wait_for_others(tmp_path: Path) -> None:
    judge = user(
        tmp_path,
        "import asyncio\n"
        "async def mine(completions):\n"
        "    await asyncio.sleep(0)\n"
        "    return [None, 2]\n",
    )
    assert ask(judge, answer=["a", "a"]) == [None, 2.0]
    assert asyncio.run(asyncio.sleep(0)) is None


@pytest.mark.parametrize(
    "head",
    [
        "completions, answer, **others",
        "completions, prompts, **columns",
        "**given",
        "*, completions",
    ],
)
def test_one_function_rewards_a_training_and_scores_an_evaluation(
    tmp_path: Path, head: str
) -> None:
    texts = "completions" if "completions" in head else "given['completions']"
    text = f"def mine({head}):\n    return [float(c == 'a') for c in {texts}]\n"
    (tmp_path / "copy.py").write_text(text)
    named = f"{tmp_path / 'copy.py'}:mine"
    rows = [{"prompt": prompt, "answer": "x"} for prompt in "ab"]
    written = [Completion([1], [2], text, ended=True) for text in "ba"]
    scored = score.function("it", Score(named), rows)(rows, written)
    rewarded = function_judge("it", named, {}, Path)(
        prompts=["a", "b"],
        completions=["b", "a"],
        completion_ids=[[2], [2]],
        answer=["x", "x"],
        trainer_state=None,
    )
    assert scored == rewarded == [0, 1]


def test_a_score_that_fails_is_told_with_the_place_in_the_users_own_file(tmp_path: Path) -> None:
    (tmp_path / "copy.py").write_text("def mine(answer, **others):\n    return answer['x']\n")
    rows = [{"prompt": "a", "answer": "x"}]
    given = score.function(
        "it", Score("/home/ada/scores.py:mine"), rows, lambda _path: tmp_path / "copy.py"
    )
    with pytest.raises(UsageError, match=r"/home/ada/scores.py:2 mine: TypeError"):
        given(rows, [Completion([1], [2], "b", ended=True)])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    return [1 / 0]", r"/home/ada/rewards.py:2 mine: ZeroDivisionError"),
        ("    return columns['reply']", r"/home/ada/rewards.py:2 mine: KeyError: 'reply'"),
        ("    return [1.0]", "gave 1 values for 2 completions"),
        ("    return 1.0", "gave float"),
        ("    return 'ab'", "gave str"),
        ("    return [1.0, float('nan')]", "gave nan for completion 1"),
        ("    return [1.0, '2']", "gave '2' for completion 1"),
        ("    return [[1], 2]", r"gave \[1\] for completion 0"),
    ],
)
def test_a_users_mistake_is_told_with_its_place(tmp_path: Path, body: str, words: str) -> None:
    judge = user(tmp_path, f"def mine(completions, **columns):\n{body}\n")
    with pytest.raises(LauncherError, match=words):
        ask(judge, answer=["a", "a"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def mine(:\n", r"/home/ada/rewards.py:1 mine: SyntaxError"),
        ("import nowhere_to_be_found\n", r"/home/ada/rewards.py:1 mine: ModuleNotFoundError"),
        ("def other():\n    pass\n", "/home/ada/rewards.py has no function mine"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_told_with_its_place(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        user(tmp_path, text)
