"""The real micro run as a reviewer gets it: verified on all levels, forged, verified again."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

from tests.artifacts import tampering
from tests.micro import Workspace
from zpdbench import files
from zpdbench.artifacts import manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def crate(micro: Workspace) -> Path:
    """The bundle, made by the workflow."""
    micro.run("make_crate")
    return micro.results / "crate.zip"


@pytest.fixture(scope="module")
def clone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a reviewer has it: a fresh clone of what is committed, nothing built in it."""
    if not (root / ".git").exists():
        pytest.skip("no repository to clone: these sources were unpacked from an archive")
    target = tmp_path_factory.mktemp("clone") / "zpdbench"
    subprocess.run(["git", "clone", "--quiet", str(root), str(target)], check=True)
    return target


def verify(
    bundle: Path, clone: Path, out: Path, *extra: str, python: Path | None = None
) -> tuple[int, list[dict[str, str]]]:
    """Exit code and rows of a verification by another process, in another folder."""
    command = [str(python or sys.executable), "-m", "zpdbench.cli", "verify", str(bundle)]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(out.parent),
        "PYTHONPATH": str(clone / "src"),
    }
    done = subprocess.run(
        [*command, "--out", str(out), *extra],
        env=environment,
        cwd=out.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.is_file(), done.stderr
    lines = [line.split("\t") for line in out.read_text("utf-8").splitlines()]
    return done.returncode, [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def differing(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if row["verdict"] == "differs"]


def test_bundle_twice_from_one_run(micro: Workspace, crate: Path) -> None:
    first = crate.read_bytes()
    crate.unlink()
    micro.run("make_crate")
    assert crate.read_bytes() == first


def test_all_levels_hold(crate: Path, clone: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(crate) as archive:
        digest = manifest.digest(archive.read(manifest.NAME))
    extra = ["--level", "4", "--minutes", "6", "--seed", "5", "--digest", digest]
    code, rows = verify(crate, clone, tmp_path / "v.tsv", *extra)
    assert not differing(rows)
    assert code == 0
    reproduced = {row["level"] for row in rows if row["verdict"] == "reproduced"}
    assert reproduced == {"0", "1", "2", "3", "4"}
    assert any("bit for bit" in row["why"] for row in rows if row["level"] == "4")


def test_the_workflow_verifies_too(micro: Workspace, crate: Path) -> None:
    micro.overrides += [f"bundle={crate}", "level=1"]
    try:
        output = micro.run("verify")
    finally:
        del micro.overrides[-2:]
    assert "level 1: " in output
    assert (micro.results / "verification.tsv").is_file()


def test_levels_0_to_2_in_a_fresh_environment_of_one_lock(
    crate: Path, clone: Path, tmp_path: Path
) -> None:
    """The statistics' lock alone, as its image has it: no torch, no engine, sandbox included."""
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    lock = str(clone / "envs/stats.txt")
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run([*command, "-r", lock], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode
    code, rows = verify(crate, clone, tmp_path / "v.tsv", "--level", "2", python=python)
    assert not differing(rows) and code == 0
    assert {row["level"] for row in rows if row["verdict"] == "reproduced"} == {"0", "1", "2"}


@pytest.fixture
def folder(crate: Path, tmp_path: Path) -> Path:
    """The unpacked bundle, to be forged."""
    target = tmp_path / "bundle"
    with zipfile.ZipFile(crate) as archive:
        archive.extractall(target)
    return target


def test_exchanged_adapters_are_found_by_level_3(folder: Path, clone: Path, tmp_path: Path) -> None:
    """Answers are said to come from the other condition's weights, consistently all through."""
    for one in sorted(folder.glob("adapters/*/random/*")):
        other = folder / f"adapters/{one.parent.parent.name}/zpd/{one.name}"
        spare = tmp_path / "spare"
        one.rename(spare)
        other.rename(one)
        spare.rename(other)
    for answers in sorted(folder.glob("generations/*/*.parquet")):
        frame = pl.read_parquet(answers)
        rows = []
        for row in frame.iter_rows(named=True):
            if row["adapter"]:
                where = folder / "adapters" / row["model"] / row["condition"]
                row["adapter"] = _digest(where / f"s{row['seed']}/step{row['step']}")
            rows.append(row)
        pl.DataFrame(rows, schema=frame.schema).write_parquet(answers, compression="zstd")
    tampering.recompute(folder)
    tampering.forge(folder)
    code, rows_ = verify(folder, clone, tmp_path / "v.tsv", "--level", "2")
    assert code == 0 and not differing(rows_)
    extra = ["--level", "3", "--minutes", "15", "--seed", "1"]
    code, rows_ = verify(folder, clone, tmp_path / "v.tsv", *extra)
    assert code == 1
    assert {row["level"] for row in differing(rows_)} == {"3"}


def _digest(folder: Path) -> str:
    """What answers call an adapter."""
    names = ("adapter_config.json", "adapter_model.safetensors")
    return files.digest({n: files.sha256_file(folder / n) for n in names})


def test_another_learning_rate_is_found_by_level_4(
    folder: Path, clone: Path, tmp_path: Path
) -> None:
    tampering._config(folder, lambda value: value["training"].update(learning_rate=1e-6))
    tampering.recompute(folder)
    tampering.forge(folder)
    code, rows = verify(folder, clone, tmp_path / "v.tsv", "--level", "2")
    assert code == 0 and not differing(rows)
    extra = ["--level", "4", "--minutes", "15", "--seed", "1"]
    code, rows = verify(folder, clone, tmp_path / "v.tsv", *extra)
    assert code == 1
    assert {row["level"] for row in differing(rows)} == {"4"}
