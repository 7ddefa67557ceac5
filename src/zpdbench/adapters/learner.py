"""The model as a condition may see it: scoring passes, each charged in tokens and FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from zpdbench.adapters import flops
from zpdbench.adapters.batches import Rows, by_length, pack
from zpdbench.adapters.decoder import Decoder
from zpdbench.adapters.encoding import Tokens
from zpdbench.adapters.loss import measure
from zpdbench.adapters.parallel import Group
from zpdbench.curriculum.competence import Measures, Probe, calibration_error
from zpdbench.errors import UserError

SCORING_BUDGET = 4096
"""Padded tokens of one scoring batch."""


@dataclass
class Charge:
    """What scoring has cost so far."""

    tokens: int = 0
    flops: int = 0

    def take(self) -> tuple[int, int]:
        """(tokens, FLOPs) since the last call."""
        taken = (self.tokens, self.flops)
        self.tokens = self.flops = 0
        return taken


class ModelLearner:
    """`curriculum.conditions.Learner` on a decoder."""

    def __init__(
        self,
        model: Decoder,
        tokens: Tokens,
        probe_rows: Rows,
        rank: int = 0,
        adapted: int = 0,
        group: Group | None = None,
        sharded: bool = False,
        ids: Sequence[str] | None = None,
    ) -> None:
        """
        Args:
            tokens: all encoded examples, the probe's too.
            probe_rows: rows of `tokens` that are the probe.
            rank, adapted: as in `flops.forward`.
            group: the processes that share the batches; each gets all measures.
            sharded: whether the processes hold parts of one model, so that all must pass at once.
            ids: the examples' names, row by row of `tokens`, for error messages.
        """
        self.model, self.tokens, self.probe_rows = model, tokens, probe_rows
        self.rank, self.adapted = rank, adapted
        self.group, self.sharded = group or Group(), sharded
        self.ids = ids
        self.charge = Charge()

    def probe(self) -> Probe:
        """Measures over all response tokens of the probe."""
        columns, owner = self._tokens(self.probe_rows)
        count = np.bincount(owner)
        each = [np.bincount(owner, weights=c) / count for c in columns[:3]]
        means = [float(values.mean()) for values in each]
        medians = [float(np.median(values)) for values in each]
        loss, confidence, entropy, correct = columns
        return Probe(
            loss=float(loss.mean()),
            confidence=float(confidence.mean()),
            entropy=float(entropy.mean()),
            accuracy=float(correct.mean()),
            calibration_error=calibration_error(confidence, correct > 0.5),
            by_example=(means[0], means[1], means[2]),
            median=(medians[0], medians[1], medians[2]),
        )

    def score(self, rows: Rows) -> Measures:
        """Measures of each example in `rows`, in that order."""
        columns, owner = self._tokens(rows)
        count = np.bincount(owner, minlength=len(rows))
        means = [np.bincount(owner, weights=c, minlength=len(rows)) / count for c in columns[:3]]
        return Measures(means[0], means[1], means[2], count)

    @torch.no_grad()
    def _tokens(self, rows: Rows) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
        """[loss, confidence, entropy, correct] of each response token, and its example.

        Raises:
            UserError: a measure is not finite; a condition would go on from it in silence.
        """
        was_training = self.model.training
        self.model.eval()
        group = self.group
        # The same batches however many processes there are, so the same measures to the last bit.
        parts = list(by_length(self.tokens, rows, SCORING_BUDGET))
        own = [self._measure(rows, part) for part in parts[group.rank :: group.size]]
        if self.sharded and len(own) < -(-len(parts) // group.size):
            self._measure(rows, parts[0])
        by_rank = group.gather(own)
        measured = [by_rank[i % group.size][i // group.size] for i in range(len(parts))]
        for part in parts:
            lengths = self.tokens.lengths[rows[part]].tolist()
            targets = sum(lengths) - int(self.tokens.prompts[rows[part]].sum())
            self.charge.tokens += sum(lengths)
            self.charge.flops += flops.forward(
                self.model.shape, lengths, targets, self.rank, self.adapted
            )
        self.model.train(was_training)
        joined = [np.concatenate(column) for column in zip(*(m[0] for m in measured), strict=True)]
        owner = np.concatenate([m[1] for m in measured])
        bad = ~np.isfinite(joined).all(axis=0)
        if bad.any():
            row = int(rows[owner[bad].min()])
            raise UserError(
                f"the model's loss is not finite where example "
                f"{row if self.ids is None else self.ids[row]} is scored",
                where="training",
                fix="look at the example, or lower training.learning_rate (a changed corpus or "
                "setting starts anew; the same ones go on from the last evaluation point)",
            )
        return joined, owner

    def _measure(
        self, rows: Rows, part: Rows
    ) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
        """`_tokens` of one batch, `part` of `rows`."""
        # On a CPU a score is the example's own to the last bit, whatever it is scored beside.
        device = self.group.device
        batch = pack(self.tokens, rows[part], device, apart=device == "cpu")
        found = measure(self.model(batch), self.model.head, batch.targets)
        values = (found.loss, found.confidence, found.entropy, found.correct)
        return [v.cpu().double().numpy() for v in values], part[batch.owner.cpu().numpy()]
