"""Worked examples as they are printed in the literature and in R's own documentation.

The data are short enough to stand here; the figures are as printed, so with their digits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zpdbench.statistics import anova, effects, ladder

# Student (1908), "The probable error of a mean": additional hours of sleep under two drugs.
SLEEP = np.array(
    [
        [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
        [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
    ]
)
# Dobson (1983), table 7.1: dried weight of plants, a control and two treatments.
PLANTS = np.array(
    [
        [4.17, 5.58, 5.18, 6.11, 4.50, 4.61, 5.17, 4.53, 5.33, 5.14],
        [4.81, 4.17, 4.41, 3.59, 5.87, 3.83, 6.03, 4.89, 4.32, 4.69],
        [6.31, 5.12, 5.54, 5.50, 5.37, 5.29, 4.92, 6.15, 5.80, 5.26],
    ]
)
# Hollander and Wolfe (1973), p. 140: three ways of rounding first base, 22 players.
ROUNDING = np.array(
    [
        [5.40, 5.85, 5.20, 5.55, 5.90, 5.45, 5.40, 5.45, 5.25, 5.85, 5.25, 5.65, 5.60, 5.05, 5.50,
         5.45, 5.55, 5.45, 5.50, 5.65, 5.70, 6.30],
        [5.50, 5.70, 5.60, 5.50, 5.85, 5.55, 5.40, 5.50, 5.15, 5.80, 5.20, 5.55, 5.35, 5.00, 5.50,
         5.55, 5.55, 5.50, 5.45, 5.60, 5.65, 6.30],
        [5.55, 5.75, 5.50, 5.40, 5.70, 5.60, 5.35, 5.35, 5.00, 5.70, 5.10, 5.45, 5.45, 4.95, 5.40,
         5.50, 5.35, 5.55, 5.25, 5.40, 5.55, 6.25],
    ]
)  # fmt: skip
# Colditz et al. (1994): cases and others, vaccinated and not, and latitude, of 13 BCG trials.
BCG = np.array(
    [
        (4, 119, 11, 128, 44), (6, 300, 29, 274, 55), (3, 228, 11, 209, 42),
        (62, 13536, 248, 12619, 52), (33, 5036, 47, 5761, 13), (180, 1361, 372, 1079, 44),
        (8, 2537, 10, 619, 19), (505, 87886, 499, 87892, 13), (29, 7470, 45, 7232, 27),
        (17, 1699, 65, 1600, 42), (186, 50448, 141, 27197, 18), (5, 2493, 3, 2338, 33),
        (27, 16886, 29, 17825, 33),
    ],
    dtype=float,
)  # fmt: skip


def test_sleep_paired_and_welch() -> None:
    paired = effects.paired(SLEEP[0] - SLEEP[1], side="different", alpha=0.05)
    assert paired.statistic == pytest.approx(-4.0621, abs=5e-5)
    assert paired.df == 9
    assert paired.p_value == pytest.approx(0.002833, abs=5e-7)
    assert (paired.low, paired.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    welch = effects.welch(SLEEP[1], SLEEP[0], side="different", alpha=0.05)
    assert welch.statistic == pytest.approx(-1.8608, abs=5e-5)
    assert welch.df == pytest.approx(17.776, abs=5e-4)
    assert welch.p_value == pytest.approx(0.07939, abs=5e-6)
    assert (welch.low, welch.high) == pytest.approx((-3.3654832, 0.2054832), abs=5e-8)


def test_plant_growth_anova_tukey_kruskal() -> None:
    (term, *_) = anova.one_way(PLANTS)
    assert (term.df, term.df_error) == (2, 27)
    assert term.sum_sq == pytest.approx(3.76634, abs=5e-6)
    assert term.statistic == pytest.approx(4.8461, abs=5e-5)
    assert term.p_value == pytest.approx(0.01591, abs=5e-6)
    pairs = sorted(anova.tukey(PLANTS, is_blocked=False), key=lambda p: abs(p.difference))
    assert [abs(p.difference) for p in pairs] == pytest.approx([0.371, 0.494, 0.865], abs=5e-7)
    assert [p.p_value for p in pairs] == pytest.approx([0.3908711, 0.1979960, 0.0120064], abs=5e-7)
    statistic, df, p = anova.kruskal(PLANTS)
    assert statistic == pytest.approx(7.9882, abs=5e-5)
    assert df == 2 and p == pytest.approx(0.01842, abs=5e-6)


def test_rounding_times_friedman() -> None:
    statistic, df, p = anova.friedman(ROUNDING)
    assert statistic == pytest.approx(11.1429, abs=5e-5)
    assert df == 2 and p == pytest.approx(0.003805, abs=5e-7)


def test_bcg_meta_regression() -> None:
    """Viechtbauer (2010) and metafor's documentation: log risk ratios on absolute latitude."""
    a, b, c, d, latitude = BCG.T
    effect = np.log(a / (a + b)) - np.log(c / (c + d))
    variance = 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)
    plain = ladder.meta_regression(effect, variance, np.ones((13, 1)))
    assert plain.tau2 == pytest.approx(0.3132, abs=5e-5)
    assert plain.coefficients[0] == pytest.approx(-0.7145, abs=5e-5)
    assert plain.q == pytest.approx(152.2330, abs=5e-5)
    fit = ladder.meta_regression(effect, variance, np.column_stack([np.ones(13), latitude]))
    # metafor's iteration stops at a change of 1e-5.
    assert fit.tau2 == pytest.approx(0.0764, abs=6e-5)
    assert fit.coefficients == pytest.approx([0.2515, -0.0291], abs=5e-5)
    assert fit.q == pytest.approx(30.7331, abs=5e-5)
    assert fit.df == 11


def test_holm_by_hand() -> None:
    assert effects.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


PINGOUIN = json.loads((Path(__file__).parent / "fixtures" / "pingouin.json").read_text("utf-8"))


@pytest.mark.parametrize("want", PINGOUIN["grids"])
def test_pingouin_agrees(want: dict[str, Any]) -> None:
    """Five grids of 4 conditions and 3 to 20 seeds; fixtures/make_pingouin.py."""
    y = np.array(want["y"])

    def near(got: list[float], name: str) -> None:
        assert got == pytest.approx(want[name], rel=1e-8, abs=1e-10), name

    one_way, block = anova.one_way(y)[0], anova.blocked(y)[0]
    near([one_way.statistic, one_way.p_value], "one_way")
    near([block.statistic, block.p_value, block.epsilon, block.p_corrected], "blocked")
    welch = effects.welch(y[0], y[3], side="different")
    near([welch.statistic, welch.df, welch.p_value], "welch")
    paired = effects.paired(y[3] - y[0], side="different")
    near([paired.statistic, paired.p_value], "paired")
    for name, (statistic, _, p) in (
        ("friedman", anova.friedman(y)),
        ("kruskal", anova.kruskal(y)),
    ):
        near([statistic, p], name)
    # Pingouin corrects by Hedges' approximation, we by the exact factor.
    size = effects.hedges_g(y[3], y[0])
    assert size.d * (1 - 3 / (4 * 2 * y.shape[1] - 9)) == pytest.approx(want["g"], rel=1e-8)
