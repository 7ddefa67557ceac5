"""LoRA on CPU, one matrix product an adapter instead of one a token.

vLLM 0.32's CPU fallback gathers the whole A and B of its adapter for every token, which is
memory traffic of rank x (in + out) a token and took 70 % of the time of a small model's batch.
Rows of one adapter are brought together once a step, and each adapter multiplies its rows.
Rows of the base are left alone: vLLM's fallback gives them slot -1, that is the last slot, which
is the base only while that slot is empty.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's wrapper of LoRA products for float32 on CPU; other types go vLLM's own way."""

    order: torch.Tensor | None
    """Row numbers sorted by adapter; None where they already are."""
    groups: list[tuple[int, int, int]]
    """(slot, first row, last row + 1) in that order, base rows left out."""

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
        slots = self.token_lora_indices
        values, counts = torch.unique_consecutive(slots, return_counts=True)
        self.order = None
        if len(set(values.tolist())) < len(values):
            self.order = torch.argsort(slots, stable=True)
            values, counts = torch.unique_consecutive(slots[self.order], return_counts=True)
        self.groups = []
        start = 0
        for slot, count in zip(values.tolist(), counts.tolist(), strict=True):
            if slot >= 0:
                self.groups.append((slot, start, start + count))
            start += count

    def add_shrink(
        self,
        y: tuple[torch.Tensor, ...] | torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        scale: float,
        **kwargs: Any,
    ) -> None:
        """y[i] = scale * x @ A_i^T, rows of y[i] in this step's `order`.

        Args:
            y: per slice, rows x rank, float32.
            x: rows x in.
            lora_a_stacked: per slice, slots x 1 x rank x in.
            scale: as PEFT's alpha / rank where vLLM has not merged it into B.
        """
        x = x.view(-1, x.shape[-1])
        if not _is_float32(x, lora_a_stacked):
            super().add_shrink(y, x, lora_a_stacked, scale, **kwargs)
            return
        if self.order is not None:
            x = x.index_select(0, self.order)
        for out, a in zip(y, lora_a_stacked, strict=True):
            for slot, start, end in self.groups:
                torch.mm(x[start:end], a[slot, 0].t(), out=out[start:end])
            if scale != 1.0:
                out.mul_(scale)

    def add_expand(
        self,
        y: torch.Tensor,
        x: tuple[torch.Tensor, ...] | torch.Tensor,
        lora_b_stacked: tuple[torch.Tensor, ...],
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """y[:, slice i] += x[i] @ B_i^T, x in this step's `order` as `add_shrink` left it.

        Args:
            y: rows x out, changed in place.
            x: per slice, rows x rank.
            lora_b_stacked: per slice, slots x 1 x out x rank.
            output_slices: width of each slice.
            offset_start: first column.
            add_inputs: whether to add to y; vLLM's linear layers always do.
        """
        y = y.view(-1, y.shape[-1])
        if not add_inputs or not _is_float32(y, lora_b_stacked):
            super().add_expand(
                y, x, lora_b_stacked, output_slices, offset_start, add_inputs, **kwargs
            )
            return
        width = sum(output_slices)
        target = y[:, offset_start : offset_start + width]
        delta = None if self.order is None else torch.zeros((y.shape[0], width))
        column = 0
        for rows, b, size in zip(x, lora_b_stacked, output_slices, strict=True):
            for slot, start, end in self.groups:
                weight = b[slot, 0, :size].t()
                if delta is None:
                    target[start:end, column : column + size].addmm_(rows[start:end], weight)
                else:
                    torch.mm(rows[start:end], weight, out=delta[start:end, column : column + size])
            column += size
        if delta is not None and self.order is not None:
            target.index_add_(0, self.order, delta)


def _is_float32(x: torch.Tensor, stacked: tuple[torch.Tensor, ...]) -> bool:
    return x.dtype == torch.float32 and all(
        w.dtype == torch.float32 and w.dim() == 4 for w in stacked
    )
