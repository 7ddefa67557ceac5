"""A run's resumable state, in one safetensors file of the content-addressed cache.

Tensors are the parameters and the optimiser's moments; everything else (step, what is left of the
condition's block, the condition's memory, the trace so far) is JSON in the file's metadata. One
file means one rename: a killed job finds the state of one moment or of the one before, never a
mixture.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from zpdbench import files
from zpdbench.adapters.parallel import Group

FORMAT = 2
"""Raised when the state's content changes; part of the key."""

_TRAINER = ("batches", "decoder", "learner", "loop", "lora", "loss", "optimiser", "products")


def trainer() -> str:
    """Digest of the modules that training's numbers come from; part of the key.

    So no run is taken up by a trainer that would have gone another way, be it in the last bits.
    """
    folder = Path(__file__).parent
    return files.digest([files.sha256_file(folder / f"{name}.py") for name in _TRAINER])


@dataclass
class Progress:
    """Where a run stands, apart from tensors.

    Attributes:
        step: optimiser steps done.
        queue: rows that the condition gave and that are not trained on yet.
        condition: the condition's memory.
        steps, updates: trace rows so far.
        seconds: spent before, by part; for the timing file only.
        resumed: how often the run was taken up again.
    """

    step: int = 0
    queue: list[int] = field(default_factory=list)
    condition: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    updates: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    resumed: int = 0


class Store:
    """The state of one run, by the digest of all that decides its bytes.

    Where several processes hold parts of one model, each writes its tensors to a file of its own,
    named by the step; the state is the one that the first process's file names, written last.
    """

    def __init__(
        self,
        key: str,
        root: Path | None = None,
        group: Group | None = None,
        sharded: bool = False,
    ) -> None:
        self.folder = (root or files.cache_folder()) / "training" / key
        self.group, self.sharded = group or Group(), sharded

    def save(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Write the state of this moment over the one before."""
        metadata = {"progress": json.dumps(asdict(progress))}
        if self.sharded:
            own = self._part(progress.step)
            _write(own, tensors)
            self.group.wait()
            if self.group.leads:
                _write(self.folder / "state.safetensors", {}, metadata)
            self.group.wait()
            for old in self.folder.glob(f"part{self.group.rank}.step*.safetensors"):
                if old != own:
                    old.unlink()
        elif self.group.leads:
            _write(self.folder / "state.safetensors", tensors, metadata)

    def load(self) -> tuple[dict[str, Tensor], Progress] | None:
        """The last state; None if there is none or it is unreadable (then the run starts anew)."""
        found = self._load()
        return found if all(self.group.gather(found is not None)) else None

    def _load(self) -> tuple[dict[str, Tensor], Progress] | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.folder / "state.safetensors", framework="pt") as handle:
                progress = Progress(**json.loads(handle.metadata()["progress"]))
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            if self.sharded:
                with safe_open(self._part(progress.step), framework="pt") as handle:
                    tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            return tensors, progress
        except (OSError, SafetensorError, ValueError, TypeError, KeyError):
            return None

    def _part(self, step: int) -> Path:
        return self.folder / f"part{self.group.rank}.step{step}.safetensors"

    def save_weights(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Keep the weights of a step that is to be served."""
        if self.group.leads:
            _write(self.weights(step), dict(sorted(tensors.items())), {"format": "pt"})

    def weights(self, step: int) -> Path:
        """The file that `save_weights` writes."""
        return self.folder / f"step{step}.safetensors"

    def clear(self) -> None:
        """The run is finished and its results are written: nothing to resume."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    from safetensors.torch import save_file

    with files.atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)
