"""Which arithmetic a job computes in: the same on all processors of a class, or this one's own.

Libraries choose their kernels by the processor and by variables that they read once, when they are
loaded or first used. They are set here and nowhere else, before anything loads torch, numpy or
vLLM. What the variables do was measured (docs/methods/arithmetic.md):

- oneMKL ends a product's rows in another way than it computes the others, so a row depends on how
  many rows there are, unless MKL_CBWR names a branch with STRICT. Without it neither `portable` nor
  "the same answer whoever is asked beside" holds on an Intel.
- On processors of other makers oneMKL ignores MKL_CBWR. There only products of fewer than four rows
  are computed in another way; `MIN_ROWS` fills those up.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from zpdbench.errors import UserError

Setting = Literal["portable", "native"]

MIN_ROWS = 8
"""Rows from which on a product's rows do not depend on their number (measured: 4)."""

NO_CLASS = "no x86-64 with AVX2"
"""In place of a class: this processor has no portable arithmetic."""

_CHOSEN = "ZPDBENCH_ARITHMETIC"
"""Tells the processes that a job starts what was chosen; no setting of the user's."""

_PORTABLE = {
    "MKL_CBWR": "AVX2,STRICT",
    "ATEN_CPU_CAPABILITY": "avx2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
_TABLES = {
    "OPENBLAS_CORETYPE": "Haswell",
    "KIWI_ARCH_TYPE": "avx2",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL "
    "AVX512_SPR",
}
"""For numpy, scipy and kiwipiepy: their work is small, so it is portable in both settings."""


@dataclass(frozen=True)
class Processor:
    """What is asked of a processor.

    Attributes:
        machine: its architecture, as `platform.machine` says it.
        vendor: as it calls itself, `GenuineIntel`.
        model: its name.
        flags: what it can do, as Linux names it.
    """

    machine: str
    vendor: str
    model: str
    flags: frozenset[str]

    @property
    def is_x86(self) -> bool:
        """Whether it is an x86-64."""
        return self.machine.lower() in ("x86_64", "amd64")

    @property
    def has_avx2(self) -> bool:
        """Whether it has what `portable` computes with."""
        return self.is_x86 and {"avx2", "fma"} <= self.flags

    @property
    def has_avx512(self) -> bool:
        """Whether oneMKL has an AVX-512 branch for it."""
        return {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= self.flags


@cache
def processor(root: Path = Path("/")) -> Processor:
    """This machine's; /proc is looked for below `root`."""
    facts = {"vendor_id": "unknown", "model name": platform.machine(), "flags": ""}
    try:
        lines = (root / "proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in reversed(lines):
        key, _, value = line.partition(":")
        key = "flags" if key.strip() == "Features" else key.strip()  # so it is on an ARM
        if key in facts:
            facts[key] = value.strip()
    return Processor(
        platform.machine(),
        facts["vendor_id"],
        facts["model name"],
        frozenset(facts["flags"].split()),
    )


def variables(setting: Setting, cpu: Processor, given: Mapping[str, str]) -> dict[str, str]:
    """What has to stand in the environment.

    Args:
        given: the environment; MKL_ENABLE_INSTRUCTIONS in it makes oneMKL take the processor for a
            lesser one.

    Raises:
        UserError: the processor has not what `portable` computes with.
    """
    found: dict[str, str] = {_CHOSEN: setting}
    if cpu.has_avx2:
        found |= _TABLES
    if setting == "portable":
        check(cpu)
        return found | _PORTABLE
    if cpu.has_avx2:
        least = given.get("MKL_ENABLE_INSTRUCTIONS", "").upper() in ("AVX2", "AVX", "SSE4_2")
        branch = "AVX512" if cpu.has_avx512 and not least else "AVX2"
        found["MKL_CBWR"] = f"{branch},STRICT"
    return found


def check(cpu: Processor | None = None) -> None:
    """Whether a processor (this one) can compute portably.

    Raises:
        UserError: it has no AVX2.
    """
    cpu = cpu or processor()
    if not cpu.has_avx2:
        raise UserError(
            f"this processor ({cpu.model}) has not the instructions of portable arithmetic "
            "(x86-64 with AVX2)",
            where="arithmetic: portable",
            fix="set arithmetic: native; the numbers are then this processor's own",
        )


def choose(setting: Setting) -> None:
    """Set what the libraries of this process, and of those that it starts, will read.

    Raises:
        UserError: as `variables`.
    """
    wanted = variables(setting, processor(), os.environ)
    if os.environ.get(_CHOSEN) == "portable":
        for name in _PORTABLE:
            os.environ.pop(name, None)
    os.environ.update(wanted)


def choose_tables() -> None:
    """`choose` for what computes with numpy alone; what torch reads stays as it is."""
    if processor().has_avx2:
        os.environ.update(_TABLES)


def is_portable() -> bool:
    """Whether this process computes portably."""
    return os.environ.get(_CHOSEN) == "portable"


def hide_extensions() -> None:
    """Have torch say of a portable process's processor that AVX2 is all it has.

    vLLM asks it which of its compiled kernels to load.
    """
    if is_portable():
        import torch

        cpu: Any = torch.cpu
        for name in ("avx512", "avx512_bf16", "amx_tile", "amx_fp16", "vnni"):
            if hasattr(cpu, f"_is_{name}_supported"):
                setattr(cpu, f"_is_{name}_supported", lambda: False)


def filled(x: Any) -> Any:
    """A tensor (rows, ...), on a CPU with rows of zeros up to MIN_ROWS.

    Of a product by it, then, a row is its own alone.
    """
    if len(x) >= MIN_ROWS or x.device.type != "cpu":
        return x
    import torch

    return torch.cat((x, x.new_zeros(MIN_ROWS - len(x), *x.shape[1:])))


def portable_class(cpu: Processor | None = None) -> str:
    """The processors on which portable arithmetic gives the same bytes as on this one.

    Two makers' differ where oneMKL has kernels of its own for each. `NO_CLASS` where it has not
    what portable arithmetic needs.
    """
    cpu = cpu or processor()
    if not cpu.has_avx2:
        return NO_CLASS
    makers = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "AMD"}
    return f"x86-64 with AVX2, {makers.get(cpu.vendor, cpu.vendor)}"
