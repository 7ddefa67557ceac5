"""Which device a job computes on, and which engine can serve there: chosen, and said, in one place.

Small models stay on the CPU, where their bytes are promised, whatever else the machine has.
"""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import IO

from zpdbench import arithmetic
from zpdbench.errors import UserError

DEVICES = ("cuda", "mps", "cpu")
VARIABLE = "ZPDBENCH_DEVICE"
"""Environment variable that overrides the choice."""


def choose(
    wants_gpu: bool,
    *,
    cuda: bool,
    mps: bool,
    or_cpu: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """cuda or mps, the first that is there, for a job that wants a GPU; else cpu.

    Args:
        or_cpu: whether the CPU will do where there is no GPU.

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
    if not wants_gpu or (or_cpu and not (cuda or mps)):
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


def has_bfloat16(root: Path = Path("/")) -> bool:
    """Whether this machine multiplies bfloat16 matrices itself: a GPU, or such instructions.

    Told without torch, as it is asked before any job; AVX-512 alone only imitates the arithmetic.
    """
    if gpu_here(root=root) is not None:
        return True
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(arithmetic.processor(root).flags)


def find(wants_gpu: bool, count: int = 1, *, or_cpu: bool = False) -> str:
    """`choose` with what torch sees on this machine; `count` free cards are claimed before.

    Args:
        count: 0 only looks, and waits for nobody.
        or_cpu: as in `choose`.
    """
    if wants_gpu and count and os.environ.get(VARIABLE, "cuda") == "cuda":
        claim(count)
    import torch

    return choose(
        wants_gpu,
        cuda=torch.cuda.is_available(),
        mps=torch.backends.mps.is_available(),
        or_cpu=or_cpu,
    )


def best() -> str:
    """The best device that torch sees here, or the one that the environment asks for."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    return choose(cuda or mps, cuda=cuda, mps=mps)


_held: list[IO[str]] = []
"""Locks of this process's cards, kept until it ends."""


def claim(
    count: int,
    *,
    cards: Sequence[str] | None = None,
    folder: Path | None = None,
    environment: MutableMapping[str, str] = os.environ,
    patience: float = 5.0,
) -> list[str]:
    """Take `count` free cards of a machine that several jobs share, and make only those visible.

    A card is free if nobody holds its lock file. Nothing is done where a scheduler has bound cards
    (in a job of Slurm), where there are none, or where this process has taken some already.

    Args:
        cards: what can be taken; else CUDA_VISIBLE_DEVICES, else all of this machine.
        folder: of the lock files; else ZPDBENCH_CACHE/gpus.
        patience: seconds between looks while too few are free.

    Returns:
        The cards taken, as they stand in CUDA_VISIBLE_DEVICES.

    Raises:
        UserError: there are fewer cards than that.
    """
    if _held or "SLURM_JOB_ID" in environment:
        return []
    cards = _cards(environment) if cards is None else cards
    if not cards:
        return []
    if len(cards) < count:
        raise UserError(
            f"the job wants {count} GPUs, and there are {len(cards)}",
            fix="take a smaller model, or a machine with more",
        )
    folder = folder or Path(environment.get("ZPDBENCH_CACHE") or ".cache/zpdbench") / "gpus"
    folder.mkdir(parents=True, exist_ok=True)
    # All or none, under one lock: two jobs that hold half of what each needs would wait for ever.
    while True:
        with (folder / f"{platform.node()}.lock").open("a") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            taken: dict[str, IO[str]] = {}
            for card in cards:
                if len(taken) == count:
                    break
                handle = (folder / f"{platform.node()}-{card}.lock").open("a")
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    taken[card] = handle
                except BlockingIOError:
                    handle.close()
            if len(taken) == count:
                break
            for held in taken.values():
                held.close()
        time.sleep(patience)
    _held.extend(taken.values())
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    return list(taken)


def _cards(environment: Mapping[str, str]) -> list[str]:
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [card.strip() for card in given.split(",") if card.strip()]
    return sorted((p.name[6:] for p in Path("/dev").glob("nvidia[0-9]*")), key=int)


def memory_gb(device: str) -> float:
    """Memory of a device in 10^9 bytes: a GPU's own, of mps what the system lets it have, RAM."""
    if device == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    import torch

    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory / 1e9
    return torch.mps.recommended_max_memory() / 1e9


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
