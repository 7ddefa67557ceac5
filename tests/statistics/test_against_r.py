"""Every statistic against R on 24 fixed grids (fixtures/reference.R made the numbers)."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special

from zpdbench.hypotheses import H3a
from zpdbench.statistics import (
    anova,
    contrasts,
    crossed,
    effects,
    efficiency,
    h3a_sensitivity,
    ladder,
    power,
)
from zpdbench.statistics.h3a import Cells
from zpdbench.statistics.resampling import permutation

FIXTURES = Path(__file__).parent / "fixtures"
REFERENCE: dict[str, Any] = json.loads((FIXTURES / "reference.json").read_text("utf-8"))
FURTHER: dict[str, Any] = json.loads((FIXTURES / "further.json").read_text("utf-8"))
GRIDS = [np.array(g) for g in json.loads((FIXTURES / "data.json").read_text("utf-8"))]
PAIRS = list(zip(GRIDS, REFERENCE["grids"], strict=True))
MODELS = [(y[i], want["models"][i]) for y, want in PAIRS for i in range(2)]
EXACT, ITERATIVE = 1e-8, 1e-4


def near(got: float, want: float | None, rel: float = EXACT) -> None:
    assert want is not None
    assert got == pytest.approx(want, rel=rel, abs=1e-10)


def near_p(got: float, want: float, rel: float = EXACT) -> None:
    """Equal to 1e-8 relative and 1e-10 absolute."""
    assert abs(got - want) <= 1e-10 + 1e-13 or rel > EXACT
    assert got == pytest.approx(want, rel=rel, abs=1e-13)


def check_term(term: anova.Term, want: dict[str, float]) -> None:
    assert term.df == want["df"]
    near(term.sum_sq, want["sum_sq"])
    near(term.statistic, want["f"])
    near_p(term.p_value, want["p"])


def cells_of(treatment: np.ndarray, control: np.ndarray, items: int) -> Cells:
    """One benchmark's cells of scores [model, seed] in [0, 1]."""
    roles = ("small", "large")
    return Cells(
        ["b"],
        {r: [str(i) for i in range(treatment.shape[1])] for r in roles},
        {
            r: {"treatment": treatment[i][:, None], "control": control[i][:, None]}
            for i, r in enumerate(roles)
        },
        np.array([items]),
        1,
    )


def test_there_are_enough_data_sets() -> None:
    assert len(GRIDS) == len(REFERENCE["grids"]) >= 20


@pytest.mark.parametrize(("y", "want"), MODELS)
def test_one_way_and_blocked(y: np.ndarray, want: dict[str, Any]) -> None:
    check_term(anova.one_way(y)[0], want["one_way"]["condition"])
    condition, seed = anova.blocked(y)
    check_term(condition, want["blocked"]["condition"])
    check_term(seed, want["blocked"]["seed"])
    near(condition.eta2, want["eta2"])
    near(max(anova.one_way(y)[0].omega2, 0.0), want["omega2_one_way"])
    if want["epsilon"] is not None:
        near(condition.epsilon, want["epsilon"])
        near_p(condition.p_corrected, want["p_corrected"])


OMEGA: dict[str, Any] = json.loads((FIXTURES / "omega.json").read_text("utf-8"))


@pytest.mark.parametrize(("y", "want"), list(zip(GRIDS, OMEGA["grids"], strict=True)))
def test_omega_squared_with_random_blocks(y: np.ndarray, want: dict[str, Any]) -> None:
    """Against effectsize (fixtures/omega.R), which writes 0 for what is below it."""
    for one, reference in zip(y, want["blocked"], strict=True):
        condition, seed = anova.blocked(one)
        near(max(condition.omega2, 0.0), reference["condition"])
        assert math.isnan(seed.omega2)
    model, condition, interaction, seed = anova.two_way_blocked(y)
    for term, name in (
        (model, "model"), (condition, "condition"), (interaction, "model:condition"),
    ):  # fmt: skip
        near(max(term.omega2, 0.0), want["split"][name])
    assert math.isnan(seed.omega2)


@pytest.mark.parametrize(("y", "want"), MODELS)
@pytest.mark.parametrize("is_blocked", [True, False])
def test_tukey(y: np.ndarray, want: dict[str, Any], is_blocked: bool) -> None:
    reference = want["tukey_blocked" if is_blocked else "tukey"]
    for pair, (difference, low, high, p) in zip(
        anova.tukey(y, is_blocked=is_blocked), reference, strict=True
    ):
        near(pair.difference, difference)
        # R's qtukey is accurate to 1e-4 by its own documentation.
        half = (high - low) / 2
        assert pair.low == pytest.approx(low, abs=ITERATIVE * half)
        assert pair.high == pytest.approx(high, abs=ITERATIVE * half)
        # R's ptukey integrates to about 1e-8.
        assert pair.p_value == pytest.approx(p, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("y", "want"), MODELS)
def test_rank_and_assumption_tests(y: np.ndarray, want: dict[str, Any]) -> None:
    for name, (statistic, _, p) in (
        ("kruskal", anova.kruskal(y)),
        ("friedman", anova.friedman(y)),
    ):
        near(statistic, want[name][0])
        near_p(p, want[name][1])
    f, _, _, p = anova.levene(y)
    near(f, want["levene"][0])
    near_p(p, want["levene"][1])
    for is_blocked, name in ((False, "shapiro"), (True, "shapiro_blocked")):
        w, p = anova.shapiro(y, is_blocked=is_blocked)
        near(w, want[name][0])
        # p goes with 1 - W, which loses two digits near 1.
        near_p(p, want[name][1], rel=1e-7)


@pytest.mark.parametrize(("y", "want"), MODELS)
def test_paired_t_and_effect_size(y: np.ndarray, want: dict[str, Any]) -> None:
    test = effects.paired(y[3] - y[0], side="different", alpha=0.05)
    reference = want["paired"]
    near(test.estimate, reference["estimate"])
    near(test.statistic, reference["t"])
    near_p(test.p_value, reference["p"])
    near(test.low, reference["low"])
    near(test.high, reference["high"])
    interval = effects.mean_interval(y[3] - y[0])
    assert (interval.low, interval.high) == pytest.approx((test.low, test.high), rel=1e-12)
    size = effects.hedges_g(y[3], y[0])
    near(size.g, want["g"])
    if want["interval"] is not None:
        low, high = effects.paired_effect_interval(size)
        # R's noncentral t (AS 243) is itself accurate to about 1e-9 in probability.
        near(low, want["interval"][0], rel=1e-6)
        near(high, want["interval"][1], rel=1e-6)


@pytest.mark.parametrize("y", [y for y, _ in MODELS][::3])
@pytest.mark.parametrize("tail", [0.025, 0.975])
def test_noncentrality_limit_by_quadrature(y: np.ndarray, tail: float) -> None:
    """P(T <= t) = E Phi(t sqrt(V / df) - ncp), V chi-squared: also where R's pt loses digits."""
    from scipy import integrate, special, stats

    d = y[3] - y[0]
    t, df = d.mean() / (d.std(ddof=1) / math.sqrt(d.size)), d.size - 1
    ncp = effects.noncentrality_limit(t, df, tail)
    value = integrate.quad(
        lambda u: special.ndtr(t * u / math.sqrt(df) - ncp) * stats.chi.pdf(u, df),
        0, stats.chi.isf(1e-16, df), epsabs=1e-13, epsrel=1e-11, limit=500,
    )[0]  # fmt: skip
    assert value == pytest.approx(tail, abs=1e-10)


@pytest.mark.parametrize(("y", "want"), PAIRS)
def test_two_way(y: np.ndarray, want: dict[str, Any]) -> None:
    for term, name in zip(anova.two_way(y), ("model", "condition", "interaction"), strict=True):
        check_term(term, want["two_way"][name])
    model, condition, interaction, _ = anova.two_way_blocked(y)
    check_term(model, want["split_between"]["model"])
    check_term(condition, want["split_within"]["condition"])
    check_term(interaction, want["split_within"]["interaction"])
    for kind in (2, 3):
        for term, name in zip(
            anova.typed_two_way(y, kind), ("model", "condition", "interaction"), strict=True
        ):
            near(term.sum_sq, want[f"type{kind}"][name]["sum_sq"])
            near(term.statistic, want[f"type{kind}"][name]["f"])
            near_p(term.p_value, want[f"type{kind}"][name]["p"])


# Where the blocks' variance is estimated as 0, lmer fits another model (and says so).
MIXED = [(y, w) for y, w in PAIRS if anova.two_way_blocked(y)[3].statistic > 1.001]


@pytest.mark.parametrize(("y", "want"), MIXED)
def test_blocked_design_is_the_mixed_model(y: np.ndarray, want: dict[str, Any]) -> None:
    """lmer's F equals the split plot's where its block variance is not cut off at 0."""
    _, condition, interaction, _ = anova.two_way_blocked(y)
    near(condition.statistic, want["lmer"]["condition"], rel=ITERATIVE)
    near(interaction.statistic, want["lmer"]["interaction"], rel=ITERATIVE)
    near(interaction.df_error, want["lmer"]["df"], rel=ITERATIVE)


@pytest.mark.parametrize(("y", "want"), PAIRS)
def test_difference_between_models(y: np.ndarray, want: dict[str, Any]) -> None:
    small, large = y[0, 3] - y[0, 0], y[1, 3] - y[1, 0]
    test = effects.welch(small, large)
    reference = want["welch"]
    for got, name in (
        (test.estimate, "estimate"),
        (test.statistic, "t"),
        (test.df, "df"),
        (test.low, "low"),
        (test.high, "high"),
    ):
        near(got, reference[name])
    near_p(test.p_value, reference["p"])
    other = effects.welch(small, large, side="smaller")
    assert test.p_value + other.p_value == pytest.approx(1)
    both = effects.welch(small, large, side="different", alpha=0.05)
    assert (both.low, both.high) == pytest.approx((test.low, test.high))
    assert both.p_value == pytest.approx(2 * min(test.p_value, other.p_value))
    if want["permutation"] is not None:
        near(permutation(small, large).p_value, want["permutation"])


@pytest.mark.parametrize(
    ("y", "want", "more"), [(*pair, m) for pair, m in zip(PAIRS, FURTHER["grids"], strict=True)]
)
def test_secondary_regressions(y: np.ndarray, want: dict[str, Any], more: dict[str, Any]) -> None:
    cells = cells_of(y[:, 3] / 100, y[:, 0] / 100, 100)
    rows = {
        r["method"]: r
        for r in h3a_sensitivity.from_cells(cells, H3a(small="s", large="l"))
        if r["benchmark"] == "b" and r["scale"] == "pp"
    }
    pooled = rows["pooled t of per-seed differences"]
    near(pooled["statistic"], want["pooled"]["t"])
    assert pooled["df"] == want["pooled"]["df"]
    near_p(pooled["p_value"], want["pooled"]["p"])
    ols = rows["pooled OLS score ~ model * condition"]
    near(ols["statistic"], want["ols"]["t"])
    robust = rows["OLS with HC3"]
    near(robust["difference"] / robust["statistic"], want["hc3"])
    near_p(ols["p_value"], more["ols_p"])
    near_p(robust["p_value"], more["hc3_p"])
    if more["studentised"] is not None:
        near(rows["permutation, studentised"]["p_value"], more["studentised"])


@pytest.mark.parametrize("want", REFERENCE["meta"])
def test_meta_regression(want: dict[str, Any]) -> None:
    x = np.column_stack([np.ones(len(want["x"])), want["x"]])
    fit = ladder.meta_regression(want["y"], want["v"], x)
    assert fit.coefficients == pytest.approx(want["beta"], rel=ITERATIVE)
    assert fit.standard_errors == pytest.approx(want["se"], rel=ITERATIVE)
    assert fit.tau2 == pytest.approx(want["tau2"], rel=ITERATIVE, abs=1e-6)
    near(fit.q, want["q"])
    near_p(fit.q_p_value, want["q_p"])
    test = effects.t_test(
        float(fit.coefficients[1]), float(fit.standard_errors[1]), fit.df,
        side="different", alpha=0.05,
    )  # fmt: skip
    assert (test.p_value, test.low, test.high) == pytest.approx(
        (want["p"], want["low"], want["high"]), rel=ITERATIVE
    )


@pytest.mark.parametrize("want", REFERENCE["power"])
def test_power(want: dict[str, float]) -> None:
    n, sd = int(want["n"]), want["sd"]
    se, df = power.welch_error(sd, n, sd, n)
    assert df == pytest.approx(2 * n - 2)
    near(power.power(want["delta"], se, df, alpha=0.05), want["power"])
    near(power.power(want["delta"], se, df, alpha=0.05, two_sided=True), want["two_sided"])
    near(power.minimal_effect(se, df, alpha=0.05), want["mde"])


@pytest.mark.parametrize("want", REFERENCE["isotonic"])
def test_isotonic(want: dict[str, Any]) -> None:
    assert efficiency.isotonic(want["y"]) == pytest.approx(want["fit"], rel=EXACT)


def test_holm_and_hedges_correction() -> None:
    for want in REFERENCE["holm"]:
        assert effects.holm(want["p"]) == pytest.approx(want["adjusted"], rel=1e-12)
    assert effects.holm([0.01, math.nan, 0.02])[1] != effects.holm([0.01, math.nan, 0.02])[1]
    for want in REFERENCE["correction"]:
        near(float(effects.hedges_correction(want["df"])), want["j"])


# What R's own functions do not have is written again in R (fixtures/further.R).
MORE = list(zip(GRIDS, FURTHER["grids"], strict=True))


@pytest.mark.parametrize(("y", "want"), MORE)
def test_partial_eta_squared_and_smallest_f(y: np.ndarray, want: dict[str, Any]) -> None:
    m, k, n = y.shape
    for one, reference in zip(y, want["models"], strict=True):
        near(anova.one_way(one)[0].partial_eta2, reference["partial_one_way"]["condition"])
        for term in anova.blocked(one):
            near(term.partial_eta2, reference["partial_blocked"][term.name])
        # R's noncentral F stops its sum at 1e-12 in probability.
        near(anova.minimal_f(k - 1, k * (n - 1)), reference["f_one_way"])
        near(anova.minimal_f(k - 1, (k - 1) * (n - 1)), reference["f_blocked"])
    for term, name in zip(anova.two_way(y), ("model", "condition", "model:condition"), strict=True):
        near(term.partial_eta2, want["partial_two_way"][name])
    near(anova.minimal_f((m - 1) * (k - 1), m * (k - 1) * (n - 1)), want["f_interaction"])


@pytest.mark.parametrize(("y", "want"), MORE)
def test_mean_of_two_models(y: np.ndarray, want: dict[str, Any]) -> None:
    """h3b's row `all`: R's Welch test of one model against minus the other, halved."""
    test = contrasts.stratified([m[3] - m[0] for m in y], side="larger", alpha=0.025)
    reference = want["stratified"]
    near_p(test.p_value, reference["p"])
    for got, name in (
        (test.estimate, "estimate"), (test.statistic, "t"), (test.df, "df"), (test.low, "low"),
        (test.high, "high"),
    ):  # fmt: skip
        near(got, reference[name])


@pytest.mark.parametrize(("y", "want"), MORE)
def test_interval_of_one_g_and_test_of_two(y: np.ndarray, want: dict[str, Any]) -> None:
    sizes = [effects.hedges_g(m[3], m[0]) for m in y]
    for size, limits in zip(sizes, want["score_interval"], strict=True):
        got = effects.score_interval(size)
        if limits is None:
            assert all(map(math.isnan, got)) and size.n < effects.MIN_SEEDS_G
            continue
        if size.n < effects.MIN_SEEDS_G_INTERVAL:
            assert all(map(math.isnan, got))
            continue
        assert got == pytest.approx(limits, rel=EXACT, abs=1e-10)
        for limit in got:
            t, df = effects.score_statistic(size, limit)
            assert special.stdtr(df, -abs(t)) == pytest.approx(0.025, abs=1e-9)
    # R's bound is at 0.05: ours is at half the level of the test.
    test, reference = effects.difference_of_g(*sizes, alpha=0.1), want["difference_of_g"]
    if reference is None:
        assert math.isnan(test.p_value)
        return
    near_p(test.p_value, reference["p"])
    for got, name in (
        (test.statistic, "t"), (test.df, "df"), (test.bound, "bound"),
    ):  # fmt: skip
        near(got, reference[name])
    test = effects.difference_of_g(*sizes)
    near(test.low, reference["low"])
    near(test.high, reference["high"])


@pytest.mark.parametrize("want", FURTHER["items"])
def test_clusters_by_block_and_item(want: dict[str, Any]) -> None:
    """sandwich::vcovCL by block, by item and by both, of the item-level model."""
    verdicts = np.array(want["verdicts"], dtype=float)  # [model, condition, item, seed]
    size = verdicts.shape[2]
    items = crossed.Items(
        np.concatenate([verdicts[m, c] for m in (0, 1) for c in (1, 0)], axis=1),
        np.zeros(size, dtype=np.int64),
        None,
        None,
    )
    scores = verdicts.mean(axis=2)
    # R's model clusters by block within a model: the models' seeds are not pairs there.
    cells = replace(cells_of(scores[:, 1], scores[:, 0], size), is_paired=False)
    row = h3a_sensitivity._cluster_row(items, cells, H3a(small="s", large="l"), "b")
    near(row["difference"], want["estimate"])
    near(row["statistic"], want["t"])
    near(row["df"], want["df"])
    near_p(row["p_value"], want["p"])
    near(row["low"], want["low"])
    near(row["high"], want["high"])


@pytest.mark.parametrize("want", FURTHER["curves"])
def test_ratio_of_costs_and_its_jackknife(want: dict[str, Any]) -> None:
    """Crossings by R's root of the interpolated curve, one seed left out at a time."""
    curves = efficiency.Curves(*(np.array(want[c]) for c in ("steps", "treatment", "control")))
    costs = [lambda step: 1.3 * step + 40] * len(curves.treatment)
    row = efficiency.compare(curves, costs, costs)
    mde = efficiency.compare(curves, costs, costs, alpha=0.05)["mde_80"]
    near(row["restricted_mean_treatment"], want["restricted"][0])
    near(row["restricted_mean_control"], want["restricted"][1])
    near(row["ratio"], want["ratio"])
    near(efficiency.ratio(curves, costs, costs), want["ratio"])
    near(row["low"], want["low"])
    near(row["high"], want["high"])
    near(row["statistic"], want["t"])
    near_p(row["p_value"], want["p"])
    near(mde, want["mde"])


def test_first_crossing_by_hand() -> None:
    steps = [0, 10, 20, 30, 40]
    for curve, target, want in (
        ([0, 0.2, 0.2, 0.6, 0.6], 0.4, 25.0),  # from the end of the flat part
        ([0, 0.2, 0.2, 0.6, 0.6], 0.2, 10.0),
        ([0.5, 0.5, 0.6, 0.7, 0.8], 0.5, 0.0),
        ([0, 0.2, 0.2, 0.6, 0.6], 0.6, 30.0),
        ([0, 0.1, 0.3, 0.2, 0.3], 0.2, 15.0),  # the first of two
    ):
        assert efficiency.first_crossing(steps, curve, target) == pytest.approx(want, rel=1e-12)
    assert math.isnan(efficiency.first_crossing(steps, [0, 0.1, 0.2, 0.2, 0.3], 0.31))
