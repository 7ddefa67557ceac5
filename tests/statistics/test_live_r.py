"""The tables of a study against R itself, where R with car, lme4 and emmeans is installed.

Debian: apt-get install r-base-core r-cran-car r-cran-lme4 r-cran-emmeans. `test_against_r.py` has
R's values of other data, and needs no R.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.statistics.grids import grid, read
from tests.statistics.test_tables import aggregate, write_runs
from zpdbench.statistics import h3a, h3a_sensitivity, rq1

SCRIPT = Path(__file__).parent / "fixtures" / "live.R"
CONFIG = """\
seeds: [0, 1, 2, 3, 4, 5]
models: {tiny: {}, big: {}}
conditions: {random: {}, easy: {}, hard: {}, zpd: {}}
benchmarks: {gsm8k: {}}
hypotheses: {h3a: {small: tiny, large: big}}
"""
NEAR = 1e-7


def _has_r() -> bool:
    if not shutil.which("Rscript"):
        return False
    needed = 'quit(status = !all(sapply(c("car", "lme4", "emmeans"), requireNamespace)))'
    return subprocess.run(["Rscript", "-e", needed], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_r_makes_the_same_of_it(tmp_path: Path, seed: int) -> None:
    if not _has_r():
        pytest.skip("no R with car, lme4 and emmeans here")
    table = grid(
        seed=seed, n_seeds=6, conditions=("random", "easy", "hard", "zpd"), sizes={"gsm8k": 120}
    )
    (tmp_path / "study.yaml").write_text(CONFIG, "utf-8")
    paths = write_runs(tmp_path, table)
    aggregate(tmp_path, paths)
    arguments = {"study": str(tmp_path / "study.yaml"), "interim": False}
    rows = {}
    for name, module, scores in (
        ("h3a", h3a, paths),
        ("sensitivity", h3a_sensitivity, paths),
        ("anova", rq1, str(tmp_path / "scores.tsv")),
    ):
        out = tmp_path / f"{name}.tsv"
        module.main(argparse.Namespace(**arguments, scores=scores, out=out))  # type: ignore[attr-defined]
        rows[name] = read(out)
    lines = ["model\tcondition\tseed\tscore"]
    for r in read(tmp_path / "scores.tsv"):
        kind = (r["task"], r["items"], r["metric"])
        if kind == ("all", "full", "exact_match_strict") and r["condition"] != "base":
            value = 100 * float(r["value"])
            lines.append(f"{r['model']}\t{r['condition']}\t{r['seed']}\t{value!r}")
    lines[1:] = sorted(lines[1:], key=lambda line: line.startswith("big"))
    (tmp_path / "final.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    files = [str(tmp_path / "final.tsv"), str(tmp_path / "r.tsv")]
    subprocess.run(["Rscript", str(SCRIPT), *files], check=True, capture_output=True)
    text = (tmp_path / "r.tsv").read_text("utf-8").splitlines()
    want = {name: float(value) for name, value in (line.split("\t") for line in text)}

    primary = next(r for r in rows["h3a"] if (r["benchmark"], r["scale"]) == ("mean", "pp"))
    got = {
        c: float(primary[c])
        for c in (
            "p_difference", "p_gain", "difference_low", "difference_high", "gain_low",
            "gain_high", "bound", "bound_gain",
        )
    }  # fmt: skip
    got["t_difference"] = float(primary["statistic"])
    got["aov_f"] = float(primary["statistic"]) ** 2
    got["emmeans_difference"] = got["lmer_difference"] = float(primary["difference"])
    by_method = {r["method"]: r for r in rows["sensitivity"]
                 if (r["benchmark"], r["scale"]) == ("mean", "pp")}  # fmt: skip
    got["welch_p"] = float(by_method[h3a_sensitivity.WELCH]["p_value"])
    got["ols_t"] = float(by_method["pooled OLS score ~ model * condition"]["statistic"])
    judged = [
        r for r in rows["anova"]
        if (r["benchmark"], r["test"], r["design"], r["term"])
        == ("mean", "one-way ANOVA", "seeds as blocks", "condition")
    ]  # fmt: skip
    for i, r in enumerate(judged, 1):
        got |= {
            f"f_{i}": float(r["statistic"]), f"epsilon_{i}": float(r["epsilon"]),
            f"p_gg_{i}": float(r["p_corrected"]),
        }  # fmt: skip
    got["holm_gg"] = float(judged[0]["p_holm"])
    del want["t_gain"]
    assert set(got) == set(want)
    for name, value in got.items():
        assert value == pytest.approx(want[name], rel=NEAR, abs=1e-12), name
