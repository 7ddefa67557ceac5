from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zpdbench.curriculum.diagnosis import describe, side, unfed


def update(**changes: Any) -> dict[str, Any]:
    base = {
        "fallback": 0.0,
        "occupancy": 0.3,
        "perplexity": 2.0,
        "perplexity_smoothed": 2.0,
        "repeats_max": 1,
    }
    return {**base, **changes}


def test_nothing_to_say_of_a_run_that_did_what_it_should() -> None:
    order = np.random.default_rng(0).random(200)
    assert describe([update()] * 5, keep=0.9, difficulty=order, max_repeats=4) == []
    assert describe([], difficulty=order) == []


def test_mostly_empty() -> None:
    said = describe([update(fallback=0.9, occupancy=0.0), update()])
    assert "In 1 of 2 updates most of the block came from outside the window" in said[0]
    assert "In 1 of 2 updates the window held no candidate." in said


def test_the_side_of_the_fallback_is_told_from_90_per_cent_on() -> None:
    above = [update(fallback=0.4, fallback_below=0.0), update(fallback=0.2, fallback_below=0.0)]
    (said,) = describe(above)
    assert "(30% of the draws) lay to 100% above it: harder than meant, too hard" in said
    (said,) = describe([update(fallback=0.3, fallback_below=0.3)])
    assert "100% below it: easier than meant, mostly mastered already" in said
    # Not only at exactly 0 and 100 %: that of the old default study was 98 % and said nothing.
    (said,) = describe([update(fallback=0.4, fallback_below=0.392)])
    assert "lay to 98% below it" in said
    (said,) = describe([update(fallback=0.4, fallback_below=0.04)])
    assert "lay to 90% above it" in said
    assert describe([update(fallback=0.4, fallback_below=0.35)]) == []
    assert describe([*above, update(fallback=0.2, fallback_below=0.1)]) == []
    assert describe([update(fallback=0.01, fallback_below=0.0)]) == []


@pytest.mark.parametrize("below", [0.9, 0.89, 0.11, 0.1, 0.0])
@pytest.mark.parametrize("fallback", [0.3, 0.7, 1.0])
def test_sides_do_not_hang_on_rounding(below: float, fallback: float) -> None:
    expected = "below" if below >= 0.9 else "above" if below <= 0.1 else None
    assert side(fallback, below * fallback) == expected
    assert side(0.0, 0.0) is None


def test_an_update_that_is_not_fed_says_so_with_its_diagnosis() -> None:
    said = unfed(update(fallback=0.7, fallback_below=0.69, occupancy=0.02))
    assert said is not None
    assert "holds 2% of the pool, so 70% of the block comes from outside, below it" in said
    assert "mastered" in said
    said = unfed(update(fallback=0.7, fallback_below=0.0))
    assert said is not None
    assert "too hard" in said
    said = unfed(update(fallback=0.7, fallback_below=0.35))
    assert said is not None
    assert said.endswith("on both sides of it")
    assert unfed(update(fallback=0.5, fallback_below=0.5)) is None
    assert unfed({"pacing": 0.1}) is None
    # Another package's condition may record less.
    assert unfed({"fallback": 0.9}) == (
        "the window is not fed: 90% of the block comes from outside"
    )


def test_answers_much_shorter_or_longer_than_the_pool_s() -> None:
    even = update(pool_tokens=11.2, drawn_tokens=9.2)
    assert describe([even] * 3) == []
    short = update(pool_tokens=11.2, drawn_tokens=3.5)
    (said,) = describe([even, short, even])
    assert "In 1 of 3 updates the answers drawn were much shorter than the pool's" in said
    assert "3.5 response tokens, where the pool had 11.2" in said
    (said,) = describe([update(pool_tokens=10.0, drawn_tokens=15.0)])
    assert "much longer" in said
    assert len(describe([short, update(pool_tokens=10.0, drawn_tokens=15.0)])) == 2


def test_lag_names_the_weight_of_the_first_probe() -> None:
    raw = np.linspace(6.0, 2.0, 21)
    smoothed = raw.copy()
    for i in range(1, 21):
        smoothed[i] = 0.9 * smoothed[i - 1] + 0.1 * raw[i]
    updates = [
        update(perplexity=r, perplexity_smoothed=s) for r, s in zip(raw, smoothed, strict=True)
    ]
    (said,) = describe(updates, keep=0.9)
    assert "lagged the model" in said
    assert "harder than meant" in said
    assert "12 % in the last of 21 updates" in said.replace("12%", "12 %")


def test_reduction_to_another_condition() -> None:
    assert any("reduced to random" in s for s in describe([update(occupancy=0.99)] * 3))
    assert any("as good as random" in s for s in describe([update(occupancy=0.99), update()]))
    assert any("almost easy to hard" in s for s in describe([], difficulty=np.arange(50) / 50))
    assert any("almost hard to easy" in s for s in describe([], difficulty=-np.arange(50) / 50))


def test_repeats_at_the_limit() -> None:
    said = describe([update(repeats_max=4)] * 2, max_repeats=4)
    assert said == ["In 2 of 2 updates examples came the most often allowed (4 times a block)."]
