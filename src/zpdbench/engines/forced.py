"""Forced decoding in vLLM: a request may prescribe the tokens that it generates.

Each step's log-probabilities are taken before this processor runs (`logprobs_mode:
raw_logprobs`), so they are the model's own. Being built in every worker before the LoRA layers are,
it also brings in `zpdbench.engines.punica`, in a server as in this process.
"""

from __future__ import annotations

from typing import Any

import torch

from zpdbench.engines import punica  # before vLLM: see there

# isort: split
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

KEY = "zpdbench_forced"
"""Key of `SamplingParams.extra_args`: the ids to generate first, in order."""


class ForcedDecoding(LogitsProcessor):
    """Lets only the prescribed next token through, until the prescription is used up."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        punica.install()
        self.device = device
        # Row -> (prescribed ids, the row's ids so far, a list that vLLM goes on filling).
        self.rows: dict[int, tuple[list[int], list[int]]] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Check that a prescription is a list of ids.

        Raises:
            ValueError: it is something else.
        """
        forced = (sampling_params.extra_args or {}).get(KEY)
        if forced is None:
            return
        if not isinstance(forced, list) or not all(isinstance(t, int) and t >= 0 for t in forced):
            raise ValueError(f"{KEY} must be a list of token ids")

    def is_argmax_invariant(self) -> bool:
        """It changes the greedy choice, so vLLM must not skip it."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests as they enter, leave and move in the batch."""
        process_dict_updates(self.rows, batch_update, _start)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mask `logits` (batch x vocabulary), in place."""
        rows, tokens = [], []
        for row, (forced, generated) in self.rows.items():
            if len(generated) < len(forced):
                rows.append(row)
                tokens.append(forced[len(generated)])
        if rows:
            index = torch.tensor(rows, device=self.device)
            logits[index] = float("-inf")
            logits[index, torch.tensor(tokens, device=self.device)] = 0.0
        return logits


def _start(
    params: SamplingParams, prompt: list[int] | None, generated: list[int]
) -> tuple[list[int], list[int]] | None:
    forced = (params.extra_args or {}).get(KEY)
    return (forced, generated) if forced else None
