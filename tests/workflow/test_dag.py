"""The DAG as Snakemake sees it, by dry runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from zpdbench import plan, study

SNAKEMAKE = [str(Path(sys.executable).parent / "snakemake")]


def dry_run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SNAKEMAKE, "--dry-run", "--nolock", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


def job_counts(text: str) -> dict[str, int]:
    table = text.split("Job stats:")[-1]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


@pytest.mark.parametrize(
    "name", ["mini", "micro", "smol", "real", "r4", "ladder", "laptop", "ablations"]
)
def test_plan_counts_the_jobs_that_would_run(root: Path, tmp_path: Path, name: str) -> None:
    config = root / f"config/{name}.yaml"
    overrides = ["--config", f"results={tmp_path}"]
    result = dry_run(root, "all", "--configfile", str(config), *overrides)
    assert result.returncode == 0, result.stderr
    expected = plan.make_plan(study.load(config)).jobs
    counts = job_counts(result.stdout + result.stderr)
    assert counts.pop("total") == sum(expected.values())
    assert counts == expected


def test_a_study_of_one_model_asks_for_what_it_can_answer(root: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((root / "config/micro.yaml").read_text("utf-8"))
    del config["models"]["mini-solar"], config["benchmarks"]["humaneval"]
    config |= {"hypotheses": {}, "results": str(tmp_path)}
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    result = dry_run(root, "all", "--configfile", str(path))
    assert result.returncode == 0, result.stderr
    counts = job_counts(result.stdout + result.stderr)
    assert not {"h3a", "h3a_sensitivity", "power", "expected"} & set(counts)
    assert counts["h3b"] == counts["r1"] == counts["report"] == 1
    assert counts.pop("total") == sum(counts.values())
    assert counts == plan.make_plan(study.load(path)).jobs


def test_the_simulations_are_a_target_of_their_own(root: Path, tmp_path: Path) -> None:
    target = f"{tmp_path}/validation.tsv"
    overrides = [f"results={tmp_path}", "replicates=300"]
    result = dry_run(root, target, "--printshellcmds", "--config", *overrides)
    assert result.returncode == 0, result.stderr
    assert job_counts(result.stdout + result.stderr) == {"validate_statistics": 1, "total": 1}
    assert f"--replicates 300 --out {target}" in result.stdout


def test_the_r4_study_is_derived_from_its_verdict(root: Path, tmp_path: Path) -> None:
    config = root / "config/r4.yaml"
    result = dry_run(
        root,
        f"{tmp_path}/h3a.tsv",
        *("--configfile", str(config), "--config", f"results={tmp_path}"),
    )
    assert result.returncode == 0, result.stderr
    expected = plan.make_plan(study.load(config)).jobs
    needed = ("make_checkpoint", "make_items", "make_corpus", "train_adapter", "generate_chunk")
    wanted = {rule: expected[rule] for rule in (*needed, "score_run", "h3a")}
    counts = job_counts(result.stdout + result.stderr)
    assert counts.pop("total") == sum(wanted.values())
    assert counts == wanted
    assert wanted["train_adapter"] == 40 and wanted["generate_chunk"] == 42
    # Every part of the study is another's than the default's.
    assert "mini-qwen" not in result.stdout


def test_another_study_has_nothing_of_the_default(root: Path, tmp_path: Path) -> None:
    config = root / "config/smol.yaml"
    result = dry_run(root, "all", "--configfile", str(config), "--config", f"results={tmp_path}")
    lock = study.load(tmp_path / "study.lock.yaml")
    assert list(lock.models) == sorted(study.load(config).models)
    assert "mini-qwen" not in result.stdout


def test_a_mistake_is_one_line_and_exit_code_2(root: Path, tmp_path: Path) -> None:
    result = dry_run(root, "all", "--config", f"results={tmp_path}", "seeds=[]")
    assert result.returncode == 2
    assert "configuration: --config: seeds" in result.stderr
    assert "Traceback" not in result.stderr


def test_results_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    result = dry_run(root, "all", "--config", f"results={blocked}/below")
    assert result.returncode == 2
    assert "set results: to a folder of yours" in result.stderr


def test_a_dry_run_reads_well(root: Path, tmp_path: Path) -> None:
    result = dry_run(root, "all", "--config", f"results={tmp_path}")
    text = result.stdout + result.stderr
    assert "Fine-tune mini-solar: zpd, seed 4" in text
    assert "Answers of mini-qwen, chunk all" in text


@pytest.mark.slow
def test_a_hundred_thousand_cells_are_planned_in_a_minute(root: Path, tmp_path: Path) -> None:
    # A process of its own: the largest child of this one is another test's, say a served model.
    command = [sys.executable, "benchmarks/large_dag.py", "--folder", tmp_path]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert found["cells"] >= 100_000
    # Of the processor: the clock's depends on what else this machine does.
    assert found["processor_seconds"] < 60
    assert found["memory_mb"] < 4000
