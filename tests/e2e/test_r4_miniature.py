"""The R4 study itself, end to end: config/r4.yaml with models, steps and item counts made small.

Its models and data come as R4's do, as repositories of the hub at pinned commits, checked by hash;
here out of a folder (hub.folder) that holds two models of a million parameters and two data sets.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.micro import SNAKEMAKE
from zpdbench import embedded, files, revisions, study
from zpdbench.checkpoints import make_checkpoint
from zpdbench.revisions import Pin

pytestmark = pytest.mark.slow

COMMIT = "00000000000000000000000000000000000000a4"
SMALL, LARGE = "qwen2.5-7b", "solar-10.7b"
REPOS = {SMALL: "here/small", LARGE: "here/large"}
DATA = {"openorca_ko": ("here/orca-ko", "ko"), "alpaca": ("here/alpaca", "en")}


def make_hub(folder: Path) -> revisions.Table:
    """Fill a folder with the four repositories and return their pins."""
    forms = {
        SMALL: {"architecture": "qwen2", "steps": 30},
        LARGE: {"architecture": "llama", "steps": 20, "upscale": {"drop": 1, "steps": 10}},
    }
    for name, form in forms.items():
        spec = study.EmbeddedModel(source="embedded", layers=4, hidden_size=128, **form)
        make_checkpoint.make(name, spec, folder / REPOS[name])
        for extra in ("MANIFEST.json", "make.timing.json"):
            (folder / REPOS[name] / extra).unlink()
    rows = embedded.examples(700, 0)
    for repo, language in DATA.values():
        mine = [r for r in rows if r["language"] == language]
        target = folder / repo / "data/train-00000.parquet"
        target.parent.mkdir(parents=True)
        pl.DataFrame(
            {
                "instruction": [r["prompt"] for r in mine],
                "input": [""] * len(mine),
                "output": [r["response"] for r in mine],
            }
        ).write_parquet(target)

    def pin(repo: str) -> Pin:
        below = folder / repo
        hashes = files.hash_tree(below)
        return Pin(COMMIT, {n: (h, (below / n).stat().st_size) for n, h in hashes.items()})

    return {
        "models": {repo: pin(repo) for repo in REPOS.values()},
        "datasets": {repo: pin(repo) for repo, _ in DATA.values()},
    }


def overlay(folder: Path) -> dict[str, object]:
    """What is said over r4.yaml: where models and data are, and how much of everything."""
    asked = {"source": "embedded", "items": 8, "interim_items": 4, "items_per": "benchmark"}
    zero = {**asked, "num_fewshot": 0}
    return {
        "seeds": [0, 1],
        "models": {name: {"repo": repo, "parameters": 1_500_000} for name, repo in REPOS.items()},
        "conditions": {"zpd": {"options": {"update_every": 5, "pool_size": 32}}},
        "corpus": {
            "sources": {name: {"repo": repo} for name, (repo, _) in DATA.items()},
            "probe": 16,
        },
        "training": {"steps": 10, "evaluate_every": 5, "max_tokens": 192},
        "benchmarks": {
            "humaneval": {**asked, "max_tokens": 32},
            "gsm8k": {**zero, "max_tokens": 32},
            "mmlu": zero,
            "kobest": zero,
        },
        "generations": {"max_model_len": 384, "kv_cache_gib": 1, "apply_chat_template": True},
        "hub": {"folder": str(folder)},
    }


def test_r4_in_miniature_runs_to_every_result(root: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    revisions.write(tmp_path / "config" / revisions.NAME, make_hub(hub))
    small = tmp_path / "config/r4-miniature.yaml"
    small.write_text(yaml.safe_dump(overlay(hub)), "utf-8")
    command = [
        *(SNAKEMAKE, "--snakefile", str(root / "Snakefile"), "--directory", str(tmp_path)),
        *("--cores", "2", "all", "--configfile", str(root / "config/r4.yaml"), str(small)),
        *("--config", "results=results"),
    ]
    environment = {**os.environ, "ZPDBENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    results = tmp_path / "results"
    for table in ("h3a", "anova", "h3b", "r1", "efficiency", "power", "expected", "scores"):
        assert (results / f"{table}.tsv").stat().st_size > 100, table
    for figure in ("curves.svg", "effects.svg"):
        assert (results / "figures" / figure).stat().st_size > 1000
    lines = (results / "h3a.tsv").read_text("utf-8").splitlines()
    header = lines[0].split("\t")
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    assert {(r["model_small"], r["model_large"]) for r in rows} == {(SMALL, LARGE)}
    assert {r["verdict"] for r in rows} <= {"supported", "contradicted", "inconclusive"}
    # The shortfall that r4.yaml chooses stands beside every run.
    said = files.read_manifest(results / f"adapters/{LARGE}/zpd/s1")["notes"]
    assert any(
        re.search(r"openorca_ko: shortfall, has \d+ usable examples, 100000", n) for n in said
    )
    base = files.read_manifest(results / f"checkpoints/{LARGE}")
    assert base["origin"] == f"{REPOS[LARGE]}@{COMMIT}"
