"""LoRA on CPU, one matrix product an adapter instead of one a token.

vLLM 0.32's CPU fallback gathers the whole A and B of its adapter for every token, which is
memory traffic of rank x (in + out) a token and took 70 % of the time of a small model's batch.
Rows of one adapter are brought together once a step, and each adapter multiplies its rows.
Rows of the base are left alone: vLLM's fallback gives them slot -1, that is the last slot, whose
adapter is then added to them as soon as that slot has ever been filled; nor is a slot emptied when
its adapter leaves. With more adapters than slots, passing through, base answers came out wrong.
"""

from __future__ import annotations

from typing import Any

import torch

from zpdbench import arithmetic
from zpdbench.arithmetic import MIN_ROWS

# vLLM loads its compiled kernels when it is imported.
arithmetic.hide_extensions()

from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU  # noqa: E402
from vllm.model_executor.layers import utils  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402


def install() -> None:
    """Have vLLM use these products in this process, if it runs on CPU.

    To be called before vLLM builds its layers: `ForcedDecoding`, which is built before them in
    every worker process, does so.
    """
    if current_platform.is_cpu():
        utils.cpu_unquantized_gemm = linear
        name = f"{GroupedPunicaWrapper.__module__}.{GroupedPunicaWrapper.__qualname__}"
        current_platform.get_punica_wrapper = lambda: name  # type: ignore[method-assign]


def linear(
    layer: Any,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """vLLM's linear layer; in float32 fewer than MIN_ROWS rows, (rows, in), are filled up."""
    if x.dtype != torch.float32 or x.dim() != 2:
        return layer.cpu_linear(x, weight, bias)
    return layer.cpu_linear(arithmetic.filled(x), weight, bias)[: len(x)]


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's wrapper of LoRA products on CPU, rows grouped by adapter; sums are in float32.

    In float32 a row's result does not depend on which rows are beside it, bit for bit: the matrix
    library changes its way of summing only below `MIN_ROWS` rows, so smaller groups are filled up.
    """

    order: torch.Tensor | None
    """Rows sorted by adapter, base rows left out; None if each adapter's rows are one block."""
    filling: torch.Tensor | None
    """Positions of `order` that only fill a small group up."""
    groups: list[tuple[int, int, int]]
    """(slot, first, last + 1) in `order`, or in the batch itself if that is None."""

    def update_metadata(
        self,
        mapping: Any,
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **kwargs: Any,
    ) -> None:
        """Note which rows belong together in the step to come."""
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        self.order, self.filling, self.groups = group_rows(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        """y[:, slice i] += scale * x @ A_i^T @ B_i^T, each row with its adapter's A and B.

        Args:
            y: rows x out, changed in place.
            x: rows x in.
            lora_a_stacked: per slice, slots x 1 x rank x in.
            lora_b_stacked: per slice, slots x 1 x (out of the slice) x rank.
            scale: 1 where vLLM has merged alpha / rank into B, as it does.
            output_slices: width of each slice.
        """
        if buffer is not None or kwargs or any(w.dim() != 4 for w in lora_a_stacked):
            raise NotImplementedError("vLLM calls LoRA layers in a way that is not known here")
        if not self.groups:
            return
        x = x.view(-1, x.shape[-1])
        y = y.view(-1, y.shape[-1])
        weights = list(zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True))
        direct = self.order is None and y.dtype == torch.float32
        if self.order is not None:
            x = x.index_select(0, self.order)
        x = x.float()
        delta = y if direct else x.new_zeros(len(x), sum(output_slices))
        for slot, start, end in self.groups:
            rows, column = x[start:end], 0
            for a, b, size in weights:
                inner = torch.mm(rows, a[slot, 0].float().t())
                target = delta[start:end, column : column + size]
                target.addmm_(inner, b[slot, 0, :size].float().t(), alpha=scale)
                column += size
        if direct:
            return
        if self.filling is not None:
            delta[self.filling] = 0.0
        target = y[:, : delta.shape[1]]
        if self.order is None:
            target.add_(delta)
        else:
            target.index_add_(0, self.order, delta.to(y.dtype))


def group_rows(
    slots: torch.Tensor,
) -> tuple[torch.Tensor | None, torch.Tensor | None, list[tuple[int, int, int]]]:
    """Bring the rows of each adapter together.

    Args:
        slots: each row's adapter slot, -1 for the base; int64.

    Returns:
        `order`, `filling` and `groups` as `GroupedPunicaWrapper` has them.
    """
    values, counts = (t.tolist() for t in torch.unique_consecutive(slots, return_counts=True))
    blocks = [(v, c) for v, c in zip(values, counts, strict=True) if v >= 0]
    if len({v for v, _ in blocks}) == len(blocks) and all(c >= MIN_ROWS for _, c in blocks):
        groups, start = [], 0
        for value, count in zip(values, counts, strict=True):
            if value >= 0:
                groups.append((value, start, start + count))
            start += count
        return None, None, groups
    rows = torch.argsort(slots, stable=True)
    values, counts = (t.tolist() for t in torch.unique_consecutive(slots[rows], return_counts=True))
    parts: list[torch.Tensor] = []
    filling: list[int] = []
    groups, start, taken = [], 0, 0
    for value, count in zip(values, counts, strict=True):
        if value >= 0:
            parts.append(rows[taken : taken + count])
            lacking = max(0, MIN_ROWS - count)
            if lacking:
                parts.append(rows[taken].repeat(lacking))
                filling += range(start + count, start + MIN_ROWS)
            groups.append((value, start, start + count + lacking))
            start += count + lacking
        taken += count
    return torch.cat(parts), torch.tensor(filling) if filling else None, groups
