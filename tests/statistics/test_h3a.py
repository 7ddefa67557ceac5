"""`zpdbench h3a`: the contract's rows, every bad input, and the numbers behind them."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from tests.statistics.grids import CONFIG, consistent, grid, read, write
from zpdbench.cli import main
from zpdbench.hypotheses import H3a
from zpdbench.statistics import effects, h3a
from zpdbench.statistics.h3a import Cells
from zpdbench.statistics.verdicts import VERDICTS

CONTRACT = [
    *("hypothesis", "benchmark", "scale", "model_small", "model_large", "n_seeds"),
    *("effect_small", "effect_small_low", "effect_small_high"),
    *("effect_large", "effect_large_low", "effect_large_high"),
    *("difference", "difference_low", "difference_high", "statistic", "df", "p_value", "p_holm"),
    *("mde_80", "power_claimed", "verdict", "note"),
]


def run(
    tmp_path: Path, table: pl.DataFrame, *more: str, config: str = CONFIG
) -> list[dict[str, str]]:
    scores, configfile = write(tmp_path, table, config)
    out = tmp_path / "h3a.tsv"
    code = main(
        ["h3a", "--scores", str(scores), "--configfile", str(configfile), "--out", str(out), *more]
    )
    assert code == 0
    return read(out)


def pick(rows: list[dict[str, str]], benchmark: str, scale: str) -> dict[str, str]:
    return next(r for r in rows if r["benchmark"] == benchmark and r["scale"] == scale)


def test_contract_columns_and_rows(tmp_path: Path) -> None:
    rows = run(tmp_path, grid())
    for row in rows:
        consistent(row)
    assert list(rows[0])[: len(CONTRACT)] == CONTRACT
    assert [(r["benchmark"], r["scale"]) for r in rows] == [
        (b, s) for b in ("gsm8k", "kobest", "mean") for s in ("pp", "logit", "hedges_g")
    ]
    for row in rows:
        is_primary = (row["benchmark"], row["scale"]) == ("mean", "pp")
        assert (row["verdict"] in VERDICTS) if is_primary else row["verdict"] == "NA"
        assert not any(v in ("inf", "-inf", "nan") for v in row.values())
        for column in ("difference", "difference_low", "p_value", "mde_80", "statistic", "df"):
            # Shared seeds are no independent samples, as an interval of two g would have them.
            is_wide = column == "difference_low" and row["scale"] == "hedges_g"
            assert (row[column] == "NA") == is_wide
            assert not is_wide or "which shared ones are not: NA" in row["note"]
        if row["scale"] == "hedges_g":
            assert row["effect_small_low"] == "NA"
            assert "below 8 seeds an interval of one g says nothing" in row["note"]
        else:
            assert float(row["effect_small_low"]) < float(row["effect_small"])
        assert (row["p_holm"] == "NA") == (row["benchmark"] == "mean")
        assert row["power_claimed"] == "NA"


def test_numbers_against_scipy(tmp_path: Path) -> None:
    table = grid(sizes={"gsm8k": 40})
    rows = run(tmp_path, table)
    means = (
        table.filter(pl.col("step") > 0)
        .group_by("model", "condition", "seed")
        .agg(pl.col("correct").mean())
        .sort("seed")
    )

    def cell(model: str, condition: str) -> np.ndarray:
        return means.filter(model=model, condition=condition)["correct"].to_numpy() * 100

    small = cell("tiny", "zpd") - cell("tiny", "random")
    large = cell("big", "zpd") - cell("big", "random")
    want = stats.ttest_rel(large, small, alternative="greater")
    gain = stats.ttest_1samp(large, 0.0, alternative="greater")
    interval = stats.ttest_rel(large, small).confidence_interval(0.95)
    p = max(want.pvalue, gain.pvalue)
    row = pick(rows, "gsm8k", "pp")
    for name, value in {
        "effect_small": small.mean(),
        "effect_large": large.mean(),
        "difference": large.mean() - small.mean(),
        "difference_low": interval.low,
        "difference_high": interval.high,
        "statistic": want.statistic,
        "df": want.df,
        "p_difference": want.pvalue,
        "p_gain": gain.pvalue,
        "p_value": p,
        "p_holm": p,
        "p_against": min(1.0, 2 * (1 - p)),
        "bound": (large - small).mean()
        + stats.t.ppf(1 - 0.0125, 4) * (large - small).std(ddof=1) / 5**0.5,
        "bound_gain": large.mean() + stats.t.ppf(1 - 0.0125, 4) * large.std(ddof=1) / 5**0.5,
    }.items():
        assert float(row[name]) == pytest.approx(value, rel=1e-9), name
    assert row["difference"] == pick(rows, "mean", "pp")["difference"]
    # The smallest detectable effect is found with a power of 80 %.
    se = (large.mean() - small.mean()) / want.statistic
    assert stats.nct.sf(
        stats.t.ppf(0.975, want.df), want.df, float(row["mde_80"]) / se
    ) == pytest.approx(0.8, abs=1e-8)
    logit = pick(rows, "gsm8k", "logit")
    k = cell("tiny", "zpd") / 100 * 40, cell("tiny", "random") / 100 * 40
    odds = [np.log((x + 0.5) / (40 - x + 0.5)) for x in k]
    assert float(logit["effect_small"]) == pytest.approx((odds[0] - odds[1]).mean(), rel=1e-9)


def test_kobest_is_the_mean_of_macro_f1_over_tasks_by_their_size(tmp_path: Path) -> None:
    # 10 items of BoolQ, 10 of COPA, 4 of WiC.
    table = grid(sizes={"kobest": 30})
    wic = sorted(set(table.filter(task="wic")["item_id"]))
    table = table.filter(~((pl.col("task") == "wic") & pl.col("item_id").is_in(wic[4:])))
    row = pick(run(tmp_path, table), "kobest", "pp")

    def macro(rows: pl.DataFrame) -> float:
        values, sizes = [], []
        for task in ("boolq", "copa", "wic"):
            part = rows.filter(task=task)
            sizes.append(part.height)
            labels = sorted(set(part["gold"]) | set(part["prediction"]))
            scores = []
            for label in labels:
                hit = part.filter((pl.col("gold") == label) & (pl.col("prediction") == label))
                n = part.filter(gold=label).height + part.filter(prediction=label).height
                scores.append(2 * hit.height / n)
            values.append(np.mean(scores))
        assert sizes == [10, 10, 4]
        return float(np.dot(values, sizes) / sum(sizes))

    differences = [
        macro(table.filter(model="tiny", condition="zpd", seed=s))
        - macro(table.filter(model="tiny", condition="random", seed=s))
        for s in range(5)
    ]
    assert float(row["effect_small"]) == pytest.approx(100 * np.mean(differences), rel=1e-9)


def test_final_step_and_base_and_other_conditions(tmp_path: Path) -> None:
    plain = run(tmp_path, grid(sizes={"gsm8k": 40}))
    more = pl.concat(
        [
            grid(sizes={"gsm8k": 40}),
            # An earlier step with other values, a third condition and a third model.
            grid(sizes={"gsm8k": 40}, seed=9, steps=(10,)).filter(pl.col("condition") != "base"),
            grid(sizes={"gsm8k": 40}, seed=8, conditions=("easy",), n_seeds=2).filter(
                pl.col("condition") != "base"
            ),
            grid(sizes={"gsm8k": 40}, seed=7, models=("huge",), gain=(0.3,)),
        ]
    )
    assert run(tmp_path, more) == plain


def test_labels_rows_order_and_dtypes_do_not_matter(tmp_path: Path) -> None:
    table = grid(sizes={"gsm8k": 40})
    want = run(tmp_path, table)
    for change in (
        table.sample(fraction=1.0, shuffle=True, seed=1),
        table.with_columns(pl.col("correct").cast(pl.Int8)),
        table.with_columns(pl.col("correct").cast(pl.Float64)),
        table.with_columns(pl.col("correct").cast(pl.String).str.to_titlecase()),
        table.with_columns(pl.format("run {}", pl.col("seed")).alias("seed")),
        table.select("item_id", "correct", "benchmark", "seed", "step", "condition", "model"),
    ):
        got = run(tmp_path, change)
        for row in got:  # the labels themselves are told
            for role in ("small", "large"):
                told = row[f"per_seed_{role}"].replace("run_", "")
                row[f"per_seed_{role}"] = told
        assert got == want


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    table = grid(sizes={"gsm8k": 40}).drop("status")
    want = run(tmp_path, table)
    scores, config = tmp_path / "scores.tsv", tmp_path / "study.yaml"
    scores.write_bytes(b"\xef\xbb\xbf" + scores.read_bytes().replace(b"\n", b"\r\n"))
    out = tmp_path / "again.tsv"
    assert (
        main(["h3a", "--scores", str(scores), "--configfile", str(config), "--out", str(out)]) == 0
    )
    assert read(out) == want


def test_fields_that_a_csv_writer_quoted(tmp_path: Path) -> None:
    import csv

    table = grid()
    want = run(tmp_path, table)
    names = table.columns
    for text in ('say "yes"', "two\nlines\tand a tab"):
        odd = table.with_columns(
            prediction=pl.when(pl.col("benchmark") == "kobest")
            .then(pl.col("prediction"))
            .otherwise(pl.lit(text))
        )
        scores = tmp_path / "quoted.tsv"
        with scores.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle, delimiter="\t")
            writer.writerows([names, *odd.iter_rows()])
        out = tmp_path / "quoted.out"
        config = str(tmp_path / "study.yaml")
        assert (
            main(["h3a", "--scores", str(scores), "--configfile", config, "--out", str(out)]) == 0
        )
        assert read(out) == want


def test_parquets_of_runs_give_the_same_bytes(tmp_path: Path) -> None:
    table = grid()
    scores, config = write(tmp_path, table)
    paths = []
    for key, part in sorted(
        (tuple(map(str, k)), g) for k, g in table.group_by("model", "condition", "seed")
    ):
        paths.append(str(tmp_path / f"{'-'.join(key)}.parquet"))
        part.write_parquet(paths[-1])
    for name, given in (("a", [str(scores)]), ("b", paths)):
        arguments = ["--configfile", str(config), "--out", str(tmp_path / name)]
        assert main(["h3a", "--scores", *given, *arguments]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_samples_of_one_item_are_averaged_first(tmp_path: Path) -> None:
    table = grid(sizes={"humaneval": 40})
    three = pl.concat([table.with_columns(pl.lit(s).alias("sample")) for s in range(3)])
    want, got = run(tmp_path, table), run(tmp_path, three)
    for scale in ("pp", "hedges_g"):
        assert pick(got, "humaneval", scale) == pick(want, "humaneval", scale)


def test_power_for_the_claim(tmp_path: Path) -> None:
    # A gain so large that it is always found: what is left is the paired t of the difference.
    config = CONFIG.replace(
        "side: larger}",
        "side: larger, claimed: {gsm8k: {small_pp: 990, large_pp: 1000}, d: {small: 0, large: 1}}}",
    )
    row = pick(run(tmp_path, grid(sizes={"gsm8k": 40}), config=config), "gsm8k", "pp")
    se = float(row["difference"]) / float(row["statistic"])
    df = float(row["df"])
    want = stats.nct.sf(stats.t.ppf(0.975, df), df, 10 / se)
    assert float(row["power_claimed"]) == pytest.approx(want, abs=0.004)


@pytest.mark.parametrize("gain", [(0.0, 0.4), (0.4, 0.0)])
def test_side_turns_the_verdict(tmp_path: Path, gain: tuple[float, float]) -> None:
    table = grid(sizes={"gsm8k": 200}, gain=gain)
    larger = pick(run(tmp_path, table), "mean", "pp")
    smaller = pick(run(tmp_path, table, config=CONFIG.replace("larger", "smaller")), "mean", "pp")
    verdicts = ("supported", "contradicted")
    assert (larger["verdict"], smaller["verdict"]) == (
        verdicts if gain[1] > gain[0] else verdicts[::-1]
    )
    assert float(larger["p_difference"]) + float(smaller["p_difference"]) == pytest.approx(1)
    # The gain that counts is where the effect is said to be larger.
    assert (larger["gain"], smaller["gain"]) == (larger["effect_large"], larger["effect_small"])


def change(**columns: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda t: t.with_columns(**columns)  # type: ignore[arg-type]


BAD: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "a missing run": (
        lambda t: t.filter(
            ~((pl.col("model") == "big") & (pl.col("condition") == "zpd") & (pl.col("seed") == 3))
        ),
        "big/zpd/3",
    ),
    "a missing seed of one model": (
        lambda t: t.filter(~((pl.col("model") == "big") & (pl.col("seed") == 3))),
        "big/zpd/3",
    ),
    "a missing benchmark in a run": (
        lambda t: t.filter(
            ~(
                (pl.col("benchmark") == "gsm8k")
                & (pl.col("condition") == "zpd")
                & (pl.col("seed") == 3)
            )
        ),
        "tiny/zpd/3/gsm8k",
    ),
    "a missing item in a run": (
        lambda t: t.filter(
            ~(
                (pl.col("benchmark") == "gsm8k")
                & (pl.col("item_id") == "7")
                & (pl.col("condition") == "zpd")
                & (pl.col("seed") == 3)
                & (pl.col("model") == "big")
            )
        ),
        "item 7 is missing in big/zpd/3",
    ),
    "a row twice": (lambda t: pl.concat([t, t[-1:]]), "the same row"),
    "no such model": (lambda t: t.filter(pl.col("model") != "big"), "'big'"),
    "no such condition": (lambda t: t.filter(pl.col("condition") != "zpd"), "'zpd'"),
    "a score above 1": (
        change(correct=pl.when(pl.col("item_id") == "7").then(1.5).otherwise(1.0)),
        "correct is 1.5",
    ),
    "a NaN": (
        change(
            correct=pl.when(pl.col("item_id") == "7").then(pl.lit("NaN")).otherwise(pl.lit("1"))
        ),
        "correct is 'NaN'",
    ),
    "an empty score": (
        change(correct=pl.when(pl.col("item_id") == "7").then(pl.lit("")).otherwise(pl.lit("1"))),
        "correct is ''",
    ),
    "a word as step": (change(step=pl.lit("last")), "step is 'last'"),
    "no seed": (change(seed=pl.lit("")), "seed is ''"),
    "no column": (lambda t: t.drop("item_id"), "no column item_id"),
    "no rows": (lambda t: t.head(0), "no rows"),
    "no gold for macro-F1": (lambda t: t.drop("gold"), "gold"),
    "no task for macro-F1": (lambda t: t.drop("task"), "task"),
    "correct against the labels": (
        change(
            correct=pl.when(pl.col("benchmark") == "kobest")
            .then(~pl.col("correct"))
            .otherwise(pl.col("correct"))
        ),
        "prediction is",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_table_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    mutate, message = BAD[name]
    scores, config = write(tmp_path, mutate(grid()))
    out = tmp_path / "h3a.tsv"
    code = main(["h3a", "--scores", str(scores), "--configfile", str(config), "--out", str(out)])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error, error
    assert len(error.strip().splitlines()) == 1
    assert not out.exists()


def with_key(key: str) -> str:
    return CONFIG.replace("side: larger", f"side: larger, {key}")


BAD_CONFIG = {
    "no section": ("seeds: [1]\n", "no hypotheses.h3a"),
    "no h3a": ("hypotheses: {h3b: {}}\n", "no hypotheses.h3a"),
    "an unknown hypothesis": (CONFIG + "  h9: {}\n", "unknown key or hypothesis 'h9'"),
    "an unknown key": (with_key("alhpa: 0.1"), "unknown key or hypothesis 'alhpa'"),
    "the same model": (CONFIG.replace("big", "tiny"), "the same model"),
    "the same condition": (CONFIG.replace("zpd", "random"), "the same condition"),
    "an impossible alpha": (with_key("alpha: 5"), "study.yaml:2: hypotheses.h3a.alpha"),
    "an alpha that no interval goes with": (with_key("alpha: 0.5"), "less than 0.5"),
    "a margin of the wrong sign": (with_key("margin: -1"), "hypotheses.h3a.margin"),
    "a gain's margin of the wrong sign": (with_key("margin_gain: -1"), "h3a.margin_gain"),
    "an unknown side": (CONFIG.replace("larger", "bigger"), "hypotheses.h3a.side"),
    "no YAML": ("hypotheses: {h3a: [\n", "no valid YAML"),
}


@pytest.mark.parametrize("name", BAD_CONFIG)
def test_bad_configuration_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    text, message = BAD_CONFIG[name]
    scores, config = write(tmp_path, grid(), text)
    out = tmp_path / "h3a.tsv"
    code = main(["h3a", "--scores", str(scores), "--configfile", str(config), "--out", str(out)])
    error = capsys.readouterr().err
    assert code == 2 and message in error and len(error.strip().splitlines()) == 1, error


def test_configured_benchmark_without_rows_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIG + "benchmarks: {gsm8k: {}, mmlu: {}}\n"
    scores, configfile = write(tmp_path, grid(), config)
    arguments = ["--configfile", str(configfile), "--out", str(tmp_path / "o.tsv")]
    assert main(["h3a", "--scores", str(scores), *arguments]) == 2
    assert "'mmlu'" in capsys.readouterr().err
    assert main(["h3a", "--scores", str(scores), *arguments, "--benchmarks", "gsm8k"]) == 0
    rows = read(tmp_path / "o.tsv")
    assert {r["benchmark"] for r in rows} == {"gsm8k", "mean"}
    assert "benchmarks chosen by hand" in rows[0]["note"]
    assert {r["registered"] for r in rows} == {"exploratory"}


def test_interim_analyses_the_complete_seeds_and_says_so(tmp_path: Path) -> None:
    table = grid(sizes={"gsm8k": 40}).filter(
        ~((pl.col("model") == "big") & (pl.col("condition") == "zpd") & (pl.col("seed") == 3))
    )
    rows = run(tmp_path, table, "--interim")
    assert all(r["note"].startswith("interim: ") and "big/zpd/3" in r["note"] for r in rows)
    assert rows[0]["n_seeds"] == "4"
    assert (rows[0]["n_seeds_small"], rows[0]["n_seeds_large"]) == ("5", "4")


def test_one_seed_has_effects_but_no_test(tmp_path: Path) -> None:
    rows = run(tmp_path, grid(n_seeds=1, sizes={"gsm8k": 40}))
    for row in rows:
        is_primary = (row["benchmark"], row["scale"]) == ("mean", "pp")
        assert row["verdict"] == ("inconclusive" if is_primary else "NA")
        assert "one seed only" in row["note"]
        assert row["p_value"] == row["difference_low"] == row["mde_80"] == "NA"
    assert pick(rows, "mean", "pp")["difference"] != "NA"


def test_no_spread_is_inconclusive_not_infinite(tmp_path: Path) -> None:
    table = grid(sizes={"gsm8k": 40}).with_columns(
        correct=(pl.col("condition") == "zpd") & (pl.col("model") == "big")
    )
    rows = run(tmp_path, table)
    row = pick(rows, "mean", "pp")
    assert (row["difference"], row["verdict"], row["statistic"]) == ("100", "inconclusive", "NA")
    assert "zero variance" in row["note"] and "all items right" in row["note"]
    assert "no standardised effect" in pick(rows, "mean", "hedges_g")["note"]


def scored(scores: dict[tuple[str, str], list[int]], items: int = 100) -> pl.DataFrame:
    """Verdicts with so many right of `items`, a number a seed."""
    rows = [
        (m, c, s, 20, "gsm8k", str(i), i < k)
        for (m, c), right in scores.items()
        for s, k in enumerate(right)
        for i in range(items)
    ]
    names = ["model", "condition", "seed", "step", "benchmark", "item_id", "correct"]
    return pl.DataFrame(rows, schema=names, orient="row")


def test_equal_gains_in_points_are_no_spread_on_log_odds(tmp_path: Path) -> None:
    """+2 and +6 in every seed: on the logit they differ by where they start, which is no error."""
    start = [50, 53, 47, 55, 51]
    got = run(
        tmp_path,
        scored(
            {
                ("tiny", "random"): start,
                ("tiny", "zpd"): [k + 2 for k in start],
                ("big", "random"): start,
                ("big", "zpd"): [k + 6 for k in start],
            }
        ),
    )
    for row in got:
        assert row["p_value"] == "NA" and row["verdict"] in ("inconclusive", "NA")
        assert "all equal in" in row["note"], row["scale"]


def test_one_model_without_spread_says_why_it_has_no_interval(tmp_path: Path) -> None:
    start = [50, 53, 47, 55, 51]
    scores = {
        ("tiny", "random"): start,
        ("tiny", "zpd"): [k + 2 for k in start],
        ("big", "random"): start,
        ("big", "zpd"): [60, 58, 57, 62, 59],
    }
    for scale in ("pp", "logit"):
        row = pick(run(tmp_path, scored(scores)), "mean", scale)
        assert row["p_difference"] != "NA" and row["effect_small_low"] == "NA"
        assert "all equal in tiny: no interval of it" in row["note"]


def test_below_five_seeds_g_has_no_interval_and_says_so(tmp_path: Path) -> None:
    row = pick(run(tmp_path, grid(n_seeds=4, sizes={"gsm8k": 40})), "mean", "hedges_g")
    assert row["effect_large"] != "NA" and row["effect_large_low"] == row["p_value"] == "NA"
    assert "below 5 seeds no interval or test of g" in row["note"]


def test_contradiction_is_held_to_the_familys_level(tmp_path: Path) -> None:
    table = grid(sizes={"gsm8k": 200, "mmlu": 200}, gain=(0.4, 0.0))
    rows = run(tmp_path, table)
    own = [float(pick(rows, b, "pp")["p_against"]) for b in ("mmlu", "gsm8k")]
    held = [float(pick(rows, b, "pp")["p_against_holm"]) for b in ("mmlu", "gsm8k")]
    assert held == pytest.approx(effects.holm(own))
    mean = pick(rows, "mean", "pp")
    assert mean["verdict"] == "contradicted" and mean["p_against_holm"] == "NA"
    assert float(mean["p_against"]) < 0.025


def test_a_t_beyond_what_can_be_computed_has_no_limit() -> None:
    for t in (1e8, 1e200, -1e150, float("inf")):
        assert not math.isinf(effects.noncentrality_limit(t, 4, 0.025))
    assert math.isfinite(effects.noncentrality_limit(50.0, 4, 0.025))


def test_scales_that_disagree_are_pointed_out(tmp_path: Path) -> None:
    # 50 -> 56 of 100 is more points than 90 -> 95, and less on the log-odds.
    scores = {
        ("tiny", "random"): 50,
        ("tiny", "zpd"): 56,
        ("big", "random"): 90,
        ("big", "zpd"): 95,
    }
    rows = [
        (m, c, s, 20, "gsm8k", str(i), i < k + (s % 2) * (1 if c == "zpd" else 0))
        for (m, c), k in scores.items()
        for s in range(5)
        for i in range(100)
    ]
    names = ["model", "condition", "seed", "step", "benchmark", "item_id", "correct"]
    got = run(tmp_path, pl.DataFrame(rows, schema=names, orient="row"))
    assert "scales disagree in sign" in pick(got, "mean", "pp")["note"]


def test_registered_digest_marks_exploratory(tmp_path: Path) -> None:
    first = run(tmp_path, grid(sizes={"gsm8k": 40}))[0]
    assert first["registered"] == "none"
    registered = CONFIG + f"  registered: '{first['preregistration']}'\n"
    assert run(tmp_path, grid(sizes={"gsm8k": 40}), config=registered)[0]["registered"] == "yes"
    other = registered.replace("side: larger", "side: larger, alpha: 0.1")
    row = run(tmp_path, grid(sizes={"gsm8k": 40}), config=other)[0]
    assert row["registered"] == "exploratory" and "exploratory" in row["note"]


def test_the_installed_command_needs_no_study(tmp_path: Path) -> None:
    scores, config = write(tmp_path, grid(sizes={"gsm8k": 40}))
    command = [sys.executable, "-m", "zpdbench.cli", "h3a", "--scores", str(scores)]
    done = subprocess.run(
        [*command, "--configfile", str(config), "--out", str(tmp_path / "o.tsv")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.startswith("H3a ")


def test_g_interval_contains_estimate_and_agrees_with_p() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        sizes = [
            effects.hedges_g(x + shift, x * 0.4 + rng.normal(size=7))
            for shift in (0.0, 1.2)
            for x in [rng.normal(size=7)]
        ]
        test = effects.difference_of_g(*sizes)
        assert test.low < test.estimate < test.high
        assert (test.p_value < 0.025) == (test.low > 0)
        assert (test.p_value > 0.975) == (test.high < 0)
        assert math.isfinite(test.bound)
        # At half the level: two ways to contradict.
        assert test.estimate < test.high < test.bound


def test_sentence_can_be_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = pick(run(tmp_path, grid(sizes={"gsm8k": 40})), "mean", "pp")
    said = capsys.readouterr().err
    assert said.startswith(f"H3a {row['verdict']} (") and "inf" not in said
    for value in ("effect_small", "effect_large", "difference", "difference_low", "mde_80"):
        assert f"{float(row[value]):+.2f}" in said
    assert "for new items of the kind [" in said


# What each word stands for: right answers of 100, a number a seed.
_START = [50, 52, 48, 51, 49]
WORDS = {
    "supported": ([0, 1, -1, 1, 0], [8, 10, 9, 7, 8]),
    "difference only": ([-9, -12, -10, -8, -11], [1, -3, 2, 3, -1]),
    "smaller harm": ([-17, -25, -21, -19, -28], [-2, -9, -2, -9, -3]),
    "contradicted": ([-10, -12, -11, -9, -10], [-5, -4, -6, -5, -4]),
    "inconclusive": ([1, -4, 3, 0, -2], [2, 1, -3, 4, 0]),
}


def made(word: str) -> pl.DataFrame:
    small, large = WORDS[word]
    return scored(
        {
            ("tiny", "random"): _START,
            ("tiny", "zpd"): [a + b for a, b in zip(_START, small, strict=True)],
            ("big", "random"): _START,
            ("big", "zpd"): [a + b for a, b in zip(_START, large, strict=True)],
        }
    )


@pytest.mark.parametrize("word", WORDS)
def test_each_word_says_what_its_limits_say(
    tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = pick(run(tmp_path, made(word)), "mean", "pp")
    assert row["verdict"] == word
    consistent(row)
    difference = np.array(WORDS[word][1]) - np.array(WORDS[word][0])
    assert float(row["difference"]) == pytest.approx(difference.mean())
    assert f"H3a {word} (" in capsys.readouterr().err
    said = {
        "supported": "zpd gains over random in big, and more than in tiny",
        "difference only": "the effects differ, and a gain of zpd in big is not shown",
        "smaller harm": "zpd loses to random in big, only less than in tiny",
        "contradicted": "ruled out: a gain of zpd over random in big",
        "inconclusive": "not decided",
    }[word]
    assert f"meaning: {said}" in row["note"]
    if word == "contradicted":
        # The difference alone was "supported" here once.
        assert float(row["p_difference"]) < 0.001


def test_the_word_is_that_of_the_printed_limits() -> None:
    """Over random studies, sides, levels and margins: every word occurs, none contradicts."""
    rng = np.random.default_rng(1)
    seen = set()
    for i in range(400):
        h = H3a(
            small="s",
            large="l",
            side="smaller" if i % 3 == 0 else "larger",
            alpha=0.05 if i % 2 else 0.025,
            margin=float(i % 5 == 0),
            margin_gain=float(i % 7 == 0),
        )
        n = int(rng.integers(2, 9))
        centre = rng.normal(size=2) * 0.03
        gains = centre[:, None] + 0.01 * rng.normal(size=(2, n)) * rng.choice([0.2, 1.0])
        cells = Cells(
            ["b"],
            {r: [str(k) for k in range(n)] for r in ("small", "large")},
            {
                r: {"treatment": 0.5 + g[:, None], "control": np.full((n, 1), 0.5)}
                for r, g in zip(("small", "large"), gains, strict=True)
            },
            np.array([100]),
            1,
        )
        difference, gain, said = h3a.ruling(cells, h)
        level = effects.level_of(h.alpha, h.side)
        row = {
            "verdict": said.verdict, "side": h.side, "alpha": h.alpha, "level": level,
            "margin": h.margin, "margin_gain": h.margin_gain, "p_value": said.p_value,
            "p_against": said.p_against, "difference_low": difference.low,
            "difference_high": difference.high, "gain_low": gain.low, "gain_high": gain.high,
            "bound": difference.bound, "bound_gain": gain.bound,
        }  # fmt: skip
        consistent({k: f"{v:.15g}" if isinstance(v, float) else v for k, v in row.items()})
        seen.add(said.verdict)
    # `smaller harm` is a narrow case: `test_each_word_says_what_its_limits_say` has it.
    assert seen | {"smaller harm"} == set(VERDICTS)


def test_models_of_one_seed_are_pairs_and_others_are_not(tmp_path: Path) -> None:
    """The same differences: with shared labels they are pairs, with labels of their own groups."""
    shared = made("supported")
    own = shared.with_columns(
        pl.when(pl.col("model") == "big")
        .then(pl.format("b{}", "seed"))
        .otherwise(pl.format("a{}", "seed"))
        .alias("seed")
    )
    pairs, groups = (pick(run(tmp_path, t), "mean", "pp") for t in (shared, own))
    small, large = (np.array(v, dtype=float) for v in WORDS["supported"])
    assert float(pairs["p_difference"]) == pytest.approx(
        stats.ttest_rel(large, small, alternative="greater").pvalue
    )
    assert float(groups["p_difference"]) == pytest.approx(
        stats.ttest_ind(large, small, equal_var=False, alternative="greater").pvalue
    )
    assert "paired" in pairs["test"] and "share no seed" in groups["test"]


def test_margins_are_in_the_tests(tmp_path: Path) -> None:
    table = made("supported")
    found = {
        key: pick(run(tmp_path, table, config=with_key(key)), "mean", "pp")
        for key in ("margin: 0", "margin: 7", "margin_gain: 7.5", "margin: 12")
    }
    assert found["margin: 0"]["verdict"] == "supported"
    for key in ("margin: 7", "margin_gain: 7.5"):
        assert found[key]["verdict"] not in ("supported", "contradicted"), key
    assert found["margin: 12"]["verdict"] == "contradicted"
    assert "of 12 points or more" in found["margin: 12"]["note"]
    small, large = (np.array(v, dtype=float) for v in WORDS["supported"])
    assert float(found["margin: 7"]["p_difference"]) == pytest.approx(
        stats.ttest_1samp(large - small, 7, alternative="greater").pvalue
    )
    assert float(found["margin_gain: 7.5"]["p_gain"]) == pytest.approx(
        stats.ttest_1samp(large, 7.5, alternative="greater").pvalue
    )


def test_a_seed_in_one_model_only_is_left_out_and_named(tmp_path: Path) -> None:
    table = made("supported").filter(~((pl.col("model") == "big") & (pl.col("seed") == 4)))
    scores, config = write(tmp_path, table)
    arguments = ["--scores", str(scores), "--configfile", str(config)]
    assert main(["h3a", *arguments, "--out", str(tmp_path / "no.tsv")]) == 2
    row = pick(run(tmp_path, table, "--interim"), "mean", "pp")
    assert (row["n_seeds"], row["n_seeds_small"], row["n_seeds_large"]) == ("4", "5", "4")
    assert "seeds without a pair in the other model left out: 1 of tiny" in row["note"]
    assert float(row["difference"]) == pytest.approx(
        float(row["effect_large"]) - float(row["effect_small"])
    )


def test_seeds_one_by_one_and_each_left_out_stand_beside_it(tmp_path: Path) -> None:
    row = pick(run(tmp_path, made("supported")), "mean", "pp")
    small, large = (np.array(v, dtype=float) for v in WORDS["supported"])
    for role, values in (("small", small), ("large", large)):
        told = dict(part.split(":") for part in row[f"per_seed_{role}"].split(" "))
        assert {k: float(v) for k, v in told.items()} == {str(i): v for i, v in enumerate(values)}
    p, d = [], []
    for i in range(5):
        rest = np.delete(large - small, i)
        gain = stats.ttest_1samp(np.delete(large, i), 0, alternative="greater").pvalue
        p.append(max(stats.ttest_1samp(rest, 0, alternative="greater").pvalue, gain))
        d.append(rest.mean())
    assert [float(row[f"left_out_{e}"]) for e in ("low", "high")] == pytest.approx([min(d), max(d)])
    assert [float(row[f"left_out_p_{e}"]) for e in ("low", "high")] == pytest.approx(
        [min(p), max(p)]
    )
    lost = sum(x >= 0.025 for x in p)
    assert (f"fragile: {lost} of 5" in row["note"]) == (lost > 0)


def test_a_verdict_that_new_items_would_not_bear_says_so(tmp_path: Path) -> None:
    """Each seed gains on the same few items: sure of these, not of others like them."""
    rows = []
    for model, lucky in (("tiny", 0), ("big", 3)):
        for condition in ("random", "zpd"):
            for seed in range(5):
                for item in range(40):
                    right = item % 2 == 0
                    if condition == "zpd" and 2 * item + 1 < 2 * lucky + 2 and lucky:
                        right = True
                    if (seed, item) in ((0, 9), (3, 11)) and condition == "zpd" and lucky:
                        right = True
                    rows.append((model, condition, seed, 20, "gsm8k", str(item), right))
    names = ["model", "condition", "seed", "step", "benchmark", "item_id", "correct"]
    table = pl.DataFrame(rows, schema=names, orient="row")
    row = pick(run(tmp_path, table), "mean", "pp")
    assert row["verdict"] == "supported" and row["new_items_verdict"] != "supported"
    assert float(row["new_items_low"]) < 0 < float(row["difference_low"])
    assert "on these 40 items only: for new items of the kind" in row["note"]
    assert float(row["error_items"]) > float(row["error_seeds"])


def test_the_smallest_effect_has_the_range_of_its_spread(tmp_path: Path) -> None:
    row = pick(run(tmp_path, made("inconclusive")), "mean", "pp")
    least = float(row["mde_80"])
    for end, tail in (("low", 0.975), ("high", 0.025)):
        factor = (4 / stats.chi2.ppf(tail, 4)) ** 0.5
        assert float(row[f"mde_80_{end}"]) == pytest.approx(factor * least)


def test_seeds_other_than_the_registered_are_exploratory(tmp_path: Path) -> None:
    table = made("supported")
    config = CONFIG + "seeds: [0, 1, 2, 3, 4]\n"
    digest = run(tmp_path, table, config=config)[0]["preregistration"]
    registered = config.replace("hypotheses:\n", f"hypotheses:\n  registered: '{digest}'\n")
    assert run(tmp_path, table, config=registered)[0]["registered"] == "yes"
    # More seeds in the plan, another order of it, fewer runs than it says: none is the registered.
    for seeds in ("[0, 1, 2, 3, 4, 5]", "[1, 0, 2, 3, 4]"):
        other = registered.replace("[0, 1, 2, 3, 4]", seeds)
        assert run(tmp_path, table, "--interim", config=other)[0]["registered"] == "exploratory"
    fewer = run(tmp_path, table.filter(pl.col("seed") < 4), config=registered)[0]
    assert fewer["registered"] == "exploratory"
    assert "exploratory: not what was registered" in fewer["note"]


@pytest.mark.parametrize("done", ["kept", "left out"])
def test_a_shortfall_and_contamination_stand_in_every_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], done: str
) -> None:
    from zpdbench import files

    said = "orca: shortfall, has 21 usable examples, 100 were asked for; all are used"
    folders = [str(tmp_path / f"runs/{n}") for n in "ab"]
    for folder in folders:
        Path(folder).mkdir(parents=True)
        held = f"contamination: 7 examples hold an item of gsm8k and are {done}"
        notes = [said, "orca: 3 exact duplicates left out", held]
        files.write_manifest(folder, {"notes": notes})
    rows = run(tmp_path, grid(sizes={"gsm8k": 40}), "--adapters", *folders)
    whole = said.replace("; ", ", ")
    found = [f"contamination: 7 examples hold an item of gsm8k and are {done}", whole]
    assert all(row["note"].split("; ")[:2] == found for row in rows)
    assert "duplicates" not in rows[0]["note"]
    assert main(["show", str(tmp_path / "h3a.tsv")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "orca: shortfall, has 21 usable examples" in shown
    assert "contamination: 7 examples hold an item of gsm8k" in shown
