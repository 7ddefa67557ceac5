"""What CI is told to run exists, fits its budget, and cannot be skipped in silence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import installed


def test_every_part_is_a_target_and_all_take_less_than_an_hour(root: Path) -> None:
    script = (root / ".ci/run").read_text("utf-8")
    parts = re.findall(r"^part (\d+) (\S+)$", script, re.M)
    assert sum(int(minutes) for minutes, _ in parts) < 60
    targets = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text("utf-8"), re.M)
    assert {target for _, target in parts} <= set(targets)
    order = [target for _, target in parts]
    # Images and Slurm are not left out; where Slurm is installed Snakemake starts slower, so last.
    assert order[-2:] == ["test", "test-cluster"]
    # The report is driven in a browser there, and its tests are not skipped for lack of one.
    assert "browser" in order
    assert re.search(r"^export CI=1$", script, re.M)


def test_time_left_goes_on_and_the_last_line_is_of_make_test(root: Path, tmp_path: Path) -> None:
    """The script itself, with a `make` of which one target fails."""
    (tmp_path / "bin").mkdir()
    make = tmp_path / "bin/make"
    make.write_text(
        """#!/bin/sh
case $1 in
  test) echo "1 failed, 2 passed in 3.00s"; exit 2 ;;
  test-cluster) echo "3 passed in 9.00s" ;;
esac
"""
    )
    (tmp_path / "bin/timeout").write_text(
        """#!/bin/sh
echo "$5 has $3 s"
shift 3
exec "$@"
"""
    )
    for program in ("make", "timeout"):
        (tmp_path / "bin" / program).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        [root / ".ci/run"], env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[-1] == "1 failed, 2 passed in 3.00s"
    given = {line.split()[0]: int(line.split()[-2]) for line in lines if " has " in line}
    # Nothing took time here, so each part has its own minutes and all before.
    assert given["test"] >= 45 * 60 - 30
    assert 59 * 60 - 30 <= given["test-cluster"] < 3600


def test_what_make_test_leaves_out_can_be_collected(root: Path) -> None:
    """Files that are run by hand only must not rot unseen: a broken import shows here."""
    (listed,) = re.findall(
        r"^APART := ((?:.*\\\n)*.*)$", (root / "Makefile").read_text("utf-8"), re.M
    )
    apart = listed.replace("\\\n", " ").split()
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *apart], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line} == {*apart}


def test_a_cluster_of_a_killed_test_run_is_no_site_s(tmp_path: Path) -> None:
    link, theirs = tmp_path / "etc/slurm.conf", tmp_path / "ours/slurm.conf"
    for folder in ("etc", "ours/run"):
        (tmp_path / folder).mkdir(parents=True)
    theirs.write_text("ClusterName=test\n")
    link.symlink_to(theirs)
    assert not installed.left_over(theirs)
    assert not installed.left_over(link)
    (tmp_path / "ours/run/gpu0").touch()
    assert installed.left_over(link)
    # Alive, but another program: process numbers are used again.
    (tmp_path / "ours/run/slurmctld.pid").write_text(f"{os.getpid()}\n")
    assert installed.left_over(link)


def test_what_is_required_fails_and_what_is_not_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZPDBENCH_REQUIRE", "apptainer,slurm")
    with pytest.raises(pytest.fail.Exception, match="slurm is required: no root"):
        installed.lacking("slurm", "no root")
    monkeypatch.setenv("ZPDBENCH_REQUIRE", "apptainer")
    with pytest.raises(pytest.skip.Exception, match="no root"):
        installed.lacking("slurm", "no root")
