"""Products with bfloat16 operands and float32 sums, on machines with and without such arithmetic.

A CPU that lacks bfloat16 instructions multiplies bfloat16 matrices many times slower than float32
ones (8 to 40 times with AVX2 alone). There the operands are widened for the product, which changes
no operand's value, and its result is rounded as it would be anyway.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zpdbench import arithmetic
from zpdbench.arithmetic import MIN_ROWS, filled


def native(device: str) -> bool:
    """Whether a device of this type (cpu, cuda, mps) multiplies bfloat16 matrices itself.

    Portable arithmetic has no bfloat16 products: not all processors of its class do.
    """
    if device != "cpu":
        return True
    return not arithmetic.is_portable() and _cpu_multiplies_bfloat16()


@cache
def _cpu_multiplies_bfloat16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        # torch's own answer is yes for AVX-512 alone, which only imitates the arithmetic.
        cpu: Any = torch.cpu
        return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def operand(x: Tensor) -> Tensor:
    """`x` in the type to multiply it in: float32 instead of bfloat16 where that is not native."""
    if x.dtype == torch.bfloat16 and not native(x.device.type):
        return x.float()
    return x


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x.to(dtype)`; where there is nothing to do torch is not asked, hundreds of times a step."""
    return x if x.dtype == dtype else x.to(dtype)


class _Linear(torch.autograd.Function):
    """`x W' + b`, all bfloat16; saves x and W as they are: what is widened is not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        left = operand(x)
        bias = None if bias is None else bias.to(left.dtype)
        return functional.linear(left, operand(weight), bias).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wide = operand(dy)
        need_x, need_weight, need_bias = ctx.needs_input_grad
        dx = (wide @ operand(weight)).to(x.dtype) if need_x else None
        d_weight = (wide.T @ operand(x)).to(weight.dtype) if need_weight else None
        d_bias = wide.sum(0).to(x.dtype) if ctx.biased and need_bias else None
        return dx, d_weight, d_bias


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(tokens, in) -> (tokens, out) for a weight of x's type."""
    if x.dtype == torch.bfloat16:
        return _Linear.apply(x, weight, bias)
    if len(x) < MIN_ROWS and not torch.is_grad_enabled():
        return functional.linear(filled(x), weight, bias)[: len(x)]
    return functional.linear(x, weight, bias)


_GRAIN, _VECTORS = 32768, 32
"""Values that torch gives to one thread at least; values that its kernels take at a time."""


def rowwise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """An elementwise function of (rows, ...) that gives a row the same bits among any others.

    torch's kernels compute what is left over after whole vectors, at the end of each thread's
    share, by another formula. On a CPU without gradients the shares are whole rows.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled() or not len(x):
        return function(x)
    width = x.numel() // len(x)
    size = max(1, _GRAIN // width) if width % _VECTORS == 0 else 1
    parts = [function(part) for part in x.split(size)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
