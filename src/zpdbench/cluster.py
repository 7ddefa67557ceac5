"""Ask Slurm, before the first job, whether it would take what the study's jobs will ask for."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from zpdbench.errors import UserError

_PROFILE = "profiles/slurm/config.yaml"
# Slurm's words, the more particular before the more general: a refused account is told as an
# 'Invalid account or account/partition combination', a refused quality of service names neither.
_FIXES = (
    ("invalid account", f"set slurm_account in {_PROFILE} to one of `sacctmgr show associations`"),
    ("qos", f"set qos in {_PROFILE} to one of `sacctmgr show associations format=account,qos`"),
    ("reservation", f"set reservation in {_PROFILE} to one that `scontrol show reservation` gives"),
    ("time limit", f"set a shorter runtime under set-resources in {_PROFILE}"),
    ("partition", f"set slurm_partition in {_PROFILE} to one that `sinfo` shows"),
    ("feature", f"set constraint in {_PROFILE} to what `sinfo --format=%f` shows"),
    ("gres", f"set gpu, gpu_model or gres in {_PROFILE} to what `sinfo --format=%G` shows"),
    (
        "configuration",
        "no node of that partition has so much: set slurm_partition, mem_mb or gpu under "
        f"set-resources in {_PROFILE}",
    ),
    ("processors", "no node has so many cores: lower threads in the study's configuration"),
)


@dataclass(frozen=True, order=True)
class Request:
    """What jobs of one rule ask for: memory in MiB, time in minutes.

    Attributes:
        others: further options as the executor passes them on (--qos, --constraint, slurm_extra).
    """

    rule: str
    partition: str = ""
    account: str = ""
    mem_mb: int = 0
    minutes: int = 0
    gpus: str = ""
    threads: int = 1
    others: tuple[str, ...] = ()

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
        return [f"{option}={value}" for option, value in given if value] + list(self.others)


# Resource -> option, as the executor plug-in writes them; the first that is given counts.
_OPTIONS = {
    "--clusters": ("cluster", "clusters", "slurm_cluster"),
    "--constraint": ("constraint",),
    "--qos": ("qos",),
    "--mem-per-cpu": ("mem_mb_per_cpu",),
    "--nodes": ("nodes",),
    "--gres": ("gres",),
}


def requests(jobs: Iterable[Any], settings: Any = None) -> list[Request]:
    """The distinct requests among Snakemake's jobs that will be submitted, at their next attempt.

    Args:
        settings: the executor's own, of which --slurm-qos and --slurm-reservation count.
    """
    return sorted({_request(job, settings) for job in jobs if not job.is_local})


def last_requests(jobs: Iterable[Any], settings: Any = None) -> list[Request]:
    """What the last attempts of these jobs would ask for; each attempt asks for more."""
    found = set()
    for job in jobs:
        if job.is_local:
            continue
        now = job.attempt
        job.attempt = now + job.restart_times
        try:
            found.add(_request(job, settings))
        finally:
            job.attempt = now
    return sorted(found)


def _request(job: Any, settings: Any) -> Request:
    wanted = job.resources
    others = []
    for option, names in _OPTIONS.items():
        value = next((wanted.get(name) for name in names if wanted.get(name)), None)
        if value is not None:
            others.append(f"{option}={value}")
    for name in ("qos", "reservation"):
        if value := getattr(settings, name, None):
            others.append(f"--{name}={value}")
    others += shlex.split(str(wanted.get("slurm_extra") or ""))
    gpus = str(_number(wanted.get("gpu")) or "")
    if model := wanted.get("gpu_model"):
        gpus = f"{model}:{gpus or 1}"
    return Request(
        rule=job.rule.name,
        partition=str(wanted.get("slurm_partition") or ""),
        account=str(wanted.get("slurm_account") or ""),
        mem_mb=0 if wanted.get("mem_mb_per_cpu") else _number(wanted.get("mem_mb")),
        minutes=_number(wanted.get("runtime")),
        gpus=gpus,
        threads=_number(wanted.get("cpus_per_task")) or job.threads,
        others=tuple(others),
    )


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
        if reason := _refusal(request):
            raise UserError(
                f"Slurm refuses {' '.join(request.options())}: {reason}",
                where=f"rule {request.rule}",
                fix=_fix(reason),
            )


def warn(wanted: Iterable[Request]) -> None:
    """Say which last attempts Slurm would refuse; they do not stop a run, which may not need them.

    One line a rule, to standard error.
    """
    told = set()
    for request in wanted:
        if request.rule in told or not (reason := _refusal(request)):
            continue
        told.add(request.rule)
        fix = _fix(reason)
        if not _refusal(replace(request, minutes=1)):
            fix = f"set a shorter runtime under set-resources in {_PROFILE}"
        print(
            f"note: rule {request.rule}: Slurm would refuse what its last attempt asks for, "
            f"{' '.join(request.options())}: {reason} ({fix})",
            file=sys.stderr,
        )


def _refusal(request: Request) -> str | None:
    """Why Slurm would not take a request; None if it would."""
    done = subprocess.run(
        ["sbatch", "--test-only", *request.options(), "--wrap", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return _reason(done.stderr) if done.returncode else None


def _fix(reason: str) -> str:
    said = reason.lower()
    return next((fix for word, fix in _FIXES if word in said), "see `sinfo` and `sacctmgr show`")


def _reason(text: str) -> str:
    lines = [re.sub(r"^sbatch: (error: )?", "", line) for line in text.splitlines()]
    failures = [line for line in lines if line.startswith("allocation failure: ")]
    return (failures or lines or ["no reason given"])[-1].removeprefix("allocation failure: ")


def examine() -> list[tuple[str, bool, str, str]]:
    """For `zpdbench doctor`: (what, whether it is there, what was found, how to mend it)."""
    place = shutil.which("sbatch")
    fix = "for --workflow-profile profiles/slurm only; docs/clusters.md"
    found = [("Slurm", place is not None, place or "-", fix)]
    if place is None:
        return found
    answer = _said("scontrol", "ping")
    up = " UP" in answer
    detail = answer.splitlines()[0] if answer else "no answer"
    found.append(
        ("Slurm's controller", up, detail, "ask the site; on a node of your own: slurmctld")
    )
    if up:
        lines = sorted(set(_said("sinfo", "--noheader", "--format=%P %a %l %G").splitlines()))
        fix = "ask the site; a partition must be up"
        found.append(("partitions", any(" up " in f"{x} " for x in lines), "; ".join(lines), fix))
    return found


def _said(*command: str) -> str:
    """What a program of Slurm's prints; nothing if it fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
