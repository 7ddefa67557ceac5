"""The whole chain, for real: what comes out, what is kept, what a kill costs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.micro import Workspace
from tests.micro import content as micro_content
from zpdbench import files, study
from zpdbench.statistics.verdicts import VERDICTS

pytestmark = pytest.mark.slow

TABLES = {"aggregate_scores", "h3a", *study.TABLES, "h3a_sensitivity", "calibration"}
STATISTICS = {*TABLES, "draw_figures", "draw_training", "report", "all"}


NO_AVX512 = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD"
COLUMNS = re.split(
    r"\s+",
    """hypothesis benchmark scale model_small model_large n_seeds effect_small effect_small_low
    effect_small_high effect_large effect_large_low effect_large_high difference difference_low
    difference_high statistic df p_value p_holm mde_80 power_claimed verdict note""",
)


def content(workspace: Workspace) -> dict[str, str]:
    """All that must not depend on when or how often it was made, on one machine."""
    report = files.sha256_file(workspace.results / "report.html")
    return {**micro_content(workspace), "report.html": report}


def rules_run(output: str) -> dict[str, int]:
    table = output.split("Job stats:")[-1]
    counts = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}
    counts.pop("total", None)
    return counts


def test_every_result_is_there(micro: Workspace) -> None:
    loaded = study.load(micro.results / "study.lock.yaml")
    lines = (micro.results / "h3a.tsv").read_text("utf-8").splitlines()
    header = lines[0].split("\t")
    assert header[:23] == COLUMNS
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    assert len(rows) == (len(loaded.benchmarks) + 1) * 3
    assert {r["benchmark"] for r in rows} == {*loaded.benchmarks, "mean"}
    assert {r["scale"] for r in rows} == {"pp", "logit", "hedges_g"}
    judged = {(r["benchmark"], r["scale"]): r["verdict"] for r in rows}
    assert judged.pop(("mean", "pp")) in VERDICTS
    assert set(judged.values()) == {"NA"}
    assert not re.search(r"\b(inf|nan)\b", "\n".join(lines[1:]), re.I)
    for name in ("curves", "effects", "power"):
        for kind in ("svg", "png"):
            assert (micro.results / "figures" / f"{name}.{kind}").stat().st_size > 1000
    page = (micro.results / "report.html").read_text("utf-8")
    assert page.startswith("<!doctype html>") and 'id="explorer"' in page


def test_a_second_run_has_nothing_to_do(micro: Workspace) -> None:
    assert "Nothing to be done" in micro.run("all")


def test_snakemake_makes_its_own_report(micro: Workspace) -> None:
    """Of what is there, with captions: no job runs."""
    micro.run("all", "--report", "study.html")
    page = (micro.folder / "study.html").read_text("utf-8")
    for said in ("h3a.tsv", "curves.svg", "report.html", "Tables"):
        assert said in page
    assert "the primary endpoint, which alone has a verdict" in page  # captions/h3a.rst
    (micro.folder / "study.html").unlink()


def test_a_deleted_score_costs_no_training_and_no_engine(micro: Workspace) -> None:
    before = content(micro)
    scores = sorted(micro.results.glob("scores/*/zpd/s0.parquet"))[0]
    scores.unlink()
    ran = rules_run(micro.run("all"))
    # The figures of the training have nothing to do with scores.
    assert set(ran) == {"score_run", *STATISTICS} - {"draw_training"}
    assert ran["score_run"] == 1
    assert content(micro) == before


@pytest.mark.parametrize(
    ("override", "runs", "keeps"),
    [
        (
            "training={learning_rate: 1.0e-4}",
            {"train_adapter", "generate_chunk", "score_run"},
            {"make_checkpoint", "make_corpus", "make_items"},
        ),
        (
            "benchmarks={gsm8k: {items: 5}}",
            {"make_items", "generate_chunk", "score_run"},
            {"make_checkpoint", "make_corpus", "train_adapter"},
        ),
        # Both at once: what is made anew must not hide another change further on.
        (
            "benchmarks={gsm8k: {items: 5}} training={learning_rate: 1.0e-4}",
            {"make_items", "train_adapter", "generate_chunk", "score_run"},
            {"make_checkpoint", "make_corpus"},
        ),
        (
            "hypotheses={h3a: {alpha: 0.01}}",
            {"h3a"},
            {"make_checkpoint", "train_adapter", "generate_chunk", "score_run"},
        ),
    ],
)
def test_a_change_re_runs_just_what_depends_on_it(
    micro: Workspace, override: str, runs: set[str], keeps: set[str]
) -> None:
    changed = micro.copy("changed")
    try:
        changed.overrides += re.split(r" (?=\w+=)", override)
        ran = rules_run(changed.run("--dry-run", "all"))
    finally:
        _remove(changed)
    assert runs <= set(ran)
    assert not keeps & set(ran)
    if "make_items" in runs:
        assert ran["make_items"] == 1


def test_one_seed_more_makes_only_that(micro: Workspace) -> None:
    loaded = study.load(micro.config)
    more = micro.copy("more")
    try:
        before = {k: v for k, v in content(more).items() if k.startswith(("adapters/", "check"))}
        more.overrides.append(f"seeds=[{','.join(map(str, [*loaded.seeds, 7]))}]")
        ran = rules_run(more.run("all"))
        assert ran["train_adapter"] == len(loaded.models) * len(loaded.conditions)
        assert "make_checkpoint" not in ran
        after = content(more)
        assert before.items() <= after.items()
        # A seed is a run a condition, each with its evaluation points and benchmarks.
        points = loaded.training.steps // loaded.training.evaluate_every
        new = len(loaded.conditions) * points * len(loaded.benchmarks)
        logs = sorted(more.results.glob("logs/generate_chunk/*/*.log"))
        assert len(logs) == len(loaded.models)
        for log in logs:
            said = re.search(r"(\d+) found in the cache, (\d+) to answer", log.read_text("utf-8"))
            assert said, log
            assert int(said[2]) == new and int(said[1]) >= new * len(loaded.seeds), log
    finally:
        _remove(more)


def test_a_clean_run_gives_the_same_bytes_on_a_processor_without_avx512(micro: Workspace) -> None:
    """The second is oneMKL's and the C library's emulation of one; the rest is capped anyway."""
    emulation = {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "GLIBC_TUNABLES": NO_AVX512}
    again = Workspace(micro.folder.parent / "again", micro.root, micro.config, env=emulation)
    again.folder.mkdir()
    try:
        again.run("all")
        assert content(again) == content(micro)
    finally:
        _remove(again)


def test_kill_9_in_training_and_in_generation_costs_only_time(micro: Workspace) -> None:
    killed = Workspace(micro.folder.parent / "killed", micro.root, micro.config)
    killed.folder.mkdir()
    cache = killed.folder / ".cache/zpdbench"
    try:
        # In the middle of a run: its first resumable state is on disk, its folder is not.
        killed.kill_when(lambda: any(cache.glob("training/**/*")), "all")
        assert not (killed.results / "h3a.tsv").exists()
        # In the middle of a chunk: its first cell is in the cache, its file is not there.
        killed.kill_when(lambda: any(cache.glob("cells/**/*.parquet")), "all")
        assert len(list(killed.results.glob("generations/*/*.parquet"))) < len(
            list(micro.results.glob("generations/*/*.parquet"))
        )
        killed.run("all")
        assert content(killed) == content(micro)
    finally:
        _remove(killed)


def _remove(workspace: Workspace) -> None:
    import shutil

    assert Path(workspace.folder).name != "first"
    shutil.rmtree(workspace.folder)
