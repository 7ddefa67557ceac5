"""scores.tsv, curves.tsv and every table made from them."""

from __future__ import annotations

import argparse
import itertools
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from tests.statistics.grids import consistent, grid, read
from zpdbench import cli
from zpdbench.benchmarks import definition
from zpdbench.errors import UserError
from zpdbench.statistics import (
    ablations,
    aggregate_scores,
    calibration,
    crossed,
    effects,
    efficiency,
    expected,
    h3a,
    h3a_sensitivity,
    h3b,
    ladder,
    metrics,
    power_table,
    r1,
    rq1,
    settings,
)

CONFIG = """\
seeds: [0, 1, 2, 3, 4]
models: {tiny: {parameters: 1000000}, big: {parameters: 10000000}}
conditions: {random: {}, easy: {}, zpd: {}, zpd_fixed: {}}
benchmarks: {mmlu: {}, humaneval: {}, gsm8k: {}, kobest: {}}
hypotheses:
  h3a:
    small: tiny
    large: big
    claimed:
      gsm8k: {small_pp: 3, large_pp: 8, small_score: 68, large_score: 72}
      kobest: {small_pp: 2, large_pp: 5}
      mmlu: {small_pp: 2, large_pp: 4}
      humaneval: {small_pp: 2, large_pp: 5}
      d: {small: 1.5, large: 2.2}
      steps_saved: {small: [20, 25], large: [30, 40]}
"""
SIZES = {"mmlu": 40, "humaneval": 30, "gsm8k": 40, "kobest": 30}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study, its runs' Parquets, scores.tsv and curves.tsv."""
    folder = tmp_path_factory.mktemp("study")
    table = grid(sizes=SIZES, steps=(10, 20, 30), conditions=("random", "easy", "zpd", "zpd_fixed"))
    paths = write_runs(folder, table)
    (folder / "study.yaml").write_text(CONFIG, "utf-8")
    aggregate(folder, paths)
    return folder


def write_runs(folder: Path, table: pl.DataFrame) -> list[str]:
    paths = []
    for key, part in table.group_by("model", "condition", "seed"):
        path = folder / "scores" / "-".join(map(str, key))
        path.parent.mkdir(exist_ok=True)
        part.write_parquet(path.with_suffix(".parquet"))
        paths.append(str(path.with_suffix(".parquet")))
    return sorted(paths)


def aggregate(folder: Path, paths: list[str]) -> None:
    aggregate_scores.main(
        argparse.Namespace(
            scores=paths,
            study=str(folder / "study.yaml"),
            out_scores=folder / "scores.tsv",
            out_curves=folder / "curves.tsv",
        )
    )


def run(module: object, folder: Path, **more: object) -> list[dict[str, str]]:
    out = folder / "out.tsv"
    module.main(  # type: ignore[attr-defined]
        argparse.Namespace(
            **{
                "study": str(folder / "study.yaml"),
                "scores": str(folder / "scores.tsv"),
                "out": out,
                "interim": False,
                **more,
            }
        )
    )
    rows = read(out)
    assert not any(v in ("inf", "-inf", "nan") for r in rows for v in r.values())
    assert all(len(r["preregistration"]) == 16 for r in rows)
    if module is not expected:
        for r in rows:
            consistent(r)
    return rows


def test_every_row_names_its_benchmark_s_form(study: Path) -> None:
    path = study / "study.yaml"
    said = path.read_text("utf-8")
    path.write_text(
        said.replace("mmlu: {}", "mmlu: {apply_chat_template: false}").replace(
            "kobest: {}", "kobest: {fewshot_as_multiturn: false}"
        )
        + "generations: {apply_chat_template: true}\n",
        "utf-8",
    )
    forms = {"mmlu": "plain", "humaneval": "chat", "gsm8k": "chat", "kobest": "chat-one-turn"}
    try:
        rows = run(h3b, study) + run(rq1, study)
    finally:
        path.write_text(said, "utf-8")
    assert {r["benchmark"] for r in rows} & set(forms)
    for row in rows:
        if row["benchmark"] in forms:
            assert row["form"] == forms[row["benchmark"]]
        else:  # a mean's
            assert len(row["form"].split("+")) > 1 and set(row["form"].split("+")) <= {
                *forms.values()
            }


def test_scores_have_both_item_sets_where_a_curve_needs_them(study: Path) -> None:
    rows = read(study / "scores.tsv")
    cell = [
        r for r in rows
        if (r["model"], r["condition"], r["seed"]) == ("big", "zpd", "2")
        and (r["benchmark"], r["task"]) == ("gsm8k", "all")
    ]  # fmt: skip
    assert [(r["step"], r["items"], r["n_items"]) for r in cell] == [
        ("10", "subset", "10"), ("20", "subset", "10"), ("30", "full", "40"), ("30", "subset", "10")
    ]  # fmt: skip
    base = [r for r in rows if r["condition"] == "base" and r["benchmark"] == "gsm8k"]
    assert {(r["items"], r["n_items"]) for r in base} == {("full", "40"), ("subset", "10")}
    kobest = {r["metric"] for r in rows if r["benchmark"] == "kobest"}
    assert kobest == {"macro_f1", "acc"}


def test_curves_are_means_over_seeds(study: Path) -> None:
    scores = [
        float(r["value"])
        for r in read(study / "scores.tsv")
        if (r["model"], r["condition"], r["step"]) == ("big", "zpd", "30")
        and (r["benchmark"], r["task"], r["items"]) == ("gsm8k", "all", "full")
    ]
    row = next(
        r for r in read(study / "curves.tsv")
        if (r["model"], r["condition"], r["step"]) == ("big", "zpd", "30")
        and (r["benchmark"], r["items"]) == ("gsm8k", "full")
    )  # fmt: skip
    assert float(row["mean"]) == pytest.approx(np.mean(scores))
    assert float(row["sd"]) == pytest.approx(np.std(scores, ddof=1))
    assert float(row["low"]) < float(row["mean"]) < float(row["high"])
    assert (row["n_seeds"], row["interim"]) == ("5", "false")


def test_one_table_or_many_files_are_the_same(study: Path, tmp_path: Path) -> None:
    paths = sorted(map(str, (study / "scores").glob("*.parquet")))
    pl.concat([pl.read_parquet(p) for p in paths]).write_csv(tmp_path / "all.tsv", separator="\t")
    (tmp_path / "study.yaml").write_text(CONFIG, "utf-8")
    aggregate(tmp_path, [str(tmp_path / "all.tsv")])
    for name in ("scores.tsv", "curves.tsv"):
        assert (tmp_path / name).read_bytes() == (study / name).read_bytes()


def test_a_run_given_twice_is_named(study: Path, tmp_path: Path) -> None:
    path = str(next((study / "scores").glob("big-zpd-2*")))
    with pytest.raises(UserError, match="big/zpd/2 is also in"):
        aggregate_scores.scores_of_files([path, path])


def test_runs_asked_other_items_are_refused(tmp_path: Path) -> None:
    a = grid(sizes={"gsm8k": 40}, models=("tiny",), gain=(0,))
    b = grid(sizes={"gsm8k": 41}, models=("big",), gain=(0,))
    with pytest.raises(UserError, match="40 to 41 items"):
        aggregate_scores.scores_of_files(write_runs(tmp_path, pl.concat([a, b])))


def test_statuses_and_flexible_extraction_are_counted(tmp_path: Path) -> None:
    table = grid(sizes={"gsm8k": 40}, models=("tiny",), gain=(0,)).with_columns(
        correct_flexible=pl.lit(1.0),
        status=pl.when(pl.col("item_id") == "3").then(pl.lit("timeout")).otherwise(pl.lit("ok")),
    )
    scores = aggregate_scores.scores_of_files(write_runs(tmp_path, table))
    by_metric = {m: scores.filter(metric=m)["value"].unique().to_list() for m in scores["metric"]}
    assert by_metric["count_timeout"] == [1.0] and by_metric["exact_match_flexible"] == [1.0]


def test_rq1(study: Path) -> None:
    rows = run(rq1, study)
    primary = [
        r for r in rows
        if (r["model"], r["benchmark"], r["test"]) == ("all", "mean", "two-way ANOVA")
        and r["design"] != "unblocked"
    ]  # fmt: skip
    # Two models, three conditions (the ablation is none of RQ1's), five seeds.
    assert [(r["term"], r["df1"], r["df2"]) for r in primary] == [
        ("model", "1", "8"), ("condition", "2", "16"), ("model x condition", "2", "16"),
        ("seed within model", "8", "16"),
    ]  # fmt: skip
    assert {r["verdict"] for r in rows} == {"NA"}
    means = [r for r in rows if r["benchmark"] == "mean"]
    # What judges is the p without sphericity, Holm over the models.
    judged = [
        r for r in means
        if (r["test"], r["design"], r["term"]) == ("one-way ANOVA", "seeds as blocks", "condition")
    ]  # fmt: skip
    assert [r["model"] for r in judged] == ["tiny", "big"]
    own = [float(r["p_corrected"]) for r in judged]
    assert own != [float(r["p_value"]) for r in judged]
    assert [float(r["p_holm"]) for r in judged] == pytest.approx(effects.holm(own))
    tukey = [r for r in means if r["test"] == "Tukey HSD"]
    assert len(tukey) == 2 * 2 * 3
    # Its limits leave 95 % in either design (validation.tsv): none is shown, p and estimate are.
    for r in tukey:
        assert r["low"] == r["high"] == "NA" != r["p_value"] and "no interval" in r["note"]
        assert float(r["estimate"]) != 0
    pairs = [r for r in means if r["test"] == rq1.PAIRED]
    assert len(pairs) == 2 * 3
    for r in pairs:
        assert float(r["low"]) < float(r["estimate"]) < float(r["high"])
        p = float(r["p_value"])
        assert p <= float(r["p_holm"]) <= min(1, 3 * p) + 1e-12
        same = [t for t in tukey if (t["model"], t["term"]) == (r["model"], r["term"])]
        assert len(same) == 2
        for t in same:
            assert float(t["estimate"]) == pytest.approx(float(r["estimate"]), rel=1e-10)


def test_h3b_and_r1(study: Path) -> None:
    rows = run(h3b, study)
    assert [(r["model"], r["scale"]) for r in rows] == [
        (m, s) for s in ("pp", "logit") for m in ("tiny", "big", "all")
    ]
    # Behind H3a, which is not supported here: no verdict, and why; its numbers stand all the same.
    primary = next(r for r in rows if r["note"].startswith("primary"))
    assert (primary["model"], primary["scale"], primary["verdict"]) == ("all", "pp", "NA")
    assert "tested only if h3a are supported, and h3a is" in primary["note"]
    assert float(primary["estimate"]) == pytest.approx(
        float(primary["reasoning"]) - float(primary["generation"])
    )
    assert float(primary["p_value"]) == max(
        float(primary[f"p_{c}"]) for c in ("difference", "gain")
    )
    assert primary["test"] == "paired t over seeds of the models' mean" and primary["df"] == "4"
    assert {r["verdict"] for r in rows} == {"NA"}
    rows = run(r1, study)
    assert rows[2]["test"].startswith("paired t") and {r["verdict"] for r in rows} == {"NA"}
    assert rows[2]["model"] == "big - tiny" and "primary" in rows[2]["note"]
    assert rows[2]["p_holm"] == "NA"
    for r in rows[:2]:
        assert float(r["p_holm"]) >= float(r["p_value"])
    difference = float(rows[1]["estimate"]) - float(rows[0]["estimate"])
    assert float(rows[2]["estimate"]) == pytest.approx(difference)


def test_h3b_has_a_verdict_once_h3a_is_supported(tmp_path: Path) -> None:
    """The gate: closed where H3a is not supported, whatever H3b's own numbers are."""
    (tmp_path / "study.yaml").write_text(CONFIG, "utf-8")
    for gain, opened in (((0.0, 0.5), True), ((0.4, 0.0), False)):
        table = grid(sizes={"mmlu": 300, "humaneval": 300, "gsm8k": 300, "kobest": 300},
                     conditions=("random", "easy", "zpd", "zpd_fixed"), gain=gain)  # fmt: skip
        # zpd gains where it reasons, and nothing where it writes programs.
        code = table.filter(pl.col("benchmark") == "humaneval").with_columns(
            correct=pl.col("item_id").cast(pl.Int64) % 10 < 5 + (pl.col("seed") % 2)
        )
        table = pl.concat([table.filter(pl.col("benchmark") != "humaneval"), code])
        folder = tmp_path / str(opened)
        folder.mkdir()
        (folder / "study.yaml").write_text(CONFIG, "utf-8")
        paths = write_runs(folder, table)
        aggregate(folder, paths)
        verdict = next(r for r in run(h3a, folder, scores=paths) if r["verdict"] != "NA")["verdict"]
        primary = next(r for r in run(h3b, folder) if r["note"].startswith("primary"))
        assert float(primary["p_value"]) < 0.025 and float(primary["low"]) > 0
        assert (verdict == "supported") == opened
        assert primary["verdict"] == ("supported" if opened else "NA")
        assert ("tested only if h3a" in primary["note"]) == (not opened)


def test_ablations_are_compared_with_the_full_condition(study: Path) -> None:
    rows = run(ablations, study)
    assert {r["contrast"] for r in rows} == {"zpd_fixed - zpd"}
    assert len(rows) == 2 * 5 * 2
    # One ablation: Holm is over the four benchmarks; the mean is a family of its own.
    part = [r for r in rows if (r["model"], r["scale"]) == ("tiny", "pp")]
    p = [float(r["p_value"]) for r in part]
    assert float(part[-1]["p_holm"]) == pytest.approx(p[-1])
    assert min(float(r["p_holm"]) for r in part[:-1]) == pytest.approx(min(1, 4 * min(p[:-1])))


def test_efficiency_and_expected(study: Path) -> None:
    rows = run(efficiency, study)
    assert {r["verdict"] for r in rows} == {"NA"}
    area = [r for r in rows if r["unit"] == "area"]
    assert len(area) == 2 * 5
    assert all(float(r["low"]) < float(r["difference"]) < float(r["high"]) for r in area)
    # By hand: the mean over the way of a curve on 0, 10, 20, 30, per seed, of one benchmark.
    scores = [
        r for r in read(study / "scores.tsv")
        if (r["model"], r["benchmark"], r["task"], r["items"]) == ("big", "gsm8k", "all", "subset")
        and r["metric"] == "exact_match_strict"
    ]  # fmt: skip
    at = {(r["condition"], r["seed"], r["step"]): float(r["value"]) for r in scores}
    gains = [
        [at["zpd", str(s), t] - at["random", str(s), t] for t in ("10", "20", "30")]
        for s in range(5)
    ]
    by_hand = [100 * (10 * a + 10 * b + 5 * c) / 30 for a, b, c in gains]
    row = next(r for r in area if (r["model"], r["benchmark"]) == ("big", "gsm8k"))
    assert float(row["difference"]) == pytest.approx(np.mean(by_hand))
    assert float(row["p_value"]) == pytest.approx(
        stats.ttest_1samp(by_hand, 0, alternative="greater").pvalue
    )
    steps = [r for r in rows if r["unit"] == "steps"]
    assert len(steps) == 2 * 5 and all(float(r["ratio"]) > 0 for r in steps)
    # The smallest saving that four studies of five find: a ratio below 1.
    assert all(0 < float(r["mde_80"]) < 1 for r in steps if r["low"] != "NA")
    assert any(r["mde_80"] != "NA" for r in steps)
    assert all("no flops recorded" in r["note"] for r in rows if r["unit"] == "flops")
    (study / "efficiency.tsv").write_bytes((study / "out.tsv").read_bytes())
    rows = run(expected, study, efficiency=study / "efficiency.tsv")
    assert len(rows) == 2 * (4 + 1 + 1 + 1)
    assert {r["verdict"] for r in rows} <= {"not excluded", "lower", "higher", "undetermined"}
    assert all(r["observed"] != "NA" for r in rows)


def test_costs_come_from_the_trace(tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "zpd" / "s0"
    folder.mkdir(parents=True)
    pl.DataFrame(
        {
            "kind": ["update", "step", "step", "update", "step"],
            "step": [0, 1, 2, 2, 3],
            "flops": [50, 10, 10, 40, 10],
        }
    ).write_parquet(folder / "trace.parquet")
    cost = efficiency.read_cost(folder, "flops")
    assert cost is not None
    # Scoring is charged with the block that it chose: an evaluation after step 2 comes before.
    assert [cost(s) for s in (0, 1, 1.5, 2, 3)] == [0, 60, 65, 70, 120]
    assert efficiency.read_cost(folder, "seconds") is None


def test_censored_runs_are_kept() -> None:
    steps = np.array([0.0, 10, 20])
    rising = np.array([[0, 0.5, 1.0]] * 6) + np.linspace(0, 0.01, 6)[:, None]
    flat = np.array([[0, 0.1, 0.2]] * 6) + np.linspace(0, 0.01, 6)[:, None]
    costs = [float] * 6
    row = efficiency.compare(efficiency.Curves(steps, flat, rising), costs, costs)
    assert (row["reached_treatment"], row["restricted_mean_treatment"]) == (0, 20.0)
    assert "6 of" not in row["note"] and "never reach" in row["note"]
    assert np.isnan(row["median_treatment"])
    row = efficiency.compare(efficiency.Curves(steps, rising, flat), costs, costs)
    assert row["ratio"] < 0.3


def test_power_before_and_after_a_pilot(study: Path) -> None:
    rows = run(power_table, study)
    planned = {
        (r["benchmark"], r["basis"].split()[0]): r for r in rows if r["is_planned"] == "true"
    }
    assert set(planned) == {
        *((b, "measured") for b in ("mmlu", "humaneval", "gsm8k", "kobest", "mean")),
        ("mean", "claimed"),
    }
    claimed = planned["mean", "claimed"]
    # One claim: +2.25 and +5.5 points, and d, so runs scatter by 1.5 and 2.5 points.
    assert (claimed["scale"], claimed["claimed_difference"]) == ("pp", "3.25")
    assert float(claimed["sd_large"]) == pytest.approx(2.5 * 2**0.5)
    assert 0.25 < float(claimed["power"]) < 0.29
    assert claimed["seeds_for_80"] == "15"
    measured = planned["mean", "measured"]
    if measured["seeds_for_80"] != "NA":
        assert int(measured["seeds_for_80_low"]) <= int(measured["seeds_for_80"])
    only = run(power_table, study, scores=None)
    assert {r["basis"] for r in only} == {claimed["basis"]}


def test_sensitivity_agrees_with_the_primary(study: Path) -> None:
    paths = sorted(map(str, (study / "scores").glob("*.parquet")))
    rows = run(h3a_sensitivity, study, scores=paths)
    for benchmark in ("mmlu", "gsm8k", "kobest", "mean"):
        part = [r for r in rows if r["benchmark"] == benchmark and r["scale"] == "pp"]
        assert len({round(float(r["difference"]), 8) for r in part}) == 1
    again = run(h3a_sensitivity, study, scores=list(reversed(paths)))
    assert again == rows
    primary = run(h3a, study, scores=paths)
    for r in rows:
        is_secondary = r["benchmark"] != "mean" and r["p_value"] != "NA"
        assert (r["p_holm"] != "NA") == is_secondary
        assert r["verdict"] == "NA"
        same = next(
            p for p in primary if (p["benchmark"], p["scale"]) == (r["benchmark"], r["scale"])
        )
        if r["method"] == h3a_sensitivity.PRIMARY:
            assert r["p_value"] == same["p_difference"]
        if r["method"].startswith("bootstrap of items"):
            assert (r["low"], r["high"]) == (same["new_items_low"], same["new_items_high"])
        # Methods that ignore the blocks have a p and no interval.
        if "OLS" in r["method"]:
            assert r["low"] == r["high"] == "NA" != r["p_value"] and "no interval" in r["note"]


def test_macro_f1_under_unit_weights_is_the_score(study: Path) -> None:
    from zpdbench.statistics import metrics, tables

    paths = sorted(map(str, (study / "scores").glob("*-zpd-*.parquet")))
    table = tables.read_scores(paths, final_step_only=True)
    scores = metrics.benchmark_scores(table).filter(benchmark="kobest")
    runs = [tuple(r) for r in scores.select(metrics.RUN).iter_rows()]
    items = crossed.items_of(table, "kobest", runs)
    got = items.scores(np.ones((1, len(items.strata))))[0]
    assert got == pytest.approx(scores["value"].to_numpy(), rel=1e-12)


def test_pass_at_k_beside_pass_at_1() -> None:
    """By the published estimator, also where items have different numbers of samples."""
    from fractions import Fraction
    from math import comb

    from zpdbench.statistics import metrics

    counts = {"a": (5, 2), "b": (5, 0), "c": (7, 7), "d": (6, 1)}
    rows = [
        ("m", condition, 1, 10, benchmark, "", item, sample, float(sample < c), "passed")
        for condition in ("zpd", "random")
        for benchmark in ("humaneval", "gsm8k")
        for item, (n, c) in counts.items()
        for sample in range(n)
    ]
    names = (*metrics.POINT, "task", "item_id", "sample", "correct", "status")
    table = pl.DataFrame(rows, schema=list(names), orient="row")
    scores = metrics.task_scores(table)
    got = {
        (c, m): v
        for c, m, v in scores.filter(pl.col("metric").str.starts_with("pass@"))
        .select("condition", "metric", "value")
        .iter_rows()
    }
    assert set(got) == {(c, f"pass@{k}") for c in ("zpd", "random") for k in (1, 2, 5)}
    for (_, metric), value in got.items():
        k = int(metric.removeprefix("pass@"))
        exact = sum(1 - Fraction(comb(n - c, k), comb(n, k)) for n, c in counts.values()) / 4
        assert value == pytest.approx(float(exact), rel=1e-12)
    assert set(scores.filter(benchmark="gsm8k")["metric"]) == {"exact_match_strict"}
    single = metrics.task_scores(table.filter(sample=0))
    assert not single["metric"].str.contains("pass@[2-9]").any()


def test_ladder_needs_three_models(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 models"):
        run(ladder, study)
    models = ("s", "m", "l", "xl")
    table = grid(models=models, gain=(0, 0.1, 0.2, 0.3), sizes={"gsm8k": 100})
    (tmp_path / "study.yaml").write_text(
        "hypotheses: {ladder: {parameters: {s: 5.0e+8, m: 1.5e+9, l: 7.0e+9, xl: 3.2e+10}}}\n"
    )
    aggregate(tmp_path, write_runs(tmp_path, table))
    rows = run(ladder, tmp_path)
    part = [r for r in rows if (r["benchmark"], r["scale"]) == ("mean", "pp")]
    slope = part[0]
    # One verdict: of all models, in points, their mean; with nothing before it the gate is open.
    assert [r["verdict"] for r in rows if r["verdict"] != "NA"] == [slope["verdict"]]
    assert slope["left_out"] == "NA" and "gain is that of xl" in slope["note"]
    assert float(slope["p_value"]) == max(float(slope[f"p_{c}"]) for c in ("difference", "gain"))
    assert all(r["p_value"] != "NA" for r in part if r["left_out"] != "NA")
    assert slope["term"].startswith("slope") and float(slope["estimate"]) > 0
    assert {r["left_out"] for r in rows} == {"NA", *models}
    gains = [r for r in rows if (r["benchmark"], r["scale"], r["term"]) == ("mean", "pp", "gain")]
    # The line goes through the models: least squares of points that are nearly on one.
    line = np.polyfit(np.log10([5e8, 1.5e9, 7e9, 3.2e10]), [float(r["estimate"]) for r in gains], 1)
    assert float(slope["intercept"]) == pytest.approx(line[1], rel=0.2)
    three = "hypotheses: {ladder: {parameters: {s: 5.0e+8, m: 1.5e+9, l: 7.0e+9}}}\n"
    (tmp_path / "study.yaml").write_text(three)
    rows = run(ladder, tmp_path)
    assert all("no number of parameters: xl" in r["note"] for r in rows)
    without = [r for r in rows if r["left_out"] != "NA"]
    assert {r["left_out"] for r in without} == {"s", "m", "l"}
    assert all(r["p_value"] == "NA" and "has no error" in r["note"] for r in without)


@pytest.mark.parametrize(
    "module", [rq1, h3b, r1, ablations, power_table, expected, efficiency, h3a, h3a_sensitivity]
)
def test_a_missing_run_is_named_or_marked(study: Path, tmp_path: Path, module: object) -> None:
    text = (study / "scores.tsv").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "scores.tsv").write_text(
        "".join(line for line in text if not line.startswith("big\tzpd\t3\t")), "utf-8"
    )
    (tmp_path / "study.yaml").write_text(CONFIG, "utf-8")
    more = {}
    if module in (h3a, h3a_sensitivity):
        paths = map(str, (study / "scores").glob("*.parquet"))
        more["scores"] = sorted(p for p in paths if "big-zpd-3" not in p)
    with pytest.raises(UserError, match="big/zpd/3") as error:
        run(module, tmp_path, **more)
    assert "--interim" in error.value.fix
    rows = run(module, tmp_path, **more, interim=True)
    if module is power_table:
        # What was claimed before any run has no cells.
        rows = [r for r in rows if r["basis"] == "measured spread"]
    if module is efficiency:
        rows = [r for r in rows if r["model"] == "big"]
    assert rows and all(r["note"].startswith("interim: ") for r in rows)
    where = r"\(3\)" if module is efficiency else r"cells? missing \(big/zpd/3"
    assert all(re.search(where, r["note"]) for r in rows)


def vary(folder: Path, study: Path, old: str, new: str) -> Path:
    """A folder with the study's scores.tsv under a changed configuration."""
    assert old in CONFIG
    (folder / "study.yaml").write_text(CONFIG.replace(old, new), "utf-8")
    (folder / "scores.tsv").write_bytes((study / "scores.tsv").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("module", "old", "new", "reason"),
    [
        (h3b, " humaneval: {},", "", "no generation benchmark (humaneval)"),
        (r1, ", kobest: {}", "", "no benchmark in language 'ko'"),
        (rq1, "random: {}, easy: {}, zpd: {}, ", "zpd: {}, ", "one condition only"),
        (efficiency, "random: {}, ", "", "no condition 'random'"),
    ],
)
def test_a_hypothesis_that_does_not_apply_is_a_row_that_says_so(
    study: Path, tmp_path: Path, module: object, old: str, new: str, reason: str
) -> None:
    rows = run(module, vary(tmp_path, study, old, new))
    (row,) = rows
    assert row["verdict"] == "NA" and row["note"].startswith("does not apply: ")
    assert reason in row["note"]


def test_without_two_models_r1_does_not_apply(study: Path, tmp_path: Path) -> None:
    vary(tmp_path, study, CONFIG[CONFIG.index("  h3a:") :], "  rq1: {alpha: 0.05}\n")
    (row,) = run(r1, tmp_path)
    assert "no two models are named" in row["note"]


def test_a_benchmark_that_h3b_lacks_is_named(study: Path, tmp_path: Path) -> None:
    rows = run(h3b, vary(tmp_path, study, "{mmlu: {}, ", "{"))
    assert {r["benchmark"] for r in rows} == {"gsm8k against humaneval"}
    assert all("the study has no mmlu" in r["note"] for r in rows)


def test_dropping_a_benchmark_changes_the_registration(study: Path, tmp_path: Path) -> None:
    digest = run(h3b, study)[0]["preregistration"]
    held = f"hypotheses:\n  registered: '{digest}'\n"
    assert run(h3b, vary(tmp_path, study, "hypotheses:\n", held))[0]["registered"] == "yes"
    for old, new in (
        (", kobest: {}", ""), (", zpd_fixed: {}", ""), ("10000000", "20000000"),
        ("[0, 1, 2, 3, 4]", "[0, 1, 2, 4, 3]"),
    ):  # fmt: skip
        text = CONFIG.replace("hypotheses:\n", held).replace(old, new)
        (tmp_path / "study.yaml").write_text(text, "utf-8")
        row = run(h3b, tmp_path)[0]
        assert row["registered"] == "exploratory" and row["note"].startswith("exploratory"), old
    # The order in which a file lists them is nothing.
    text = CONFIG.replace("hypotheses:\n", held).replace(
        "mmlu: {}, humaneval: {}", "humaneval: {}, mmlu: {}"
    )
    (tmp_path / "study.yaml").write_text(text, "utf-8")
    assert run(h3b, tmp_path)[0]["registered"] == "yes"


def drop(folder: Path, study: Path, prefix: str) -> None:
    """The study's scores.tsv without the lines that begin so."""
    text = (study / "scores.tsv").read_text("utf-8").splitlines(keepends=True)
    (folder / "study.yaml").write_text(CONFIG, "utf-8")
    (folder / "scores.tsv").write_text(
        "".join(line for line in text if not line.startswith(prefix)), "utf-8"
    )


def test_unequal_seeds_have_two_way_rows_that_say_why(study: Path, tmp_path: Path) -> None:
    drop(tmp_path, study, "big\tzpd\t3\t")
    rows = [r for r in run(rq1, tmp_path, interim=True) if r["model"] == "all"]
    assert len(rows) == 5 * 2 * 3
    assert {r["p_value"] for r in rows} == {"NA"}
    assert all("different numbers of complete seeds (tiny 5, big 4)" in r["note"] for r in rows)


def test_incomplete_seeds_of_curves_and_pilots_are_named(study: Path, tmp_path: Path) -> None:
    drop(tmp_path, study, "big\tzpd\t3\t20\t")
    with pytest.raises(UserError, match=r"1 cells are missing .*big/zpd/3"):
        run(efficiency, tmp_path)
    rows = run(efficiency, tmp_path, interim=True)
    big = [r for r in rows if r["model"] == "big" and r["unit"] == "steps"]
    assert big and all("seeds without all their scores left out (3)" in r["note"] for r in big)
    assert all("left out" not in r["note"] for r in rows if r["model"] == "tiny")
    drop(tmp_path, study, "big\tzpd\t3\t")
    with pytest.raises(UserError, match=r"cells are missing .*big/zpd/3"):
        run(power_table, tmp_path)
    # A claim's rows go by what is claimed, those of a measured spread by what is there.
    rows = [r for r in run(power_table, tmp_path, interim=True) if "measured" in r["note"]]
    assert rows and all("cells missing (big/zpd/3/" in r["note"] for r in rows)


@pytest.mark.parametrize("module", [rq1, h3b, r1, efficiency, ablations, expected])
def test_unplanned_seeds_are_named(study: Path, tmp_path: Path, module: object) -> None:
    vary(tmp_path, study, "seeds: [0, 1, 2, 3, 4]", "seeds: [0, 1, 2, 3]")
    rows = run(module, tmp_path)
    assert rows and all("runs of unplanned seeds left out (4)" in r["note"] for r in rows)


def test_claims_about_no_benchmark_of_the_endpoint_are_shown(study: Path, tmp_path: Path) -> None:
    rows = run(expected, vary(tmp_path, study, ", kobest: {}", ""))
    claimed = [r for r in rows if r["benchmark"] == "kobest"]
    assert [r["expected"] for r in claimed] == ["2", "5"]
    assert {(r["observed"], r["verdict"]) for r in claimed} == {("NA", "undetermined")}
    assert all("no benchmark of the endpoint" in r["note"] for r in claimed)


def test_more_or_fewer_seeds_than_planned_is_said(study: Path, tmp_path: Path) -> None:
    vary(tmp_path, study, "seeds: [0, 1, 2, 3, 4]", "seeds: [0, 1, 2]")
    paths = sorted(map(str, (study / "scores").glob("*.parquet")))
    for module in (h3a, h3a_sensitivity):
        rows = run(module, tmp_path, scores=paths)
        assert all("planned 3 seeds, here 5" in r["note"] for r in rows)


def test_resamples_of_benchmarks_that_begin_alike_differ() -> None:
    seeds = {tuple(crossed.stable_seed("items", f"kobest_{t}")) for t in ("boolq", "copa")}
    assert len(seeds) == 2
    # Eight letters were once all that counted.
    whole, longer = (crossed.stable_seed(b, "g") for b in ("humaneval", "humaneval_plus"))
    assert whole != longer


def test_calibration_error() -> None:
    p = np.array([0.9, 0.9, 0.1, 0.1])
    assert calibration.expected_calibration_error(p, [1, 1, 0, 0]) == pytest.approx(0.1)
    assert calibration.expected_calibration_error([1.0, 0.0], [1, 0]) == 0
    assert calibration.expected_calibration_error([1.0, 1.0], [1, 0]) == pytest.approx(0.5)


def test_the_calibration_error_of_perfect_calibration() -> None:
    """By all outcomes of a few answers; of many the normal limit joins on; none is exact."""
    p = np.array([0.62, 0.66, 0.64, 0.9, 0.05])
    expected_ = 0.0
    for outcome in itertools.product((0, 1), repeat=len(p)):
        chance = float(np.prod(np.where(np.array(outcome) == 1, p, 1 - p)))
        expected_ += chance * calibration.expected_calibration_error(p, outcome)
    assert calibration.error_if_calibrated(p) == pytest.approx(expected_, rel=1e-12)
    many = np.random.default_rng(0).uniform(0.6, 0.66, calibration.EXACT + 1)
    near = calibration.error_if_calibrated(many[:-1]) * calibration.EXACT**0.5
    assert calibration.error_if_calibrated(many) * many.size**0.5 == pytest.approx(near, rel=0.01)
    assert calibration.error_if_calibrated([1.0, 0.0]) == 0


def test_calibration_by_step(tmp_path: Path) -> None:
    table = grid(sizes={"gsm8k": 40}, steps=(10, 20)).with_columns(confidence=pl.lit(0.75))
    (tmp_path / "study.yaml").write_text(CONFIG, "utf-8")
    paths = write_runs(tmp_path, table)
    with pytest.raises(UserError, match=r"cells are missing .*tiny/easy/0"):
        run(calibration, tmp_path, scores=paths)
    rows = run(calibration, tmp_path, scores=paths, interim=True)
    assert all("cells missing (tiny/easy/0" in r["note"] for r in rows)
    point = [r for r in rows if r["condition"] == "zpd" and r["step"] == "20"]
    assert {(r["items"], r["n_items"]) for r in point} == {("full", "40"), ("subset", "10")}
    assert {r["items"] for r in rows if r["step"] == "10"} == {"subset"}
    assert all(float(r["ece_if_calibrated"]) > 0.05 for r in rows)
    row = next(r for r in point if r["items"] == "full")
    assert float(row["mean_confidence"]) == pytest.approx(0.75)
    assert (row["n_seeds"], row["n_items"]) == ("5", "40")
    other = tmp_path / "other"
    other.mkdir()
    paths = write_runs(other, table.drop("confidence"))
    (row,) = run(calibration, tmp_path, scores=paths, interim=True)
    assert row["ece"] == row["model"] == "NA" and "nothing to calibrate" in row["note"]


def test_a_study_need_not_expect_anything(study: Path, tmp_path: Path) -> None:
    silent = CONFIG[: CONFIG.index("    claimed:")]
    (tmp_path / "study.yaml").write_text(silent, "utf-8")
    (tmp_path / "scores.tsv").write_bytes((study / "scores.tsv").read_bytes())
    assert run(expected, tmp_path, efficiency=None) == []
    header = (tmp_path / "out.tsv").read_text("utf-8")
    assert header.startswith("hypothesis\tquantity\t") and header.count("\n") == 1


def test_plan_reads_a_pilot(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"humaneval": 20, "gsm8k": 20, "mmlu": 20, "kobest": 30}
    pilot = grid(models=("mini-qwen", "mini-solar"), n_seeds=3, sizes=sizes)
    (tmp_path / "study.yaml").write_text(CONFIG, "utf-8")
    aggregate(tmp_path, write_runs(tmp_path, pilot))
    config = ["--configfile", str(root / "config/mini.yaml")]
    assert cli.main(["plan", *config, "--pilot", str(tmp_path / "scores.tsv")]) == 0
    said = capsys.readouterr().out
    claimed, measured = said.split("after the pilot, spread measured on 3 seeds")
    assert "80 % power for the claim needs" not in claimed
    assert "give its scores/MODEL/CONDITION/s*.parquet" in " ".join(measured.split())
    h = settings.read_hypotheses(root / "config/mini.yaml").h3a
    assert h is not None
    rows = power_table.of_pilot(tmp_path / "scores.tsv", h, list(sizes), 5)
    row = next(r for r in rows if r["benchmark"] == "mean" and r["is_planned"])
    assert f"5 (planned)  {row['power']:.2f}" in measured
    assert cli.main(["plan", *config]) == 0
    assert "80 % power for the claim needs 4 seeds" in capsys.readouterr().out
    answers = sorted(map(str, (tmp_path / "scores").glob("*.parquet")))
    assert cli.main(["plan", *config, "--pilot", *answers]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "% is single answers' noise on 90 items" in said
    assert "cheapest for the claim: about" in said or "more items, as many as there are" in said
    assert cli.main(["plan", *config, "--pilot", str(tmp_path / "none.tsv")]) == 2
    assert "cannot be read as scores.tsv" in capsys.readouterr().err


def test_groups_of_subjects_and_acc_norm_have_rows() -> None:
    """As the harness shows them: mmlu_stem and its like, HellaSwag's acc_norm."""
    rows = []
    for task, results in (("astronomy", [1, 0]), ("anatomy", [1]), ("virology", [0])):
        rows += [("mmlu", task, f"{task}/{n}", float(c), None) for n, c in enumerate(results)]
    rows += [("kobest", "hellaswag", str(n), float(n), 1.0) for n in range(2)]
    table = pl.DataFrame(
        [("m", "base", "0", 0, *row, 0, "0", "0" if row[3] else "1") for row in rows],
        schema=[
            "model", "condition", "seed", "step", "benchmark", "task", "item_id", "correct",
            "correct_norm", "sample", "prediction", "gold",
        ],
        orient="row",
    )  # fmt: skip
    found = {
        (b, t, m): (v, n)
        for b, t, m, v, n in metrics.task_scores(table)
        .select("benchmark", "task", "metric", "value", "n_items")
        .iter_rows()
    }
    assert found["mmlu", "mmlu_stem", "acc"] == (pytest.approx(2 / 3), 3)
    assert found["mmlu", "mmlu_other", "acc"] == (0.0, 1)
    assert ("mmlu", "mmlu_humanities", "acc") not in found
    assert found["kobest", "hellaswag", "acc_norm"] == (1.0, 2)
    assert found["kobest", "hellaswag", "acc"] == (0.5, 2)


def test_a_benchmark_of_programs_is_pass_at_1_by_whatever_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (definition.FOLDER / "humaneval.yaml").read_text("utf-8")
    own = tmp_path / "kr_code.yaml"
    own.write_text(text.replace("name: humaneval", "name: kr_code", 1), "utf-8")
    assert metrics.primary_metric("kr_code") == "acc"  # unknown: a mean is all that can be said
    monkeypatch.setattr(definition, "_paths", lambda: {"kr_code": own})
    assert metrics.primary_metric("kr_code") == "pass@1"
    # A label of a table from outside opens no file.
    assert metrics.primary_metric(str(own)) == "acc"


MODULES = (
    rq1, h3b, r1, efficiency, ablations, expected, power_table, calibration, h3a, h3a_sensitivity,
    ladder,
)  # fmt: skip
NEEDED = {
    "n": ("n_seeds",),
    "interval": ("low", "difference_low"),
    "other end": ("high", "difference_high"),
    "test": ("test", "method"),
    "statistic": ("statistic",),
    "degrees of freedom": ("df", "df1"),
    "raw p": ("p_value",),
    "Holm p": ("p_holm",),
    "MDE": ("mde_80", "mde_80_f"),
    "verdict": ("verdict",),
    "note": ("note",),
    "digest": ("preregistration",),
    "registered": ("registered",),
}


def prepared(module: object, study: Path, folder: Path, **how: object) -> dict[str, object]:
    """A folder with what a module reads, of the study or of a grid made as `how` says."""
    (folder / "study.yaml").write_text(str(how.pop("config", CONFIG)), "utf-8")
    if module is ladder:
        models = ("s", "m", "l")
        table = grid(models=models, gain=(0, 0.1, 0.2), sizes={"gsm8k": 60}, **how)  # type: ignore[arg-type]
        sizes = "{s: 5.0e+8, m: 1.5e+9, l: 7.0e+9}"
        (folder / "study.yaml").write_text(f"hypotheses: {{ladder: {{parameters: {sizes}}}}}\n")
    elif how or module is calibration:
        conditions = ("random", "easy", "zpd", "zpd_fixed")
        table = grid(sizes=SIZES, steps=(10, 20, 30), conditions=conditions, **how)  # type: ignore[arg-type]
        table = table.with_columns(confidence=pl.lit(0.75))
    else:
        (folder / "scores.tsv").write_bytes((study / "scores.tsv").read_bytes())
        paths = sorted(map(str, (study / "scores").glob("*.parquet")))
        return {"scores": paths} if module in (h3a, h3a_sensitivity) else {}
    paths = write_runs(folder, table)
    aggregate(folder, paths)
    return {"scores": paths} if module in (h3a, h3a_sensitivity, calibration) else {}


@pytest.mark.parametrize("module", MODULES)
def test_every_row_carries_what_a_reader_needs(module: object, study: Path, tmp_path: Path) -> None:
    """n, interval, test, df, raw and Holm p, MDE, verdict, note, digest; and the corpus's notes."""
    from zpdbench import files

    said = "orca: shortfall, has 21 usable examples, 100 were asked for; all are used"
    adapter = tmp_path / "adapters/tiny/zpd/s0"
    adapter.mkdir(parents=True)
    files.write_manifest(adapter, {"notes": [said]})
    rows = run(module, tmp_path, **prepared(module, study, tmp_path), adapters=[str(adapter)])
    for what, names in NEEDED.items():
        assert any(n in rows[0] for n in names), what
    assert all(said.replace("; ", ", ") in r["note"] for r in rows)
    assert {len(r["preregistration"]) for r in rows} == {16}
    assert {r["registered"] for r in rows} == {"none"}
    assert {r["n_seeds"] for r in rows} - {"NA"}
    if module not in (calibration, power_table):
        # What tests has a p, and with it all that belongs to one.
        tested = [r for r in rows if r["p_value"] != "NA"]
        assert tested
        name = "method" if module is h3a_sensitivity else "test"
        assert all(r[name] != "NA" for r in tested)
        words = [r for r in rows if r["verdict"] != "NA"]
        # A claim has one verdict at most; what was expected is compared row by row.
        assert module is expected or len(words) == (module in (h3a, ladder))
        mde = next(n for n in NEEDED["MDE"] if n in rows[0])
        assert any(float(r[mde]) > 0 for r in tested if r[mde] != "NA")


def test_runs_scores_and_curves_carry_digest_and_notes(study: Path, tmp_path: Path) -> None:
    from zpdbench import files

    files.write_manifest(tmp_path, {"notes": ["orca: shortfall, has 21 usable examples"]})
    paths = sorted(map(str, (study / "scores").glob("*.parquet")))
    outs = ["--out-scores", str(tmp_path / "s.tsv"), "--out-curves", str(tmp_path / "c.tsv")]
    lock = ["--study", str(study / "study.yaml")]
    assert cli.main(["aggregate-scores", *lock, *outs, *paths, "--adapters", str(tmp_path)]) == 0
    digest = run(h3b, study)[0]["preregistration"]
    for name in ("s.tsv", "c.tsv"):
        rows = read(tmp_path / name)
        assert {r["preregistration"] for r in rows} == {digest}
        assert {r["note"] for r in rows} == {"orca: shortfall, has 21 usable examples"}


@pytest.mark.parametrize("module", MODULES)
def test_one_seed_has_no_test_and_says_so(module: object, study: Path, tmp_path: Path) -> None:
    config = CONFIG.replace("seeds: [0, 1, 2, 3, 4]", "seeds: [0]")
    given = prepared(module, study, tmp_path, n_seeds=1, config=config)
    rows = run(module, tmp_path, **given)
    if module is power_table:
        rows = [r for r in rows if r["basis"] == "measured spread"]
        assert {r["power"] for r in rows} == {"NA"}
        assert all("one seed" in r["note"] for r in rows)
        return
    for r in rows:
        if "permutation" in r.get("method", ""):
            # Two values have two orders: it is defined, and never finds anything.
            assert r["p_value"] == "NA" or float(r["p_value"]) >= 0.5
        else:
            assert r["p_value"] == "NA"
        assert r["verdict"] in ("inconclusive", "undetermined", "NA"), r
        assert r.get("low", r.get("difference_low")) == "NA"
    if module is not calibration:
        why = "one seed|too few seeds|below 5|no flops|no ratio|no learning curves|models are left"
        why += "|all 2 labellings"
        assert all(re.search(why, r["note"]) for r in rows), {r["note"] for r in rows}


@pytest.mark.parametrize("module", MODULES)
def test_no_spread_between_seeds_is_inconclusive(
    module: object, study: Path, tmp_path: Path
) -> None:
    """Every seed's verdicts are seed 0's."""
    how = {"n_seeds": 1, "config": CONFIG.replace("seeds: [0, 1, 2, 3, 4]", "seeds: [0]")}
    prepared(module, study, tmp_path, **how)
    folder = tmp_path / "same"
    folder.mkdir()
    one = pl.concat([pl.read_parquet(p) for p in sorted((tmp_path / "scores").glob("*.parquet"))])
    tuned = one.filter(pl.col("condition") != "base")
    copies = [tuned.with_columns(seed=pl.lit(s, dtype=tuned["seed"].dtype)) for s in range(5)]
    paths = write_runs(folder, pl.concat([one.filter(pl.col("condition") == "base"), *copies]))
    text = (tmp_path / "study.yaml").read_text("utf-8")
    (folder / "study.yaml").write_text(text.replace("seeds: [0]", "seeds: [0, 1, 2, 3, 4]"))
    aggregate(folder, paths)
    of_files = module in (h3a, h3a_sensitivity, calibration)
    rows = run(module, folder, **({"scores": paths} if of_files else {}))
    if module is power_table:
        rows = [r for r in rows if r["basis"] == "measured spread"]
        assert {r["power"] for r in rows} == {"NA"}
        return
    for r in rows:
        if r["scale" if "scale" in r else "note"] == "pp" and module is h3a_sensitivity:
            # A permutation of equal values is defined: nothing is rarer than what is there.
            assert r["p_value"] in ("NA", "1") or "permutation" in r["method"]
        elif r.get("term") == "condition" and r.get("test") == "Kruskal-Wallis":
            # Ranks of other conditions still differ.
            continue
        elif r.get("test") != "Friedman":
            assert r["p_value"] == "NA" or "permutation" in r.get("method", ""), r
        if r["p_value"] == "NA":
            assert r["verdict"] in ("inconclusive", "undetermined", "NA")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("value", "1.2"), "value is '1.2', no score in [0, 1]"),
        (("value", "-0.1"), "value is '-0.1', no score in [0, 1]"),
        (("value", "NaN"), "value is 'NaN', no score in [0, 1]"),
        (("value", "inf"), "value is 'inf', no score in [0, 1]"),
        (("value", "NA"), "value is NA, no score in [0, 1]"),
        (("value", "high"), "value is 'high', no score in [0, 1]"),
        (("n_items", "0"), "n_items is '0', no number of items"),
        (("n_items", "NA"), "n_items is NA, no number of items"),
        (("n_items", "39"), "over 39 items, of other runs over 40"),
        (("items", "some"), "items is 'some', no full or subset"),
        (("step", "last"), "step is 'last', no value for this column"),
        (("seed", "NA"), "seed is NA, no value for this column"),
        (("benchmark", "NA"), "benchmark is NA, no value for this column"),
    ],
)
@pytest.mark.parametrize("module", [rq1, power_table])
def test_a_wrong_line_of_scores_is_named(
    study: Path, tmp_path: Path, module: object, change: tuple[str, str], said: str
) -> None:
    (tmp_path / "study.yaml").write_text(CONFIG, "utf-8")
    lines = (study / "scores.tsv").read_text("utf-8").splitlines()
    columns = lines[0].split("\t")
    start = "big\tzpd\t3\t30\tgsm8k\tall\texact_match_strict\t"
    at = next(i for i, x in enumerate(lines) if x.startswith(start) and "\tfull\t" in x)
    fields = lines[at].split("\t")
    fields[columns.index(change[0])] = change[1]
    lines[at] = "\t".join(fields)
    (tmp_path / "scores.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(UserError) as error:
        run(module, tmp_path)
    assert said in error.value.what
    assert error.value.where == f"{tmp_path / 'scores.tsv'}:{at + 1}"


def test_a_line_of_scores_twice_is_named(
    root: Path, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(CONFIG, "utf-8")
    lines = (study / "scores.tsv").read_text("utf-8").splitlines()
    at = next(i for i, x in enumerate(lines) if x.startswith("big\tzpd\t3\t30\tgsm8k\tall\texact"))
    (tmp_path / "scores.tsv").write_text("\n".join([*lines, lines[at]]) + "\n", "utf-8")
    said = f"big/zpd/3 step 30, gsm8k stands in line {at + 1} already"
    with pytest.raises(UserError, match=said) as error:
        run(rq1, tmp_path)
    assert error.value.where == f"{tmp_path / 'scores.tsv'}:{len(lines) + 1}"
    config = ["--configfile", str(root / "config/mini.yaml")]
    assert cli.main(["plan", *config, "--pilot", str(tmp_path / "scores.tsv")]) == 2
    assert said in capsys.readouterr().err
