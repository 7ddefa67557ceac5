"""A reviewer's workshop: this installation's verbs on a bundle's files, in a folder of their own.

Stages never import one another, so what they can do is asked for as a user would ask: by their
verbs, each in a process of its own with a clean environment and an empty cache.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zpdbench import files, records
from zpdbench import study as studies
from zpdbench.study import Study

# What a process needs to find its libraries and devices; nothing that could be a secret.
_KEPT = (
    "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LANG", "LC_ALL", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES", "ZPDBENCH_DATA", "SSL_CERT_FILE",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How a verb ended."""

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
        """Run `zpdbench verb` here and wait; killed with all that it started after `seconds`."""
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
        try:
            _, complaint = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            return Outcome(-1, f"not finished after {seconds:.0f} s")
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
    if value["generations"]["engine"] == "openai":
        value["generations"] |= {"engine": "vllm", "base_url": None}
    return studies.parse({**value, **changes})


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
