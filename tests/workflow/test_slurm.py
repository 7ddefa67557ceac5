"""The micro grid through a real Slurm: killed in every way, and still the same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.installed import Slurm
from tests.micro import PATIENCE, Workspace, content, output_of
from zpdbench import cluster, files
from zpdbench.errors import UserError

# As a user does, but asking the cluster more often.
SOON = [
    "--slurm-init-seconds-before-status-checks=1",
    "--seconds-between-status-checks=1",
    "--max-status-checks-per-second=10",
    "--latency-wait=5",
]


def through_slurm(root: Path) -> list[str]:
    return ["--workflow-profile", str(root / "profiles/slurm"), *SOON]


def until(found: Callable[[], list[str]], process: subprocess.Popen[str]) -> list[str]:
    """Wait for something to be there; the workflow must still be running."""
    end = time.monotonic() + PATIENCE
    while not (there := found()):
        assert process.poll() is None, "the workflow ended before"
        assert time.monotonic() < end, "it never came"
        time.sleep(0.2)
    return there


@pytest.mark.slow
def test_killed_jobs_come_back_with_the_same_bytes(
    slurm: Slurm, micro: Workspace, root: Path
) -> None:
    """Out of memory, cancelled, and a node that is lost for half a minute."""
    workspace = Workspace(micro.folder.parent / "slurm", root, micro.config)
    workspace.folder.mkdir()
    cache = workspace.folder / ".cache/zpdbench"
    # The corpus needs more than its first attempt gets, as where an estimate is too low.
    too_little = ["--set-resources", "make_corpus:mem_mb=attempt*600"]
    process = workspace.start("all", *through_slurm(root), *too_little)
    said: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: said.extend(process.stdout or []), daemon=True)
    reader.start()

    # A run that has saved its state is cancelled, as by a user or an administrator.
    until(lambda: [str(p) for p in cache.glob("training/*/state.safetensors")], process)
    cancelled = until(lambda: slurm.running("train_adapter"), process)[0]
    subprocess.run(["scancel", cancelled], check=True)
    # The node's daemon is gone for half a minute while answers are generated.
    until(lambda: slurm.running("generate_chunk"), process)
    slurm.node("stop-node")
    time.sleep(30)
    slurm.node("start-node")

    assert process.wait(timeout=PATIENCE) == 0, "".join(said)[-6000:]
    reader.join()
    states = [job["JobState"] for job in slurm.ended()]
    assert {"CANCELLED", "COMPLETED"} <= set(states), states
    log = (slurm.folder / "log/slurmd.log").read_text("utf-8")
    assert "exceeded memory limit" in log
    assert content(workspace) == content(micro)
    assert (workspace.results / "h3a.tsv").read_bytes() == (micro.results / "h3a.tsv").read_bytes()


@pytest.mark.slow
def test_training_goes_on_after_its_time_limit(slurm: Slurm, micro: Workspace, root: Path) -> None:
    """Long enough to be stopped in the middle; the same adapter as without."""
    adapter = "results/adapters/mini-qwen/zpd/s0"
    longer = "training={steps: 1500, evaluate_every: 100}"
    made = []
    for name in ("undisturbed", "stopped"):
        workspace = micro.copy(name)
        shutil.rmtree(workspace.results / "adapters")
        shutil.rmtree(workspace.folder / ".cache/zpdbench/training", ignore_errors=True)
        workspace.overrides.append(longer)
        made.append(workspace)
    undisturbed, stopped = made
    beside = undisturbed.start(adapter)

    process = stopped.start(adapter, *through_slurm(root))
    training = stopped.folder / ".cache/zpdbench/training"
    until(lambda: [str(p) for p in training.glob("*/state.safetensors")], process)
    (job,) = slurm.running("train_adapter")
    # Slurm counts limits in minutes, and looks every half a minute.
    subprocess.run(["scontrol", "update", f"JobId={job}", "EndTime=now+1seconds"], check=True)
    output = output_of(process)
    assert process.returncode == 0, output[-6000:]
    assert "TIMEOUT" in {job["JobState"] for job in slurm.ended()}
    output = output_of(beside)
    assert beside.returncode == 0, output[-6000:]

    timing = json.loads((stopped.folder / adapter / "train.timing.json").read_text("utf-8"))
    assert timing["resumed"] == 1
    assert files.hash_tree(stopped.folder / adapter) == files.hash_tree(
        undisturbed.folder / adapter
    )


@pytest.mark.slow
def test_a_failure_names_its_log(slurm: Slurm, micro: Workspace, root: Path) -> None:
    broken = micro.copy("broken")
    (score,) = sorted(broken.results.glob("scores/*/zpd/s0.parquet"))[:1]
    score.unlink()
    (sorted(broken.results.glob("generations/*/all.parquet"))[0]).write_bytes(b"no parquet")
    process = broken.start(
        str(score.relative_to(broken.folder)),
        *through_slurm(root),
        "--retries=0",
        "--rerun-triggers=code",
        "--allowed-rules=score_run",
    )
    output = output_of(process)
    assert process.returncode == 1
    assert "logs/score_run/" in output
    assert "slurm_logs/rule_score_run" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message", "fix"),
    [
        ("train_adapter:slurm_partition=nowhere", "Invalid partition", "sinfo"),
        ("score_run:mem_mb=99000000", "not available", "set-resources"),
        ("generate_chunk:gpu=3", "not available", "gpu under"),
    ],
)
def test_what_slurm_would_refuse_is_told_before_the_first_job(
    slurm: Slurm, root: Path, tmp_path: Path, override: str, message: str, fix: str
) -> None:
    workspace = Workspace(tmp_path, root, root / "config/micro.yaml")
    process = workspace.start("all", *through_slurm(root), "--set-resources", override)
    output = output_of(process)
    assert process.returncode == 1
    (line,) = [line for line in output.splitlines() if "Slurm refuses" in line]
    assert override.split(":")[0] in line and message in line and fix in line
    assert not list(workspace.results.glob("items/*"))


@pytest.mark.slow
def test_a_refused_time_is_told(slurm: Slurm) -> None:
    with pytest.raises(UserError, match="time limit") as raised:
        cluster.check([cluster.Request("train_adapter", partition="gpu", minutes=9999)])
    assert "runtime" in raised.value.fix
