"""Named machines, for plans: what their makers publish, and what was measured here.

A figure that no maker publishes stands as None; a plan then says so instead of guessing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """One device.

    Attributes:
        memory_gb: of the device, in 10^9 bytes; of a Mac what GPU and programs share.
        tflops: dense bfloat16 matrix arithmetic with float32 sums, 10^12 a second; None: not
            published.
        bandwidth_gbs: of that memory, 10^9 bytes a second; None: not published.
        source: where the figures stand.
    """

    name: str
    memory_gb: float
    tflops: float | None
    bandwidth_gbs: float | None
    source: str


MACHINES = {
    "rtx4090": Machine(
        "RTX 4090", 24, 165.2, 1008, "NVIDIA Ada GPU Architecture whitepaper, appendix A"
    ),
    "a100": Machine("A100 80 GB", 80, 312, 2039, "NVIDIA A100 80GB (SXM) datasheet"),
    "h100": Machine("H100 80 GB", 80, 989.4, 3350, "NVIDIA H100 (SXM) datasheet, without sparsity"),
    "mac-mini-m4-pro": Machine(
        "Mac mini M4 Pro 24 GB", 24, None, 273, "Apple, Mac mini (2024) technical specifications"
    ),
    "mac-studio-m3-ultra": Machine(
        "Mac Studio M3 Ultra 96 GB", 96, None, 819, "Apple, Mac Studio (2025) specifications"
    ),
}

UTILISATION = (0.25, 0.5)
"""Share of a GPU's published arithmetic that training reaches, from a cautious figure to a good
one: 0.44 to 0.52 on A100s for large batches (Narayanan et al. 2021, table 1); one GPU with small
batches and adapters reaches less."""

BANDWIDTH_SHARE = (0.5, 0.8)
"""Share of the published bandwidth that generating one token for a batch reaches: our assumption,
as reading all weights a token is what bounds it (Pope et al. 2022, section 2)."""

CPU_CORE_GFLOPS = 95.0
"""Float32 matrix products on one core of the machine whose rates and seconds stand below (two cores
with AVX-512: 190 together). `core_rate` measures the same on another one, and all of them follow
that ratio; docs/r4.md compares them with studies measured on both kinds of machine."""

# GFLOP/s of training (forward and backward, float32) there, by number of parameters:
# config/mini.yaml's models on one thread, config/smol.yaml's on two.
CPU_GFLOPS = ((1.06e6, 32.0), (1.35e8, 110.0))
CPU_PACKED = 1.25
"""How much faster than that an embedded model is made: rows full of text, all weights trained."""
CPU_START_SECONDS = 2.6
"""A training job there without training: the process, imports, loading, writing."""

# Tokens a second that vLLM writes there for a full batch, float32: measured with a
# model of a million parameters and with SmolLM2-135M.
CPU_TOKENS = ((1.06e6, 6900.0), (1.35e8, 188.0))
CPU_ENGINE_SECONDS = 22.0
"""A generation job there before and after its answers: imports, loading, checks, writing."""
SCORE_SECONDS = 0.8
"""A scoring job there without programs."""
PROGRAMS_A_SECOND = 700.0
"""Programs of config/mini.yaml judged there a second, two at once; longer ones take longer."""
CPU_FOLDER_SECONDS = 30.0
"""A base model there that is not trained: files read, hashed, converted, written."""
CPU_TABLE_SECONDS = 2.3
"""Any other job there, as a table or the report; of a large corpus docs/performance.md speaks."""


def cpu_gflops(parameters: float) -> float:
    """GFLOP/s of training a model of this size on that machine, between the measured ones."""
    return _between(CPU_GFLOPS, parameters)


def cpu_tokens_a_second(parameters: float) -> float:
    """Tokens a second that a model of this size writes on that machine.

    Beyond the largest measured one in proportion to the weights that are read for each.
    """
    largest = CPU_TOKENS[1][0]
    return _between(CPU_TOKENS, parameters) / max(1.0, parameters / largest)


def _between(measured: tuple[tuple[float, float], tuple[float, float]], parameters: float) -> float:
    (small, low), (large, high) = measured
    share = (math.log(parameters) - math.log(small)) / (math.log(large) - math.log(small))
    return low * (high / low) ** min(max(share, 0.0), 1.0)
