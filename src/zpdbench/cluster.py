"""Ask Slurm, before the first job, whether it would take what the study's jobs will ask for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from zpdbench.errors import UserError

_FIXES = (
    ("artition", "set slurm_partition in profiles/slurm/config.yaml to one that `sinfo` shows"),
    ("ccount", "set slurm_account in profiles/slurm/config.yaml to one of yours"),
    ("time limit", "set a shorter runtime under set-resources in profiles/slurm/config.yaml"),
    (
        "onfiguration",
        "no node of that partition has so much: set slurm_partition, mem_mb or gpu under "
        "set-resources in profiles/slurm/config.yaml",
    ),
    ("rocessors", "no node has so many cores: lower threads in the study's configuration"),
)


@dataclass(frozen=True, order=True)
class Request:
    """What jobs of one rule ask for: memory in MiB, time in minutes."""

    rule: str
    partition: str = ""
    account: str = ""
    mem_mb: int = 0
    minutes: int = 0
    gpus: int = 0
    threads: int = 1

    def options(self) -> list[str]:
        """As options of sbatch."""
        given = [
            ("--partition", self.partition),
            ("--account", self.account),
            ("--mem", self.mem_mb),
            ("--time", self.minutes),
            ("--gpus", self.gpus),
            ("--cpus-per-task", self.threads),
        ]
        return [f"{option}={value}" for option, value in given if value]


def requests(jobs: Iterable[Any]) -> list[Request]:
    """The distinct requests among Snakemake's jobs that will be submitted."""
    found = set()
    for job in jobs:
        if job.is_local:
            continue
        wanted = job.resources
        found.add(
            Request(
                rule=job.rule.name,
                partition=str(wanted.get("slurm_partition") or ""),
                account=str(wanted.get("slurm_account") or ""),
                mem_mb=_number(wanted.get("mem_mb")),
                minutes=_number(wanted.get("runtime")),
                gpus=_number(wanted.get("gpu")),
                threads=job.threads,
            )
        )
    return sorted(found)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def check(wanted: Iterable[Request]) -> None:
    """Let Slurm judge each request (`sbatch --test-only`); nothing is submitted.

    Raises:
        UserError: Slurm is not here, does not answer, or refuses a request.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "there is no sbatch on PATH",
            fix="run Snakemake on a login node, or without --workflow-profile profiles/slurm",
        )
    for request in wanted:
        done = subprocess.run(
            ["sbatch", "--test-only", *request.options(), "--wrap", "true"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            continue
        reason = _reason(done.stderr)
        fix = next((f for word, f in _FIXES if word in reason), "see `sinfo` and `sacctmgr show`")
        raise UserError(
            f"Slurm refuses {' '.join(request.options())}: {reason}",
            where=f"rule {request.rule}",
            fix=fix,
        )


def _reason(text: str) -> str:
    lines = [re.sub(r"^sbatch: (error: )?", "", line) for line in text.splitlines()]
    failures = [line for line in lines if line.startswith("allocation failure: ")]
    return (failures or lines or ["no reason given"])[-1].removeprefix("allocation failure: ")
