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

FORMAT = 2
"""Raised when the state's content changes; part of the key."""

_ARITHMETIC = ("batches", "decoder", "loop", "lora", "loss", "optimiser")


def arithmetic() -> str:
    """Digest of the modules that training's numbers come from; part of the key.

    So no run is taken up by a trainer that would have gone another way, be it in the last bits.
    """
    folder = Path(__file__).parent
    return files.digest([files.sha256_file(folder / f"{name}.py") for name in _ARITHMETIC])


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
    """The state of one run, by the digest of all that decides its bytes."""

    def __init__(self, key: str, root: Path | None = None) -> None:
        self.folder = (root or files.cache_folder()) / "training" / key

    def save(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Write the state of this moment over the one before."""
        from safetensors.torch import save

        metadata = {"progress": json.dumps(asdict(progress))}
        files.write_bytes(self.folder / "state.safetensors", save(tensors, metadata))

    def load(self) -> tuple[dict[str, Tensor], Progress] | None:
        """The last state; None if there is none or it is unreadable (then the run starts anew)."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.folder / "state.safetensors", framework="pt") as handle:
                progress = Progress(**json.loads(handle.metadata()["progress"]))
                return {name: handle.get_tensor(name) for name in handle.keys()}, progress  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, TypeError, KeyError):
            return None

    def save_adapter(self, step: int, data: bytes) -> None:
        """Keep the finished adapter of an evaluation point."""
        files.write_bytes(self.folder / f"step{step}.safetensors", data)

    def adapter(self, step: int) -> bytes:
        """The adapter that `save_adapter` kept."""
        return (self.folder / f"step{step}.safetensors").read_bytes()

    def has_adapter(self, step: int) -> bool:
        """Whether it is there."""
        return (self.folder / f"step{step}.safetensors").is_file()

    def clear(self) -> None:
        """The run is finished and its results are written: nothing to resume."""
        shutil.rmtree(self.folder, ignore_errors=True)
