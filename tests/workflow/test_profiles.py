"""What can be known of profiles and clusters without a cluster: few jobs, requests, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.test_dag import dry_run, job_counts
from zpdbench import cluster, plan, study
from zpdbench.errors import UserError

# Prints the rules that a cluster's executor would run here, as Snakemake itself knows them.
LOCALITY = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings
root, config, results = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
with SnakemakeApi(OutputSettings(dryrun=True)) as api:
    settings = ConfigSettings(configfiles=[config], config={"results": results})
    made = api.workflow(ResourceSettings(cores=1), config_settings=settings,
                        snakefile=root / "Snakefile", workdir=root)
    rules = made._workflow.rules
    print(json.dumps({rule.name: rule.name in made._workflow._localrules for rule in rules}))
"""


@pytest.mark.parametrize("name", ["ablations", "ladder"])
def test_only_what_takes_long_is_submitted(root: Path, tmp_path: Path, name: str) -> None:
    config = root / f"config/{name}.yaml"
    command = [sys.executable, "-c", LOCALITY, str(root), str(config), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "not present" not in done.stderr
    local = json.loads(done.stdout.splitlines()[-1])
    submitted = {rule for rule, here in local.items() if not here}
    assert submitted == {
        "make_checkpoint",
        "make_corpus",
        "train_adapter",
        "generate_chunk",
        "score_run",
    }
    jobs = plan.make_plan(study.load(root / "config/mini.yaml")).jobs
    assert sum(jobs[rule] for rule in submitted) <= 100


# What a profile names and this machine may not have: a cluster, a store, Apptainer.
HERE: dict[str, list[str]] = {
    "default": [],
    "server": [],
    "apptainer": ["--cores=2"],
    "slurm": ["--executor=local", "--cores=2"],
    "kubernetes": ["--executor=local", "--cores=2", "--default-storage-provider=none"],
}


def test_no_profile_is_left_out(root: Path) -> None:
    assert set(HERE) == {folder.name for folder in (root / "profiles").iterdir()}


@pytest.mark.parametrize("name", sorted(HERE))
def test_every_profile_dry_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # A dry run starts no container, but asks what `apptainer` is.
    program = tmp_path / "bin/apptainer"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho apptainer version 1.4.5\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    result = dry_run(
        root,
        "all",
        "--workflow-profile",
        str(root / f"profiles/{name}"),
        *HERE[name],
        "--configfile",
        str(root / "config/micro.yaml"),
        "--config",
        f"results={tmp_path}",
    )
    assert result.returncode == 0, result.stderr
    assert job_counts(result.stdout + result.stderr)["train_adapter"] == 8


def test_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sbatch on PATH"):
        cluster.check([cluster.Request("train_adapter")])
