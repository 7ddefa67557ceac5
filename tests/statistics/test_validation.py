"""The simulation study repeats the real functions, and they keep their level and coverage."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from tests.statistics.grids import read
from zpdbench.errors import UserError
from zpdbench.hypotheses import Ladder
from zpdbench.statistics import (
    anova,
    contrasts,
    crossed,
    effects,
    efficiency,
    h3a_sensitivity,
    ladder,
    validation,
)
from zpdbench.statistics.resampling import permutation
from zpdbench.statistics.verdicts import VERDICTS

SCENARIO = validation.Scenario("any", sd_large=2, sd_treatment=1.5, effect_small=1, effect_large=2)


@pytest.fixture(params=[3, 5, 8])
def study(request: pytest.FixtureRequest) -> validation.Study:
    return validation.simulate(SCENARIO, request.param, 25, np.random.default_rng(3))


def test_vectorised_tests_are_the_real_ones(study: validation.Study) -> None:
    small = validation.g_of(study.small_treatment, study.small_control)
    large = validation.g_of(study.large_treatment, study.large_control)
    welch, g = validation.welch_p(study.small, study.large), validation.g_p(small, large)
    paired = validation.paired_p(study.small, 0.0)
    covers = validation.g_covers(large, 2.0)
    for i in range(25):
        test = effects.welch(study.small[i], study.large[i])
        assert welch[i] == pytest.approx(test.p_value, rel=1e-10)
        assert 1 - paired[i] == pytest.approx(effects.paired(study.small[i]).p_value, rel=1e-9)
        sizes = [
            effects.hedges_g(study.small_treatment[i], study.small_control[i]),
            effects.hedges_g(study.large_treatment[i], study.large_control[i]),
        ]
        low, high = effects.paired_effect_interval(sizes[1])
        assert covers[i] == (low <= 2.0 <= high)
        if small.n >= effects.MIN_SEEDS_G:
            limits = effects.score_interval(sizes[1])
            assert np.isnan(limits).all() == (small.n < effects.MIN_SEEDS_G_INTERVAL)
            for limit, expected in zip(limits, (0.975, 0.025), strict=True):
                if np.isnan(limit):
                    continue
                assert validation.g_score_p(large, limit)[i] == pytest.approx(expected, rel=1e-8)
            two = effects.difference_of_g(*sizes)
            assert g[i] == pytest.approx(two.p_value, rel=1e-9)
            assert validation.g_p(small, large, two.low)[i] == pytest.approx(0.025, rel=1e-6)
            assert validation.g_p(small, large, two.high)[i] == pytest.approx(0.975, rel=1e-6)


def test_vectorised_permutation_and_anova_are_the_real_ones() -> None:
    rng = np.random.default_rng(5)
    study = validation.simulate(SCENARIO, 4, 10, rng)
    p = validation.permutation_p(study.small, study.large)
    y = rng.normal(size=(10, 2, 4, 5))
    f = validation.interaction_p(y)
    for i in range(10):
        assert p[i] == pytest.approx(permutation(study.small[i], study.large[i]).p_value)
        assert f[i] == pytest.approx(anova.two_way_blocked(y[i])[2].p_value, rel=1e-10)


def test_vectorised_clusters_are_the_real_ones() -> None:
    from zpdbench.hypotheses import H3a
    from zpdbench.statistics.h3a import Cells

    cells = validation.simulate_items(4, 6, 0.5, np.random.default_rng(1))
    p = validation.clustered_p(cells)
    for i in range(6):
        one = {k: v[i].astype(float) for k, v in cells.items()}
        order = [(r, k) for r in ("small", "large") for k in ("treatment", "control")]
        items = crossed.Items(
            np.concatenate([one[c] for c in order], axis=1),
            np.zeros(validation.ITEMS, dtype=np.int64),
            None,
            None,
        )
        runs = Cells(
            ["b"],
            {r: list("0123") for r in ("small", "large")},
            {
                r: {k: one[r, k].mean(axis=0)[:, None] for k in ("treatment", "control")}
                for r in ("small", "large")
            },
            np.array([validation.ITEMS]),
            1,
        )
        row = h3a_sensitivity._cluster_row(items, runs, H3a(small="s", large="l"), "b")
        assert row["p_value"] == pytest.approx(p[i], rel=1e-9)


def test_the_vectorised_rule_is_the_real_one() -> None:
    """300 random studies: every word occurs, and all are those of `h3a.ruling`."""
    from zpdbench.hypotheses import H3a
    from zpdbench.statistics import h3a

    rng = np.random.default_rng(7)
    seen = set()
    for i in range(300):
        n, margin, margin_gain = int(rng.integers(2, 10)), float(i % 3), float(i % 2)
        gains = 3 * rng.normal(size=(2, 1, 1)) + rng.uniform(0.3, 3) * rng.normal(size=(2, 1, n))
        (word,) = validation.rule(*gains, margin=margin, margin_gain=margin_gain)
        cells = h3a.Cells(
            ["b"],
            {r: [str(k) for k in range(n)] for r in ("small", "large")},
            {
                r: {"treatment": 0.5 + g[0][:, None] / 100, "control": np.full((n, 1), 0.5)}
                for r, g in zip(("small", "large"), gains, strict=True)
            },
            np.array([100]),
            1,
        )
        h = H3a(small="s", large="l", margin=margin, margin_gain=margin_gain)
        assert h3a.ruling(cells, h)[2].verdict == word
        seen.add(word)
    assert seen | {"smaller harm"} == set(VERDICTS)
    harm = np.array([[-17.0, -25, -21, -19, -28]]), np.array([[-2.0, -9, -2, -9, -3]])
    assert list(validation.rule(*harm)) == ["smaller harm"]


def test_power_of_the_rule_is_its_share_of_simulated_studies() -> None:
    """With margins, either side, unequal spread and correlation; and of models without pairs."""
    from zpdbench.hypotheses import H3a
    from zpdbench.statistics import power

    rng = np.random.default_rng(3)
    z = rng.standard_normal((2, 20_000, 6))
    for correlation, sds, means in ((-0.4, (2.0, 3.0), (1.0, 6.0)), (0.7, (4.0, 2.0), (0.0, 3.5))):
        small = means[0] + sds[0] * z[0]
        large = means[1] + sds[1] * (correlation * z[0] + (1 - correlation**2) ** 0.5 * z[1])
        for side in ("larger", "smaller"):
            h = H3a(small="s", large="l", side=side, margin=0.5, margin_gain=0.25)  # type: ignore[arg-type]
            said = validation.rule(small, large, margin=0.5, margin_gain=0.25)
            found = (said == "supported").mean()
            values = (*means, *sds) if side == "larger" else (*means[::-1], *sds[::-1])
            printed = power.of_rule(*values, n=(6, 6), correlation=correlation, h=h)
            assert printed == pytest.approx(found, abs=0.011), (correlation, side)
    h = H3a(small="s", large="l")
    small, large = 1 + 2 * z[0], 6 + 3 * z[1]
    both = (validation.welch_p(small, large) < 0.025) & (validation.paired_p(large, 0) > 0.975)
    printed = power.of_rule(1, 6, 2, 3, n=(6, 6), correlation=None, h=h)
    assert printed == pytest.approx(both.mean(), abs=0.011)


def missed(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [r for r in rows if r["verdict"] == "missed"]


def test_small_study_keeps_its_bars(tmp_path: Path) -> None:
    validation.main(argparse.Namespace(out=tmp_path / "a.tsv", replicates=600))
    rows = read(tmp_path / "a.tsv")
    # Every interval that a table shows, at the numbers of seeds at which it does.
    assert not missed(rows)
    barred = {r["method"] for r in rows if r["verdict"] == "kept" and r["quantity"] == "coverage"}
    assert {m.split(",")[0] for m in barred} == {
        "gain of one model", "difference of the gains", "difference", "Hedges' g",
        "difference of two g", "H3b", "ladder's slope", "ratio of costs",
    }  # fmt: skip
    at_mde = {r["method"] for r in rows if r["quantity"] == "power at the MDE"}
    assert {m.split(",")[0] for m in at_mde} == {
        "Welch t of per-seed differences", "paired t", "paired t of the models' effects", "H3b",
        "ladder's slope", "one-way ANOVA", "two-way ANOVA",
    }  # fmt: skip
    # The other one's spread being double, Tukey's limits cover too little: none is shown.
    tukey = [r for r in rows if r["method"] == "Tukey HSD, seeds as blocks"]
    assert {r["verdict"] for r in tukey} == {"shown"}
    assert {r["scenario"] for r in tukey} == {s.name for s in validation.NULL}
    assert min(float(r["observed"]) for r in tukey) < 0.93
    assert not {m for m in barred if "Algina" in m or "OLS" in m or "bootstrap of seeds" in m}
    items = [
        r for r in rows if r["scenario"] == "strong item variance" and "primary" in r["method"]
    ]
    assert {r["replicates"] for r in items} == {"600"}
    # Why the bootstrap of seeds is not used at five seeds.
    few = [float(r["observed"]) for r in rows
           if "bootstrap" in r["method"] and r["n_seeds"] == "5"]  # fmt: skip
    assert min(few) < 0.9


def test_same_bytes_twice_and_too_few_are_refused(tmp_path: Path) -> None:
    first, second = (list(validation.run(validation.LEAST, seeds=(5,))) for _ in range(2))
    assert repr(first) == repr(second)
    for few in (0, -5, 99):
        with pytest.raises(UserError, match="give 100 or more"):
            validation.main(argparse.Namespace(out=tmp_path / "c.tsv", replicates=few))


def test_vectorised_tukey_and_stratified_are_the_real_ones() -> None:
    rng = np.random.default_rng(8)
    y = rng.normal(size=(20, 4, 5)) + np.array([0.0, 0.8, 0.8, 1.6])[:, None]
    for is_blocked in (True, False):
        covers = validation.tukey_covers(y, is_blocked=is_blocked)
        assert 0 < covers.sum() < 20
        for one, covered in zip(y, covers, strict=True):
            pairs = anova.tukey(one, is_blocked=is_blocked)
            assert covered == all(p.low <= 0 <= p.high for p in pairs)
    p = validation.stratified_p(y[:, 0], 2 * y[:, 1], 0.3)
    for i in range(20):
        shifted = [y[i, 0] - 0.3, 2 * y[i, 1] - 0.3]
        real = contrasts.stratified(shifted, side="larger", alpha=0.025)
        assert 1 - p[i] == pytest.approx(real.p_value, rel=1e-9)


def test_vectorised_analyses_of_variance_are_the_real_ones() -> None:
    y = np.random.default_rng(4).normal(size=(10, 4, 5))
    for is_blocked in (True, False):
        p = validation.one_way_p(y, is_blocked=is_blocked)
        for one, found in zip(y, p, strict=True):
            real = (anova.blocked if is_blocked else anova.one_way)(one)[0].p_value
            assert found == pytest.approx(real, rel=1e-10)


@pytest.mark.parametrize("seeds", [3, 12, 20])
@pytest.mark.parametrize("models", [3, 5])
def test_vectorised_ladder_is_the_real_one(seeds: int, models: int) -> None:
    rng = np.random.default_rng(9)
    names = [f"m{i}" for i in range(models)]
    sizes = np.linspace(8.7, 10.9, models)
    h = Ladder(parameters={m: float(10**x) for m, x in zip(names, sizes, strict=True)})
    gains = rng.normal(size=(8, models, seeds)) + 0.5 * rng.normal(size=(8, models, 1))
    p = validation.ladder_p(gains, sizes)
    for one, found in zip(gains, p, strict=True):
        gains_of = dict(zip(names, one, strict=True))
        row = ladder._slope(gains_of, gains_of, h, None)
        assert row["p_difference"] == pytest.approx(found, rel=1e-6)
        assert ("pooled" in row["note"]) == (seeds < ladder.MIN_SEEDS_OWN_SPREAD)


def test_vectorised_item_bootstrap_is_near_the_clusters() -> None:
    """Linear scores: the bootstrap's variances are the clusters', but for its own noise."""
    cells = validation.simulate_items(5, 40, 0.5, np.random.default_rng(1))
    clusters = validation.clustered_p(cells)
    assert validation.item_bootstrap_p(cells, 2000) == pytest.approx(clusters, abs=0.03)


def test_ratio_alone_is_the_ratio_of_the_comparison() -> None:
    curves = validation.simulate_curves(6, 1.5, np.random.default_rng(2))
    costs = [float] * 6
    want = efficiency.compare(curves, costs, costs)["ratio"]
    assert efficiency.ratio(curves, costs, costs) == pytest.approx(want, rel=1e-12)


def test_vectorised_bootstrap_is_the_real_one() -> None:
    from zpdbench.hypotheses import H3a
    from zpdbench.statistics.h3a import Cells

    study = validation.simulate(SCENARIO, 50, 4, np.random.default_rng(2))
    for i in range(4):
        cells = Cells(
            ["b"],
            {r: [str(s) for s in range(50)] for r in ("small", "large")},
            {
                r: {
                    k: getattr(study, f"{r}_{k}")[i][:, None] / 100
                    for k in ("treatment", "control")
                }
                for r in ("small", "large")
            },
            np.array([50]),
            1,
        )
        row = h3a_sensitivity._g_row(cells, H3a(small="s", large="l"), "b")
        one = validation.Study(*(getattr(study, f)[i : i + 1] for f in study.__dataclass_fields__))
        width = row["high"] - row["low"]
        # Other resamples: far inside and far outside the limits they agree.
        assert validation.bootstrap_covers(one, row["low"] + 0.2 * width)[0]
        assert validation.bootstrap_covers(one, row["high"] - 0.2 * width)[0]
        assert not validation.bootstrap_covers(one, row["low"] - 0.2 * width)[0]
        assert not validation.bootstrap_covers(one, row["high"] + 0.2 * width)[0]


@pytest.mark.full
def test_full_study_keeps_its_bars(tmp_path: Path) -> None:
    """20,000 replicates: size of the rule 2 to 3 %, coverage, power within a point."""
    validation.main(argparse.Namespace(out=tmp_path / "v.tsv", replicates=20_000))
    rows = read(tmp_path / "v.tsv")
    primary = [r for r in rows if "primary" in r["method"] and r["quantity"] == "type I error"]
    # 9 scenarios and 3 with an effect differ by model; items besides.
    assert len(primary) >= 4 * 10
    sizes = [float(r["observed"]) for r in rows if r["quantity"] == "size of the rule"]
    assert len(sizes) == 5 * 2 * 4 and min(sizes) >= 0.02 and max(sizes) <= 0.03
    harm = [float(r["observed"]) for r in rows if r["quantity"] == "supported under harm"]
    assert len(harm) == 5 * 2 * 4 and max(harm) <= 0.001
    assert {r["replicates"] for r in primary} == {"20000"}
    assert not missed(rows)
