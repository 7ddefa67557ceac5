"""The R4 study itself, end to end: config/r4.yaml with models, steps and item counts made small.

Models, instruction data and benchmarks come as R4's do, as repositories of the hub at pinned
commits, checked by hash; here out of a folder (hub.folder). The benchmarks are the authors' own
items, with R4's shots, seeds, lengths, pool, probe and preparation. OVERRIDDEN is all that is said
over r4.yaml, and a test holds it to that; docs/r4.md says why each has to be.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.micro import SNAKEMAKE
from zpdbench import embedded, files, revisions, study
from zpdbench.benchmarks import load, loaders
from zpdbench.checkpoints import make_checkpoint
from zpdbench.revisions import Pin
from zpdbench.statistics.verdicts import VERDICTS

pytestmark = pytest.mark.slow

COMMIT = "00000000000000000000000000000000000000a4"
SMALL, LARGE = "qwen2.5-7b", "solar-10.7b"
REPOS = {SMALL: "here/small", LARGE: "here/large"}
DATA = {"openorca_ko": ("here/orca-ko", "ko"), "alpaca": ("here/alpaca", "en")}
COLUMNS = {
    "openorca_ko": ("id", "system_prompt", "question", "response"),
    "alpaca": ("id", "input", "instruction", "output"),
}
SUBJECTS = ["abstract_algebra", "conceptual_physics", "management", "world_religions"]
TABLES = (
    "h3a", "anova", "h3b", "r1", "efficiency", "power", "expected", "scores", "curves",
    "h3a_sensitivity", "calibration",
)  # fmt: skip
CONTEXT = 4096


def _models(folder: Path) -> None:
    forms = {
        SMALL: {"architecture": "qwen2", "steps": 30},
        LARGE: {"architecture": "llama", "steps": 20, "upscale": {"drop": 1, "steps": 10}},
    }
    for name, form in forms.items():
        spec = study.EmbeddedModel(source="embedded", layers=4, hidden_size=128, **form)
        target = folder / REPOS[name]
        make_checkpoint.make(name, spec, target)
        for extra in ("MANIFEST.json", "make.timing.json"):
            (target / extra).unlink()
        # R4's context. Beyond what they saw the models answer nonsense, as they do anyway.
        config = json.loads((target / "config.json").read_text("utf-8"))
        config["max_position_embeddings"] = CONTEXT
        (target / "config.json").write_text(json.dumps(config), "utf-8")


def _instructions(folder: Path) -> None:
    rows = embedded.examples(700, 0)
    for name, (repo, language) in DATA.items():
        mine = [r for r in rows if r["language"] == language]
        target = folder / repo / "data/train-00000-of-00001.parquet"
        target.parent.mkdir(parents=True)
        given = zip(
            COLUMNS[name],
            (
                [f"cot.{i}" for i in range(len(mine))],
                ["당신은 도움이 되는 조수입니다." if name == "openorca_ko" else ""] * len(mine),
                [r["prompt"] for r in mine],
                [r["response"] for r in mine],
            ),
            strict=True,
        )
        pl.DataFrame(dict(given)).write_parquet(target)


def _benchmarks(folder: Path, data: Path) -> list[str]:
    """Write the authors' documents as the hub has them; returns the repositories."""
    repos = set()
    for name in ("humaneval", "gsm8k", "mmlu", "kobest"):
        definition = load(name)
        tasks = SUBJECTS if name == "mmlu" else list(definition.tasks)
        splits = ["test"] if definition.fewshot == "none" else ["test", definition.fewshot_split]
        for task in tasks:
            for split in splits:
                repo, pattern = definition.hub_files(task, split)
                path = data / definition.task(task).files[split]
                docs = loaders.load_file(definition, path, task)[task]
                target = folder / repo / pattern.replace("*", "00000-of-00001")
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.suffix == ".parquet":
                    pl.DataFrame(docs).write_parquet(target)
                else:
                    lines = [json.dumps(doc, ensure_ascii=False) for doc in docs]
                    target.write_text("\n".join(lines) + "\n", "utf-8")
                repos.add(repo)
    return sorted(repos)


def make_hub(folder: Path, data: Path) -> revisions.Table:
    """Fill a folder with all repositories and return their pins."""
    _models(folder)
    _instructions(folder)
    benchmarks = _benchmarks(folder, data)

    def pin(repo: str, *patterns: str) -> Pin:
        below = folder / repo
        hashes = files.hash_tree(below)
        listed = {n: (h, (below / n).stat().st_size) for n, h in hashes.items()}
        return Pin(COMMIT, listed, patterns=patterns)

    wanted = {}
    for name in ("humaneval", "gsm8k", "mmlu", "kobest"):
        repo, patterns = load(name).hub_sources(SUBJECTS if name == "mmlu" else None)
        wanted[repo] = patterns
    assert sorted(wanted) == benchmarks
    return {
        "models": {repo: pin(repo) for repo in REPOS.values()},
        "datasets": {
            **{repo: pin(repo, "data/train-*.parquet") for repo, _ in DATA.values()},
            **{repo: pin(repo, *patterns) for repo, patterns in wanted.items()},
        },
    }


def overlay(folder: Path) -> dict[str, object]:
    """What is said over r4.yaml: where models and data are, and how much of everything."""
    return {
        "models": {name: {"repo": repo, "parameters": 1_500_000} for name, repo in REPOS.items()},
        "conditions": {"zpd": {"options": {"update_every": 5}}},
        "corpus": {"sources": {name: {"repo": repo} for name, (repo, _) in DATA.items()}},
        "training": {"steps": 10, "evaluate_every": 5},
        "benchmarks": {
            "humaneval": {"items": 2, "interim_items": 1},
            "gsm8k": {"items": 2, "interim_items": 1},
            "mmlu": {"items": 2, "interim_items": 1, "tasks": SUBJECTS},
            "kobest": {"items": 2, "interim_items": 1},
        },
        "generations": {"kv_cache_gib": 1},
        "hub": {"folder": str(folder)},
    }


# All that differs from r4.yaml; docs/r4.md has the same list and says why.
OVERRIDDEN = {
    *("models.*.repo", "models.*.revision", "models.*.parameters"),
    *("corpus.sources.*.repo", "corpus.sources.*.revision", "hub.folder"),
    *("training.steps", "training.evaluate_every", "conditions.zpd.options.update_every"),
    *("benchmarks.*.items", "benchmarks.*.interim_items", "benchmarks.mmlu.tasks"),
    "generations.kv_cache_gib",
}


def _leaves(value: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """All values of nested dictionaries, by their path."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {k: v for name, part in value.items() for k, v in _leaves(part, (*path, name)).items()}


def _is_named(path: tuple[str, ...], pattern: str) -> bool:
    parts = pattern.split(".")
    return len(path) == len(parts) and all(
        p in ("*", name) for name, p in zip(path, parts, strict=True)
    )


def test_the_miniature_differs_from_r4_in_what_is_named(root: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.yaml"
    small.write_text(yaml.safe_dump(overlay(tmp_path)), "utf-8")
    r4 = _leaves(study.load(root / "config/r4.yaml").model_dump())
    mini = _leaves(study.load(root / "config/r4.yaml", small).model_dump())
    differing = {path for path in r4.keys() | mini.keys() if r4.get(path) != mini.get(path)}
    unnamed = {p for p in differing if not any(_is_named(p, name) for name in OVERRIDDEN)}
    assert not unnamed
    unused = {n for n in OVERRIDDEN if not any(_is_named(p, n) for p in differing)}
    assert not unused
    page = (root / "docs/r4.md").read_text("utf-8")
    assert {name for name in OVERRIDDEN if f"`{name}`" not in page} == set()


def test_r4_in_miniature_runs_to_every_result(root: Path, tmp_path: Path, data_dir: Path) -> None:
    hub = tmp_path / "hub"
    revisions.write(tmp_path / "config" / revisions.NAME, make_hub(hub, data_dir))
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
    for table in TABLES:
        assert (results / f"{table}.tsv").stat().st_size > 100, table
    page = (results / "report.html").read_text("utf-8")
    assert f"{DATA['openorca_ko'][0]}@{COMMIT}" in page and "CC-BY-NC-4.0" in page
    assert {p.stem for p in (results / "items").glob("*.parquet")} == {
        *("humaneval", "gsm8k", "mmlu", "kobest")
    }
    gsm8k = pl.read_parquet(results / "items/gsm8k.parquet")
    assert gsm8k["prompt"][0].count("Question: ") == 6
    for figure in ("curves.svg", "effects.svg"):
        assert (results / "figures" / figure).stat().st_size > 1000
    lines = (results / "h3a.tsv").read_text("utf-8").splitlines()
    header = lines[0].split("\t")
    rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
    assert {(r["model_small"], r["model_large"]) for r in rows} == {(SMALL, LARGE)}
    assert {r["verdict"] for r in rows} <= {*VERDICTS, "NA"}
    assert all(": shortfall, has " in r["note"] for r in rows)
    # The shortfall that r4.yaml chooses stands beside every run.
    said = files.read_manifest(results / f"adapters/{LARGE}/zpd/s1")["notes"]
    assert any(
        re.search(r"openorca_ko: shortfall, has \d+ usable examples, 100000", n) for n in said
    )
    base = files.read_manifest(results / f"checkpoints/{LARGE}")
    assert base["origin"] == f"{REPOS[LARGE]}@{COMMIT}"
