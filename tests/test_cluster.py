"""What Slurm says before the first job, and what is made of it, with an sbatch of our own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zpdbench import cluster
from zpdbench.cluster import Request
from zpdbench.errors import UserError


@dataclass
class Job:
    """As much of Snakemake's job as is asked for."""

    resources_of: Any
    attempt: int = 1
    restart_times: int = 3
    is_local: bool = False
    threads: int = 1
    rule: Any = field(default_factory=lambda: SimpleNamespace(name="train_adapter"))

    @property
    def resources(self) -> dict[str, Any]:
        return self.resources_of(self.attempt)


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch that says what stands in the file `says` and refuses times above 100 minutes."""
    program = tmp_path / "sbatch"
    program.write_text(
        '#!/bin/sh\nhere=$(dirname $0)\necho "$@" >> $here/asked\n'
        'for option in "$@"; do case $option in --time=*) time=${option#--time=};; esac; done\n'
        "[ -s $here/says ] && { cat $here/says >&2; exit 1; }\n"
        "[ ${time:-0} -le 100 ] || { echo 'allocation failure: Requested time limit is invalid "
        "(missing or exceeds some limit)' >&2; exit 1; }\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("Invalid account or account/partition combination specified", "slurm_account"),
        ("Invalid partition name specified", "slurm_partition"),
        ("Invalid qos specification", "set qos"),
        ("Job violates accounting/QOS policy (job submit limit, user's size)", "set qos"),
        ("Requested reservation is invalid", "set reservation"),
        ("Invalid feature specification", "set constraint"),
        ("Invalid generic resource (gres) specification", "gpu_model"),
        ("Requested node configuration is not available", "mem_mb"),
    ],
)
def test_each_refusal_has_its_own_fix(sbatch: Path, said: str, fix: str) -> None:
    (sbatch / "says").write_text(f"sbatch: error: x\nallocation failure: {said}\n")
    with pytest.raises(UserError, match="Slurm refuses") as raised:
        cluster.check([Request("train_adapter", account="mine")])
    assert said in raised.value.what
    assert fix in raised.value.fix


def test_all_that_the_executor_passes_is_asked_for(sbatch: Path) -> None:
    wanted = {
        "slurm_partition": "gpu", "mem_mb": 500, "runtime": 10, "gpu": 2, "gpu_model": "h100",
        "qos": "long", "constraint": "a&b", "gres": "lscratch:5", "clusters": "c1",
        "slurm_extra": "--exclude='n1,n2' --licenses=x",
    }  # fmt: skip
    settings = SimpleNamespace(qos=None, reservation="week")
    (request,) = cluster.requests([Job(lambda attempt: wanted)], settings)
    cluster.check([request])
    asked = (sbatch / "asked").read_text("utf-8")
    for option in (
        "--partition=gpu", "--mem=500", "--time=10", "--gpus=h100:2", "--qos=long",
        "--constraint=a&b", "--gres=lscratch:5", "--clusters=c1", "--reservation=week",
        "--exclude=n1,n2", "--licenses=x",
    ):  # fmt: skip
        assert option in asked


def test_a_last_attempt_that_would_be_refused_is_told(
    sbatch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [Job(lambda attempt: {"runtime": 30 * attempt}), Job(lambda attempt: {"runtime": 10})]
    cluster.check(cluster.requests(jobs))
    cluster.warn(cluster.last_requests(jobs))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: rule train_adapter") and "--time=120" in line
    assert "shorter runtime" in line
    assert [job.attempt for job in jobs] == [1, 1]
