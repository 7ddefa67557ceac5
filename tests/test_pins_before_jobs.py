"""What is not pinned is named in a dry run and refused before the first job."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zpdbench import preflight, study
from zpdbench.errors import UserError

SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")


def test_a_dry_run_names_what_is_not_pinned(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preflight.check_names(study.load(root / "config/r4.yaml"))
    said = capsys.readouterr().err
    for name in ("qwen2.5-7b", "solar-10.7b"):
        assert f"note: {name}: the model's files are not pinned yet" in said
    preflight.check_names(study.load(root / "config/mini.yaml"))
    assert capsys.readouterr().err == ""


def test_snakemake_s_dry_run_names_what_is_not_pinned(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "r4.yaml"
    shutil.copyfile(root / "config/r4.yaml", config)  # without the table of revisions
    done = subprocess.run(
        [
            *(SNAKEMAKE, "--snakefile", str(root / "Snakefile"), "--directory", str(tmp_path)),
            *("results/h3a.tsv", "-n", "--configfile", str(config), "--config", "results=results"),
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    for name in ("qwen2.5-7b", "solar-10.7b"):
        assert f"note: {name}: the model's files are not pinned yet" in said
    assert re.search(r"^total +\d+$", said, re.M)


def test_jobs_do_not_start(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "r4.yaml"
    shutil.copyfile(root / "config/r4.yaml", config)  # without the table of revisions
    with pytest.raises(UserError, match=r"no revision is pinned \(`zpdbench pin"):
        preflight.check_machine(study.load(config))
    done = subprocess.run(
        [
            *(SNAKEMAKE, "--snakefile", str(root / "Snakefile"), "--directory", str(tmp_path)),
            *("--cores", "1", "all", "--configfile", str(config), "--config", "results=results"),
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "no revision is pinned" in done.stdout + done.stderr
    assert not (tmp_path / "results/items").exists()
