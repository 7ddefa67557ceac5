"""Which device a job computes on, and which engine can serve there: chosen, and said, in one place.

Small models stay on the CPU, where their bytes are promised, whatever else the machine has.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from zpdbench.errors import UserError

DEVICES = ("cuda", "mps", "cpu")
VARIABLE = "ZPDBENCH_DEVICE"
"""Environment variable that overrides the choice."""


def choose(
    wants_gpu: bool, *, cuda: bool, mps: bool, environment: Mapping[str, str] = os.environ
) -> str:
    """cuda or mps, the first that is there, for a job that wants a GPU; else cpu.

    Raises:
        UserError: the environment asks for a device that is not there, or a GPU is wanted and there
            is none: on a CPU it would take weeks, and what gave no GPU would stay unseen.
    """
    there = {"cuda": cuda, "mps": mps, "cpu": True}
    asked = environment.get(VARIABLE)
    if asked is not None:
        if not there.get(asked, False):
            raise UserError(
                f"no device {asked!r} here",
                where=VARIABLE,
                fix=f"one of {', '.join(d for d in DEVICES if there[d])}, or unset it",
            )
        return asked
    if not wants_gpu:
        return "cpu"
    if not (cuda or mps):
        raise UserError("this model wants a GPU, and the job sees none", fix=NO_GPU)
    return "cuda" if cuda else "mps"


NO_GPU = (
    "on a cluster name a partition with GPUs for the rule (slurm_partition), in containers set "
    f"images: {{flavour: cuda, nv: true}}; or {VARIABLE}=cpu, if the CPU is meant"
)


def gpu_here(
    system: str | None = None, machine: str | None = None, root: Path = Path("/")
) -> str | None:
    """What shows that this machine has a GPU that torch can use, without loading torch; or None."""
    system = platform.system() if system is None else system
    machine = platform.machine() if machine is None else machine
    if system == "Darwin":
        return "Metal" if machine == "arm64" else None
    found = [f for f in ("dev/nvidia0", "dev/dxg", "dev/kfd") if (root / f).exists()]
    return f"/{found[0]}" if found else None


def find(wants_gpu: bool) -> str:
    """`choose` with what torch sees on this machine."""
    import torch

    return choose(wants_gpu, cuda=torch.cuda.is_available(), mps=torch.backends.mps.is_available())


def engine_for(
    system: str | None = None,
    machine: str | None = None,
    installed: Callable[[str], bool] | None = None,
) -> str:
    """What generations.engine: auto means here: vllm, or transformers where it is not.

    vLLM has wheels for Linux (CUDA, and CPU on x86-64); elsewhere transformers serves.
    """
    from importlib.util import find_spec

    system = platform.system() if system is None else system
    machine = platform.machine() if machine is None else machine
    installed = installed or (lambda name: find_spec(name) is not None)
    if system == "Linux" and machine in ("x86_64", "aarch64") and installed("vllm"):
        return "vllm"
    return "transformers"
