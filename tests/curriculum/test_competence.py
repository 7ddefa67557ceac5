from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zpdbench.curriculum.competence import (
    Measures,
    calibration_error,
    competence,
    effective_perplexity,
    smooth,
)


def test_a_worked_example() -> None:
    # 0.40 exp(-1) + 0.35 * 0.6 + 0.25 * (1 - 0.2)
    assert competence(1.0, 0.6, 0.2) == pytest.approx(0.40 * math.exp(-1) + 0.21 + 0.20)


@settings(deadline=None)
@given(st.floats(0, 20))
def test_loss_alone_gives_the_perplexity(loss: float) -> None:
    value = effective_perplexity(competence(loss, 0.3, 0.9, (1.0, 0.0, 0.0)))
    assert value == pytest.approx(math.exp(loss), rel=1e-9)


@settings(deadline=None)
@given(st.floats(0, 30), st.floats(0, 1), st.floats(0, 1))
def test_bounded_and_monotone(loss: float, confidence: float, entropy: float) -> None:
    value = competence(loss, confidence, entropy)
    assert 0 < value <= 1
    assert competence(loss + 1, confidence, entropy) <= value
    assert competence(loss, min(confidence + 0.1, 1.0), entropy) >= value
    assert competence(loss, confidence, min(entropy + 0.1, 1.0)) <= value


def test_weights_are_divided_by_their_sum() -> None:
    assert competence(1.0, 0.5, 0.5, (2, 0, 0)) == competence(1.0, 0.5, 0.5, (1, 0, 0))
    with pytest.raises(ValueError, match="weights"):
        competence(1.0, 0.5, 0.5, (-1, 1, 1))


def test_pooled_weighs_tokens_not_examples() -> None:
    measures = Measures(
        np.array([1.0, 3.0]), np.array([0.5, 0.1]), np.array([0.2, 0.6]), np.array([30, 10])
    )
    assert measures.pooled() == pytest.approx((1.5, 0.4, 0.3))


def test_smoothing_keeps_twelve_percent_of_the_first_value_after_twenty_updates() -> None:
    value = smooth(None, 1.0)
    for _ in range(20):
        value = smooth(value, 0.0)
    assert value == pytest.approx(0.9**20)
    assert round(100 * value) == 12


def test_calibration_error() -> None:
    confidence = np.array([0.95] * 10 + [0.55] * 10)
    right = np.array([True] * 5 + [False] * 5 + [True] * 5 + [False] * 5)
    # bins of ten tokens each: |0.5 - 0.95| and |0.5 - 0.55|
    assert calibration_error(confidence, right) == pytest.approx(0.25)
    assert calibration_error(np.ones(4), np.ones(4, dtype=bool)) == 0.0
