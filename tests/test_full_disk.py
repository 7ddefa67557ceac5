"""A disk that is full in the middle: one line with the fix, and nothing half-written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.micro import Workspace
from zpdbench import files

# Mounts a disk of a megabyte with 8 KiB left on DISK, then runs the rest and lists what is there.
SMALL_DISK = """
set -eu
mount -t tmpfs -o size=1M small "$DISK"
head --bytes=1040384 /dev/zero > "$DISK/fill"
set +e
"$@"
status=$?
ls -A "$DISK"
exit $status
"""

WRITERS = """
import sys
from pathlib import Path
from zpdbench import files

target, many = Path(sys.argv[1]) / "made", 1 << 17
def parquet():
    import polars
    polars.DataFrame({"a": range(many)}).write_parquet(target, compression="uncompressed")
def safetensors():
    import torch
    from safetensors.torch import save_file
    save_file({"a": torch.arange(many)}, target)
def text():
    target.write_bytes(bytes(many))
for writer in (parquet, safetensors, text):
    try:
        writer()
    except Exception as error:
        print(writer.__name__, files.is_full(error))
    target.unlink(missing_ok=True)
"""


def on_small_disk(disk: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that sees a nearly full disk at `disk`; no root is needed for that."""
    disk.mkdir()
    space = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*space, "true"]).returncode:
        pytest.skip("no user namespaces, in which a small disk could be mounted")
    shell = ["env", f"DISK={disk}", "bash", "-c", SMALL_DISK, "bash"]
    return subprocess.run([*space, *shell, *command], capture_output=True, text=True, check=False)


def zpdbench(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "zpdbench.cli", *arguments]


def test_every_writer_s_error_is_known(tmp_path: Path) -> None:
    done = on_small_disk(tmp_path / "disk", sys.executable, "-c", WRITERS, str(tmp_path / "disk"))
    assert done.stdout.split() == ["parquet", "True", "safetensors", "True", "text", "True", "fill"]


def test_what_is_printed_onto_a_full_disk() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(zpdbench("schema"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("zpdbench schema: the disk is full")


@pytest.mark.slow
def test_scores_onto_a_full_disk(
    micro: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in the middle; with space again, the same command gives the same bytes."""
    # Its own, as verdicts remembered from another run are told on standard output.
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    run, disk = ("mini-qwen", "zpd", "0"), tmp_path / "disk"
    results = micro.results
    made = results / f"scores/{run[0]}/{run[1]}/s{run[2]}.parquet"
    command = zpdbench("score-run", "--study", str(results / "study.lock.yaml"))
    for name, value in zip(("--model", "--condition", "--seed"), run, strict=True):
        command += [name, value]
    command += ["--generations", *map(str, sorted(results.glob(f"generations/{run[0]}/*.parquet")))]
    command += ["--items", *map(str, sorted(results.glob("items/*.parquet")))]
    done = on_small_disk(disk, *command, "--out", str(disk / made.name))
    assert done.returncode == 2, done.stderr
    *progress, line = done.stderr.splitlines()
    assert all(told.startswith("programs: ") for told in progress)
    assert line.startswith(f"zpdbench score-run: {disk / made.name}: the disk is full")
    assert done.stdout.split() == ["fill"]
    again = tmp_path / made.name
    subprocess.run([*command, "--out", str(again)], check=True, capture_output=True)
    assert files.sha256_file(again) == files.sha256_file(made)
