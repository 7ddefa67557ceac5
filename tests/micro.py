"""One real micro grid that slow tests share: real training, real vLLM, real sandbox."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from zpdbench import files

# Seconds after which what a test waits for will not come any more; a busy machine is slow.
PATIENCE = 3600
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")


@dataclass
class Workspace:
    """A folder in which the workflow runs, with a cache of its own."""

    folder: Path
    root: Path
    config: Path
    overrides: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def command(self, *arguments: str) -> list[str]:
        return [
            SNAKEMAKE,
            "--snakefile",
            str(self.root / "Snakefile"),
            "--directory",
            str(self.folder),
            "--cores",
            "2",
            *arguments,
            "--configfile",
            str(self.config),
            "--config",
            "results=results",
            *self.overrides,
        ]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            **self.env,
            "ZPDBENCH_CACHE": str(self.folder / ".cache/zpdbench"),
        }
        return subprocess.Popen(
            self.command(*arguments),
            env=environment,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate()
        assert process.returncode == 0, output[-6000:] + self._logs(output)
        return output

    def _logs(self, output: str) -> str:
        tails = []
        for log in sorted(self.results.glob("logs/**/*.log")):
            if str(log.relative_to(self.folder)) in output:
                tails.append(f"--- {log}\n{log.read_text(errors='replace')[-2000:]}")
        return "\n".join(tails[-3:])

    def kill_when(self, ready: Callable[[], bool], *arguments: str, seconds: float = 300) -> None:
        """Start the workflow and kill its whole process group (-9) once `ready()`."""
        process = self.start(*arguments)
        end = time.monotonic() + seconds
        while not ready():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end, "the moment to kill never came"
            time.sleep(0.05)
        _kill_session(process.pid)
        process.communicate()
        # Snakemake's lock is left by a killed process; README tells how to clear it.
        subprocess.run(self.command("--unlock"), cwd=self.root, check=True, capture_output=True)

    def copy(self, name: str) -> Workspace:
        target = self.folder.parent / name
        shutil.copytree(self.folder, target, symlinks=True)
        return Workspace(target, self.root, self.config, list(self.overrides))


def output_of(process: subprocess.Popen[str]) -> str:
    """All that a started workflow prints, once it has ended; it does not outlive the test."""
    try:
        return process.communicate(timeout=PATIENCE)[0]
    except subprocess.TimeoutExpired:
        _kill_session(process.pid)
        raise


def content(workspace: Workspace) -> dict[str, str]:
    """Digest of every result that must not depend on where, when or how often it was made.

    Without the report, which names machines and images.
    """
    results = workspace.results
    found: dict[str, str] = {}
    for part in ("checkpoints", "corpora", "items", "adapters", "scores", "figures"):
        found |= {f"{part}/{k}": v for k, v in files.hash_tree(results / part).items()}
    tables = [p for p in sorted(results.glob("*.tsv")) if files.is_hashed(p.name)]
    return found | {p.name: files.sha256_file(p) for p in tables}


def _kill_session(session: int) -> None:
    """Kill -9 every process of a session that a test started."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            try:
                os.kill(int(entry.name), signal.SIGKILL)
            except ProcessLookupError:
                continue


def _kept(basetemp: Path) -> Path | None:
    """Where the finished grid is kept for other test processes on the same sources, if anywhere.

    ZPDBENCH_TEST_MICRO names a folder; without it the processes of one `pytest -n` share theirs.
    """
    if given := os.environ.get("ZPDBENCH_TEST_MICRO"):
        return Path(given)
    return basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else None


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Workspace:
    """The micro grid, run once from nothing to `all`."""
    folder = tmp_path_factory.mktemp("e2e") / "first"
    workspace = Workspace(folder, root, root / "config/micro.yaml")
    shared = _kept(tmp_path_factory.getbasetemp())
    if shared is None:
        folder.mkdir()
        workspace.run("all")
        return workspace
    shared.mkdir(parents=True, exist_ok=True)
    with (shared / "micro.lock").open("w") as lock:
        # One makes it with both cores, the others wait; a failed one leaves nothing behind.
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = shared / "micro"
        if kept.is_dir():
            shutil.copytree(kept, folder, symlinks=True)
            return workspace
        folder.mkdir()
        workspace.run("all")
        partial = shared / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder, partial, symlinks=True)
        partial.rename(kept)
    return workspace
