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

from tests.statistics.grids import CONFIG, grid, read, write
from zpdbench.cli import main
from zpdbench.statistics import effects, h3a

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
    assert list(rows[0])[: len(CONTRACT)] == CONTRACT
    assert [(r["benchmark"], r["scale"]) for r in rows] == [
        (b, s) for b in ("gsm8k", "kobest", "mean") for s in ("pp", "logit", "hedges_g")
    ]
    for row in rows:
        assert row["verdict"] in ("supported", "contradicted", "inconclusive")
        assert not any(v in ("inf", "-inf", "nan") for v in row.values())
        for column in ("difference", "difference_low", "p_value", "mde_80", "statistic", "df"):
            # At five seeds no interval of a difference of two g keeps its coverage.
            is_wide = column == "difference_low" and row["scale"] == "hedges_g"
            assert (row[column] == "NA") == is_wide
            assert not is_wide or "keeps 95 %: NA" in row["note"]
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
    want = stats.ttest_ind(large, small, equal_var=False, alternative="greater")
    interval = stats.ttest_ind(large, small, equal_var=False).confidence_interval(0.95)
    row = pick(rows, "gsm8k", "pp")
    for name, value in {
        "effect_small": small.mean(),
        "effect_large": large.mean(),
        "difference": large.mean() - small.mean(),
        "difference_low": interval.low,
        "difference_high": interval.high,
        "statistic": want.statistic,
        "df": want.df,
        "p_value": want.pvalue,
        "p_holm": want.pvalue,
    }.items():
        assert float(row[name]) == pytest.approx(value, rel=1e-9), name
    assert row["difference"] == pick(rows, "mean", "pp")["difference"]
    # The smallest detectable effect is found with a power of 80 %.
    se = (large.mean() - small.mean()) / want.statistic
    assert stats.nct.sf(
        stats.t.ppf(0.95, want.df), want.df, float(row["mde_80"]) / se
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
        assert run(tmp_path, change) == want


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
    config = CONFIG.replace(
        "alpha: 0.05}",
        "alpha: 0.05, claimed: {gsm8k: {small_pp: 2, large_pp: 12}, d: {small: 0, large: 1}}}",
    )
    row = pick(run(tmp_path, grid(sizes={"gsm8k": 40}), config=config), "gsm8k", "pp")
    se = float(row["difference"]) / float(row["statistic"])
    df = float(row["df"])
    want = stats.nct.sf(stats.t.ppf(0.95, df), df, 10 / se)
    assert float(row["power_claimed"]) == pytest.approx(want, rel=1e-8)


@pytest.mark.parametrize("gain", [(0.0, 0.4), (0.4, 0.0)])
def test_side_turns_the_verdict(tmp_path: Path, gain: tuple[float, float]) -> None:
    table = grid(sizes={"gsm8k": 200}, gain=gain)
    larger = pick(run(tmp_path, table), "mean", "pp")
    smaller = pick(run(tmp_path, table, config=CONFIG.replace("larger", "smaller")), "mean", "pp")
    verdicts = ("supported", "contradicted")
    assert (larger["verdict"], smaller["verdict"]) == (
        verdicts if gain[1] > gain[0] else verdicts[::-1]
    )
    assert float(larger["p_value"]) + float(smaller["p_value"]) == pytest.approx(1)


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


BAD_CONFIG = {
    "no section": ("seeds: [1]\n", "no hypotheses.h3a"),
    "no h3a": ("hypotheses: {h3b: {}}\n", "no hypotheses.h3a"),
    "an unknown hypothesis": (CONFIG + "  h9: {}\n", "unknown key or hypothesis 'h9'"),
    "an unknown key": (CONFIG.replace("alpha", "alhpa"), "unknown key or hypothesis 'alhpa'"),
    "the same model": (CONFIG.replace("big", "tiny"), "the same model"),
    "the same condition": (CONFIG.replace("zpd", "random"), "the same condition"),
    "an impossible alpha": (CONFIG.replace("0.05", "5"), "study.yaml:2: hypotheses.h3a.alpha"),
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
        assert row["verdict"] == "inconclusive" and "one seed only" in row["note"]
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
        assert (row["p_value"], row["verdict"]) == ("NA", "inconclusive")
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
        assert row["p_value"] != "NA" and row["effect_small_low"] == "NA"
        assert "all equal in tiny: no interval of it" in row["note"]


def test_below_five_seeds_g_has_no_interval_and_says_so(tmp_path: Path) -> None:
    row = pick(run(tmp_path, grid(n_seeds=4, sizes={"gsm8k": 40})), "mean", "hedges_g")
    assert row["effect_large"] != "NA" and row["effect_large_low"] == row["p_value"] == "NA"
    assert "below 5 seeds no interval or test of g" in row["note"]


def test_contradicted_after_holm_says_that_its_bound_is_its_own(tmp_path: Path) -> None:
    table = grid(sizes={"gsm8k": 200, "mmlu": 200}, gain=(0.4, 0.0))
    row = pick(run(tmp_path, table), "gsm8k", "pp")
    assert row["verdict"] == "contradicted" and "own bound, before Holm" in row["note"]


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
    other = registered.replace("alpha: 0.05", "alpha: 0.1")
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
        assert test.estimate < test.bound < test.high


def test_sentence_can_be_quoted(tmp_path: Path) -> None:
    row: dict[str, object] = {**pick(run(tmp_path, grid(sizes={"gsm8k": 40})), "mean", "pp")}
    row |= {k: float(str(v)) for k, v in row.items() if k.startswith(("effect", "diff", "mde"))}
    assert "tiny" in h3a.sentence(row) and "inf" not in h3a.sentence(row)


def test_a_supported_contrast_of_two_losses_says_so(tmp_path: Path) -> None:
    table = grid(sizes={"gsm8k": 200}, gain=(-0.4, -0.1))
    row = pick(run(tmp_path, table), "gsm8k", "pp")
    assert row["verdict"] == "supported"
    assert float(row["effect_large"]) < 0
    assert "not a larger gain" in row["note"]
    gained = pick(run(tmp_path, grid(sizes={"gsm8k": 200}, gain=(0.0, 0.3))), "gsm8k", "pp")
    assert gained["verdict"] == "supported"
    assert "not a larger gain" not in gained["note"]


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
