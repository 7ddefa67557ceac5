"""Extraction and comparison, against the harness's rules worked out by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpdbench.benchmarks import answers


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("so 9 * 2 = 18\n#### 18", "18", "18"),
        ("#### 1,234.", "1234", "1234"),
        ("#### -7", "-7", "-7"),
        ("#### 5\n#### 6", "5", "6"),
        ("####5", "", "5"),
        ("A: 26", "", "26"),
        ("It costs $1,000.50.", "", "1000.50"),
        ("3 apples. ", "", "3"),
        ("#### .", "", ""),
        ("", "", ""),
        ("none", "", ""),
        ("#### 70000 dollars, 5 of them", "70000", "5"),
        ("wait...", "", ".."),
    ],
)
def test_numbers(text: str, strict: str, flexible: str) -> None:
    assert answers.strict_number(text) == strict
    assert answers.flexible_number(text) == flexible


def _harness_normal(text: str, patterns: Sequence[str]) -> str:
    for pattern in patterns:
        text = re.sub(pattern, "", text)
    return text.lower()


@given(st.text(alphabet="#$,. 0A\n-", max_size=30))
def test_normalisation_is_the_harness_s_regexes(text: str) -> None:
    expected = _harness_normal(text, [",", r"\$", "(?s).*#### ", r"\.$"])
    assert answers.normalise_number(text) == expected


def test_a_found_answer_of_punctuation_is_wrong_and_not_missing() -> None:
    verdict = answers.judge_number("#### .", "18")
    assert (verdict.correct, verdict.status) == (0.0, "ok")


def test_a_megabyte_is_judged_at_once() -> None:
    for text in ("#### " + "1" * 1_000_000, "-" * 1_000_000, "#### " * 200_000, "\0" * 1_000_000):
        assert answers.judge_number(text, "18").correct == 0.0


@pytest.mark.parametrize(
    ("text", "correct", "status"),
    [
        ("B", 1, "ok"),
        (" B\n", 1, "ok"),
        ("A", 0, "ok"),
        *((text, 0, "no_answer") for text in ("b", "", "AB", "E", "\ud800")),
    ],
)
def test_letters(text: str, correct: float, status: str) -> None:
    verdict = answers.judge_letter(text, "1")
    assert (verdict.correct, verdict.status) == (correct, status)


@pytest.mark.parametrize(
    ("text", "correct", "status"),
    [
        ("1", 1, "ok"),
        ("0", 0, "ok"),
        *((text, 0, "no_answer") for text in ("2", "-1", "1.0", "", "١")),
    ],
)
def test_indices(text: str, correct: float, status: str) -> None:
    verdict = answers.judge_index(text, "1", 2)
    assert (verdict.correct, verdict.status) == (correct, status)


def test_choice_is_the_first_of_the_largest_and_ties_are_marked() -> None:
    verdict = answers.judge_choice([-2.0, -1.0, -1.0, -3.0], "1", ["a", "b", "c", "d"])
    assert (verdict.prediction, verdict.correct, verdict.status) == ("1", 1.0, "tie")
    verdict = answers.judge_choice([-2.0, -1.0, -1.00005, -3.0], "2", ["a", "b", "c", "d"])
    assert (verdict.prediction, verdict.correct, verdict.status) == ("1", 0.0, "tie")
    verdict = answers.judge_choice([-1.0, -1.1], "0", ["a", "b"])
    assert (verdict.status, verdict.correct_norm) == ("ok", None)


def test_acc_norm_divides_by_characters() -> None:
    verdict = answers.judge_choice([-3.0, -4.0], "1", ["ab", "abcd"], norm=True)
    assert (verdict.correct, verdict.correct_norm) == (0.0, 1.0)


def test_confidence_is_the_probability_among_the_choices() -> None:
    def of(*logprobs: float) -> float | None:
        return answers.judge_choice(logprobs, "0", ["a"] * len(logprobs)).confidence

    assert of(math.log(0.1), math.log(0.6), math.log(0.2), math.log(0.1)) == 0.6
    # The four letters need not be all that the model would say.
    assert of(math.log(0.03), math.log(0.01)) == 0.75
    assert of(-2.0, -2.0, -2.0) == pytest.approx(1 / 3, abs=1e-6)
    assert of(-5000.0, -9000.0) == 1.0
    assert of(-1.0, float("-inf")) == 1.0
    # Less than what machines differ by changes no digit that is kept (but at a rounding's edge).
    assert of(-1.0, -2.0) == of(-1.0 + 1e-9, -2.0)
    assert answers.judge_letter("A", "0").confidence is None
    assert answers.judge_number("#### 1", "1").confidence is None


@pytest.mark.parametrize(
    "bad", [[], [-1.0], [-1.0, float("nan")], [-1.0, -1.0, -1.0], [float("-inf")] * 2]
)
def test_log_likelihoods_that_do_not_fit_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="log-likelihoods"):
        answers.judge_choice(bad, "0", ["a", "b"])


def test_majority() -> None:
    assert answers.majority(["3", "5", "5", "3", "7"]) == "3"
    assert answers.majority(["", "", "4"]) == "4"
    assert answers.majority(["", ""]) == ""
