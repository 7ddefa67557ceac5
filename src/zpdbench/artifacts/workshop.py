"""A reviewer's workshop: this installation's verbs on a bundle's files, in a folder of their own.

Stages never import one another, so what they can do is asked for as a user would ask: by their
verbs, each in a process of its own with a clean environment and an empty cache.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zpdbench import files, records
from zpdbench import study as studies
from zpdbench.artifacts import layout
from zpdbench.study import Study

# What a process needs to find its libraries and devices; nothing that could be a secret.
_KEPT = (
    "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LANG", "LC_ALL", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES", "ZPDBENCH_DATA", "SSL_CERT_FILE", "HF_HOME", "HF_HUB_CACHE",
)  # fmt: skip


SECONDS = 7200.0
"""A verb on a bundle's files may take so long; the largest study needs minutes."""
NO_TIME = -1


@dataclass(frozen=True)
class Outcome:
    """How a verb ended: 0, its own exit code, or NO_TIME."""

    code: int
    message: str
    """Its last line of complaint, if it failed."""


class Workshop:
    """A scratch folder with the bundle's study in it, made harmless."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder = folder
        self.study = study
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = folder / "study.lock.yaml"
        files.write_text(self.lock, studies.lock_text(harmless(study)))

    def path(self, name: str) -> Path:
        """A file to be made here; its folder exists."""
        path = self.folder / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def run(
        self, verb: str, arguments: Sequence[object], *, seconds: float | None = None
    ) -> Outcome:
        """Run `zpdbench verb` here and wait.

        Args:
            seconds: after these it is killed with all that it started, and its memory is not
                limited: an engine is at work. None: SECONDS, and no more than this machine's
                memory, for files of a stranger's making may ask for any.
        """
        command = [sys.executable, "-m", "zpdbench.cli", verb, *map(str, arguments)]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if seconds is None:
            _limit_memory(process)
            seconds = SECONDS
        try:
            _, complaint = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            return Outcome(NO_TIME, f"not finished after {seconds:.0f} s")
        except BaseException:
            _kill_group(process)
            raise
        lines = complaint.decode("utf-8", "replace").strip().splitlines()
        message = lines[-1] if lines and process.returncode else ""
        return Outcome(process.returncode, message.replace(str(self.folder), "."))

    def environment(self) -> dict[str, str]:
        """What the verbs see of this machine's environment."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        package = str(Path(records.__file__).parents[1])
        return {
            **kept,
            "PYTHONPATH": package,
            "HOME": str(self.folder),
            "TMPDIR": str(self._temporary()),
            "ZPDBENCH_CACHE": str(self.folder / "cache"),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def _temporary(self) -> Path:
        folder = self.folder / "tmp"
        folder.mkdir(exist_ok=True)
        return folder


def harmless(study: Study, **changes: Any) -> Study:
    """A stranger's study as it may run here: full sandbox, no server, this machine's folders.

    Args:
        changes: sections to put instead (JSON-able).
    """
    value = records.portable(study).model_dump(mode="json")
    value["sandbox"] = {}
    for name, section in study.benchmarks.items():
        # Where `localise` put it; a bundle's own configuration names no absolute path.
        value["benchmarks"][name]["definition"] = section.definition
    if value["generations"]["engine"] == "openai":
        value["generations"] |= {"engine": "vllm", "base_url": None}
    return studies.parse({**value, **changes})


def localise(study: Study, bundle: Path) -> Study:
    """A bundle's study with its own benchmark definitions where they lie here."""
    named = layout.definitions(study)
    benchmarks = {
        name: section.model_copy(update={"definition": str((bundle / named[name]).resolve())})
        if name in named
        else section
        for name, section in study.benchmarks.items()
    }
    return study.model_copy(update={"benchmarks": benchmarks})


def _limit_memory(process: subprocess.Popen[bytes]) -> None:
    """Bound a verb's address space by this machine's memory, where the system can."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        most = max(memory, 4 << 30)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (most, most))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
