"""Paths that a shell would read otherwise: quoted in every rule, and used or refused as a whole."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.micro import SNAKEMAKE
from zpdbench import cli


def run(root: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [SNAKEMAKE, "--snakefile", str(root / "Snakefile"), "--directory", str(folder)]
    command += ["--cores", "1", *arguments]
    environment = {**os.environ, "ZPDBENCH_CACHE": str(folder / "cache")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_no_rule_leaves_a_path_unquoted(root: Path) -> None:
    for file in sorted((root / "rules").glob("*.smk")):
        for shell in re.findall(r"\n +shell:\n((?: +\".*\"\n)+)", file.read_text("utf-8")):
            used = re.findall(r"\{((?:input|output|log|params)[^}]*)\}", shell)
            assert used or "{" not in shell
            for name in used:
                # Quoted where they are put together.
                assert name.endswith(":q") or name in ("params.tables", "params.asked"), (
                    file,
                    name,
                )


def test_every_command_gets_its_paths_whole(root: Path, tmp_path: Path) -> None:
    """Each verb's own parser reads what a shell would make of its rule's command."""
    results = "my results; (1)"
    config = write(root, tmp_path, results)
    done = run(
        root,
        tmp_path,
        *("all", f"{results}/crate.zip", f"{results}/verification.tsv"),
        *("--dry-run", "--printshellcmds", "--configfile", str(config)),
    )
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^(?:Shell command: |\s*)(zpdbench .*)$", done.stdout, re.M)
    parser, verbs = cli.build_parser(), set()
    for line in lines:
        words = shlex.split(line)
        end = words.index("&>") if "&>" in words else words.index("2>&1")
        args = parser.parse_args(words[1:end])
        verbs.add(args.verb)
        for value in vars(args).values():
            for word in value if isinstance(value, list) else [value]:
                # A path below results is one below it still, and no word is a piece of one.
                assert (
                    not isinstance(word, str)
                    or word.startswith(f"{results}/")
                    or (not set(word) & set(" ;()") and ("/" not in word or word == args.workflow))
                ), (line, word)
    assert verbs > {"make-checkpoint", "train-adapter", "generate-chunk", "score-run", "report"}
    assert verbs > {"draw-figures", "draw-training", "h3a", "expected", "make-crate"}


@pytest.mark.parametrize("results", ["my results/", "./a;touch X & (b) #c/d"])
def test_an_odd_folder_of_results_works(root: Path, tmp_path: Path, results: str) -> None:
    place = tmp_path / results
    config = write(root, tmp_path, results)
    given = f"{results.removeprefix('./').rstrip('/')}/items/mmlu.parquet"
    done = run(root, tmp_path, given, "--configfile", str(config))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (place / "items/mmlu.parquet").is_file()
    assert (place / "records/items/mmlu.parquet.json").is_file()
    assert (place / "logs/make_items/mmlu.log").is_file()
    expected = {place.relative_to(tmp_path).parts[0], "study.yaml", ".snakemake", "cache"}
    assert {p.name for p in tmp_path.iterdir()} == expected


@pytest.mark.parametrize("results", ["$(touch X)", "it's", "a\nb", "-x", "{a}"])
def test_what_cannot_work_is_one_line(root: Path, tmp_path: Path, results: str) -> None:
    config = write(root, tmp_path, results)
    done = run(root, tmp_path, "all", "--configfile", str(config))
    assert done.returncode == 2
    said = [x for x in done.stderr.splitlines() if x.startswith("configuration: ")]
    assert len(said) == 1 and f"{config}:1: results: " in said[0]
    assert "Traceback" not in done.stderr
    assert {p.name for p in tmp_path.iterdir()} <= {"study.yaml", ".snakemake"}


def test_a_file_s_name_that_snakemake_reads_otherwise(root: Path, tmp_path: Path) -> None:
    """It comes from the disk, not from the configuration."""
    config = write(root, tmp_path, "results")
    study = yaml.safe_load(config.read_text("utf-8"))
    model = tmp_path / "model"
    model.mkdir()
    study["models"]["mini-qwen"] = {"source": "local", "path": str(model), "parameters": 1000000}
    config.write_text(yaml.safe_dump(study), "utf-8")
    (model / "notes{1}.txt").write_text("")
    done = run(root, tmp_path, "all", "--configfile", str(config), "--dry-run")
    assert done.returncode == 2, done.stderr
    assert re.search(r"^configuration: .*notes\{1\}\.txt", done.stderr, re.M)


def write(root: Path, folder: Path, results: str) -> Path:
    """The micro study with another folder of results, named in its first line."""
    text = (root / "config/micro.yaml").read_text("utf-8")
    kept = [line for line in text.splitlines() if not line.startswith("results:")]
    config = folder / "study.yaml"
    # JSON's strings are YAML's.
    config.write_text("\n".join([f"results: {json.dumps(results)}", *kept]) + "\n", "utf-8")
    return config
