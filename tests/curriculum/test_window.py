from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zpdbench.curriculum.window import Draw, Window, draw


def test_bounds() -> None:
    assert Window().bounds(2.0) == pytest.approx((2.2, 2.6))
    assert Window(upper=False).bounds(2.0) == (pytest.approx(2.2), math.inf)
    assert Window(lower=False).bounds(2.0) == (0.0, pytest.approx(2.6))


def test_adaptation_follows_the_gain_and_keeps_its_limits() -> None:
    window = Window()
    assert window.adapt(0.5, None) == window
    up = window.adapt(0.506, 0.5)
    assert (up.alpha, up.beta) == pytest.approx((1.155, 1.365))
    down = window.adapt(0.504, 0.5)  # less than 1 % relative
    assert (down.alpha, down.beta) == pytest.approx((1.1 / 1.05, 1.3 / 1.05))
    for _ in range(20):
        up, down = up.adapt(1.0, 0.5), down.adapt(0.5, 0.5)
    assert (up.alpha, up.beta) == (1.2, 1.6)
    assert (down.alpha, down.beta) == (1.0, 1.2)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(1.0, 50.0), min_size=1, max_size=60),
    st.floats(1.0, 20.0),
    st.floats(1.01, 3.0),
    st.integers(1, 4),
    st.floats(0.05, 1.0),
    st.integers(0, 5),
)
def test_draw_properties(
    values: list[float], low: float, width: float, repeats: int, share: float, seed: int
) -> None:
    perplexities = np.array(values)
    high = low * width
    need = max(1, int(share * len(values) * repeats))
    drawn = draw(perplexities, low, high, need, repeats, np.random.default_rng(seed))
    assert len(drawn.positions) == need
    counts = np.bincount(drawn.positions, minlength=len(values))
    assert counts.max() <= repeats
    inside = (perplexities >= low) & (perplexities <= high)
    assert drawn.inside == inside.sum()
    assert drawn.fallback == counts[~inside].sum()
    # The window is exhausted before anything from outside comes.
    assert drawn.fallback == max(0, need - repeats * drawn.inside)
    if drawn.fallback:
        assert (counts[inside] == repeats).all()
        # What came is never farther from the window than what did not.
        logs = np.log(perplexities)
        distance = np.where(perplexities < low, np.log(low) - logs, logs - np.log(high))
        never = distance[~inside & (counts == 0)]
        if len(never):
            assert distance[~inside & (counts > 0)].max() <= never.min() + 1e-12
    elif drawn.inside:
        # Repeats are spread evenly: no example comes twice more than another.
        assert counts[inside].max() - counts[inside].min() <= 1


def test_a_pool_that_cannot_give_enough_is_an_error() -> None:
    with pytest.raises(ValueError, match="13 examples from 3"):
        draw(np.ones(3), 1, 2, 13, 4, np.random.default_rng(0))


def test_stretch_and_gain_are_compounded_over_updates() -> None:
    twice = Window().adapt(0.5 * 1.01**2 + 1e-9, 0.5, 2.0)
    assert twice == Window().adapt(0.6, 0.5, 2.0)
    assert (twice.alpha, twice.beta) == pytest.approx((1.1 * 1.05**2, 1.3 * 1.05**2), abs=0.02)
    assert Window().adapt(0.5 * 1.01 + 1e-9, 0.5, 2.0).alpha == pytest.approx(1.0)
    half = Window().adapt(0.5 * 1.006, 0.5, 0.5)
    assert half.beta == pytest.approx(1.3 * 1.05**0.5)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(1.0, 50.0), min_size=1, max_size=60),
    st.floats(1.0, 20.0),
    st.floats(0.0, 2.0),
    st.integers(1, 4),
    st.floats(0.05, 1.0),
)
def test_within_the_limit_by_nearness_beyond_it_at_random(
    values: list[float], low: float, limit: float, repeats: int, share: float
) -> None:
    perplexities, high = np.array(values), low * 1.2
    need = max(1, int(share * len(values) * repeats))

    def once(seed: int, within: float | None) -> Draw:
        return draw(perplexities, low, high, need, repeats, np.random.default_rng(seed), within)

    drawn, free = once(0, limit), once(0, None)
    counts = np.bincount(drawn.positions, minlength=len(values))
    assert len(drawn.positions) == need
    assert counts.max() <= repeats
    assert (drawn.inside, drawn.fallback) == (free.inside, free.fallback)
    logs = np.log(perplexities)
    distance = np.where(perplexities < low, np.log(low) - logs, logs - np.log(high))
    outside = (perplexities < low) | (perplexities > high)
    far = outside & (distance > limit)
    assert drawn.beyond == counts[far].sum()
    assert drawn.below == counts[perplexities < low].sum()
    assert drawn.pool_below == (perplexities < low).sum()
    if drawn.beyond:
        # What is near is used up first, and what is far comes evenly.
        assert (counts[~far] == repeats).all()
        assert counts[far].max() - counts[far].min() <= 1
    assert free.beyond == 0


def test_far_examples_are_drawn_whatever_their_distance() -> None:
    values = np.exp(np.linspace(1.0, 4.0, 400))
    drawn = draw(values, 1.0, 1.1, 100, 1, np.random.default_rng(0), 0.1)
    assert (drawn.fallback, drawn.beyond, drawn.below) == (100, 100, 0)
    # 100 of 400 at random: a mean position of 199.5 with a standard error of 10.
    assert abs(drawn.positions.mean() - 199.5) < 40
    assert draw(values, 1.0, 1.1, 100, 1, np.random.default_rng(0)).positions.max() == 99


def test_open_bounds_fall_back_to_the_nearest() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    generator = np.random.default_rng(0)
    drawn = draw(values, 5.0, math.inf, 2, 1, generator)
    assert sorted(drawn.positions) == [2, 3]
    drawn = draw(values, 0.0, 0.5, 2, 1, generator)
    assert sorted(drawn.positions) == [0, 1]
