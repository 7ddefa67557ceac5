"""Scoring choices by few generations: every choice's sum, from the fewest paths."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zpdbench.engines.choices import Path, paths, sums

CHOICES = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), min_size=1, max_size=6)


def logprob(prefix: tuple[int, ...], token: int) -> float:
    """A made-up model: any fixed function of what comes before."""
    return -float(hash((prefix, token)) % 1000) / 100


def answers(chosen: list[Path]) -> dict[tuple[int, ...], list[dict[int, float]]]:
    return {
        p.forced: [
            {token: logprob(p.forced[:depth], token) for token in p.wanted}
            for depth in range(len(p.forced) + 1)
        ]
        for p in chosen
    }


@settings(deadline=None)
@given(CHOICES)
def test_sums_are_those_of_every_choice_by_itself(choices: list[list[int]]) -> None:
    expected = [sum(logprob(tuple(c[:i]), c[i]) for i in range(len(c))) for c in choices]
    assert sums(choices, answers(paths(choices))) == pytest.approx(expected)


@settings(deadline=None)
@given(CHOICES)
def test_no_more_generations_than_choices(choices: list[list[int]]) -> None:
    assert 1 <= len(paths(choices)) <= len({tuple(c) for c in choices})


def test_letters_need_one_position() -> None:
    assert paths([[5], [6], [7], [8]]) == [Path((), (5, 6, 7, 8))]


def test_letters_after_a_common_space_need_one_generation() -> None:
    assert paths([[1, 5], [1, 6], [1, 7]]) == [Path((1,), (1, 5, 6, 7))]


def test_sentences_need_one_generation_each() -> None:
    assert [p.forced for p in paths([[1, 2, 3], [4, 5, 6, 7]])] == [(1, 2), (4, 5, 6)]


def test_a_choice_that_begins_another_is_scored_on_its_way() -> None:
    assert paths([[1], [1, 2]]) == [Path((1,), (1, 2))]


def test_an_empty_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        paths([[1], []])
