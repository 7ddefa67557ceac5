"""A real Slurm, a real Apptainer and real images, installed and made here where possible.

Where they cannot be had a test is skipped; `ZPDBENCH_REQUIRE=slurm,apptainer` makes that a failure,
so that CI cannot leave out what it is there for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from tests.micro import SNAKEMAKE
from zpdbench.images import containers
from zpdbench.study import Images

STAGES = ("score", "stats")


def lacking(what: str, reason: str) -> NoReturn:
    """Skip for lack of `what`, slurm or apptainer; fail where the caller requires it."""
    if what in os.environ.get("ZPDBENCH_REQUIRE", "").split(","):
        pytest.fail(f"{what} is required: {reason}")
    pytest.skip(reason)


def install(what: str, *packages: str) -> None:
    """Install the Debian packages that `what` needs; see `lacking`."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        lacking(what, f"needs {' '.join(packages)}; only root on Debian can install them here")
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for attempt in (1, 2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if attempt == 1:
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
    lacking(what, f"apt-get cannot install {' '.join(packages)}: {done.stderr.strip()[-300:]}")


@dataclass(frozen=True)
class Slurm:
    """The running cluster: its folder, and the script that started it."""

    folder: Path
    script: Path

    def node(self, verb: str) -> None:
        subprocess.run([str(self.script), verb, str(self.folder)], check=True)

    def running(self, rule: str) -> list[str]:
        """Ids of running jobs of one rule."""
        done = subprocess.run(
            ["squeue", "--noheader", "--states=R", "--format=%i %k"],
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
        return [job for job, comment in lines if comment.startswith(f"rule_{rule}_")]

    def ended(self) -> list[dict[str, str]]:
        """What the cluster recorded of every job that ended: JobState, Name and so on."""
        text = (self.folder / "log/jobcomp.log").read_text("utf-8")
        return [
            dict(f.split("=", 1) for f in line.split() if "=" in f) for line in text.splitlines()
        ]


def left_over(configuration: Path) -> bool:
    """Whether a test run that was killed left this: our own link, and its controller is gone."""
    folder = configuration.resolve().parent
    if not configuration.is_symlink() or not (folder / "run/gpu0").exists():
        return False
    try:
        process = (folder / "run/slurmctld.pid").read_text("utf-8").strip()
        return Path(f"/proc/{process}/comm").read_text("utf-8").strip() != "slurmctld"
    except OSError:
        return True


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Slurm]:
    """A Slurm of one node with two fake GPUs."""
    if os.geteuid() != 0:
        lacking("slurm", "a Slurm of our own needs root")
    if any(shutil.which(p) is None for p in ("slurmctld", "slurmd", "munged", "sbatch")):
        install("slurm", "slurm-wlm", "slurm-wlm-basic-plugins", "munge")
    configuration = Path("/etc/slurm/slurm.conf")
    if configuration.exists() and not left_over(configuration):
        lacking("slurm", f"this machine has a Slurm of its own: {configuration}")
    folder = tmp_path_factory.mktemp("slurm")
    cluster = Slurm(folder, root / "tests/workflow/slurm-node.sh")
    try:
        cluster.node("up")
        yield cluster
    finally:
        cluster.node("down")


@pytest.fixture(scope="session")
def apptainer(tmp_path_factory: pytest.TempPathFactory, root: Path) -> str:
    """Apptainer on PATH: the machine's own, else one installed for these tests."""
    if shutil.which("apptainer") is None:
        if any(shutil.which(p) is None for p in ("patchelf", "squashfuse", "newuidmap")):
            install("apptainer", "patchelf", "squashfuse", "uidmap")
        prefix = Path(os.environ.get("ZPDBENCH_APPTAINER", root / ".cache/apptainer"))
        if not (prefix / "usr/bin/apptainer").exists():
            script = [str(root / "containers/install-apptainer.sh"), str(prefix)]
            done = subprocess.run(script, capture_output=True, text=True, check=False)
            if done.returncode:
                # A mirror that has moved on: the newer versions will do for tests.
                done = subprocess.run(
                    [*script, "--unpinned"], capture_output=True, text=True, check=False
                )
            if done.returncode:
                lacking("apptainer", f"it cannot be installed: {done.stderr.strip()[-300:]}")
        os.environ["PATH"] = f"{prefix}/usr/bin:{os.environ['PATH']}"
    return "apptainer"


def all_stages() -> bool:
    """Whether train and serve are wanted too; `make test-images` says so, CI does not."""
    return os.environ.get("ZPDBENCH_TEST_IMAGES") == "all"


@pytest.fixture(scope="session")
def images(root: Path, apptainer: str) -> dict[str, Path]:
    """The stages' images in the project's own .cache/images, built where missing."""
    if any(shutil.which(p) is None for p in ("mmdebstrap", "mksquashfs")):
        install("apptainer", "mmdebstrap", "squashfs-tools")
    files = containers.image_files(Images(), root)
    wanted = files if all_stages() else {stage: files[stage] for stage in STAGES}
    done = subprocess.run(
        [SNAKEMAKE, "--cores", "2", *wanted.values()],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    logs = (root / "results/logs/build_image").rglob("*.log") if done.returncode else []
    said = "\n".join(log.read_text("utf-8")[-1500:] for log in logs)
    assert done.returncode == 0, done.stderr[-3000:] + said
    return {stage: root / file for stage, file in wanted.items()}
