"""The model as a condition may see it: scoring passes, each charged in tokens and FLOPs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from zpdbench.adapters import flops
from zpdbench.adapters.batches import Rows, by_length, pack
from zpdbench.adapters.decoder import Decoder
from zpdbench.adapters.encoding import Tokens
from zpdbench.adapters.loss import measure
from zpdbench.curriculum.competence import Measures, Probe, calibration_error

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
        device: str = "cpu",
    ) -> None:
        """
        Args:
            tokens: all encoded examples, the probe's too.
            probe_rows: rows of `tokens` that are the probe.
            rank, adapted: as in `flops.forward`.
        """
        self.model, self.tokens, self.probe_rows = model, tokens, probe_rows
        self.rank, self.adapted, self.device = rank, adapted, device
        self.charge = Charge()

    def probe(self) -> Probe:
        """Measures over all response tokens of the probe."""
        columns, owner = self._tokens(self.probe_rows)
        count = np.bincount(owner)
        means = [float((np.bincount(owner, weights=c) / count).mean()) for c in columns[:3]]
        loss, confidence, entropy, correct = columns
        return Probe(
            loss=float(loss.mean()),
            confidence=float(confidence.mean()),
            entropy=float(entropy.mean()),
            accuracy=float(correct.mean()),
            calibration_error=calibration_error(confidence, correct > 0.5),
            by_example=(means[0], means[1], means[2]),
        )

    def score(self, rows: Rows) -> Measures:
        """Measures of each example in `rows`, in that order."""
        columns, owner = self._tokens(rows)
        count = np.bincount(owner, minlength=len(rows))
        means = [np.bincount(owner, weights=c, minlength=len(rows)) / count for c in columns[:3]]
        return Measures(means[0], means[1], means[2], count)

    @torch.no_grad()
    def _tokens(self, rows: Rows) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
        """[loss, confidence, entropy, correct] of each response token, and its example."""
        was_training = self.model.training
        self.model.eval()
        columns: list[list[NDArray[np.float64]]] = [[], [], [], []]
        owners: list[NDArray[np.int64]] = []
        for part in by_length(self.tokens, rows, SCORING_BUDGET):
            batch = pack(self.tokens, rows[part], self.device)
            found = measure(self.model(batch), self.model.head, batch.targets)
            values = (found.loss, found.confidence, found.entropy, found.correct)
            for column, value in zip(columns, values, strict=True):
                column.append(value.cpu().double().numpy())
            owners.append(part[batch.owner.cpu().numpy()])
            self.charge.tokens += sum(batch.lengths)
            self.charge.flops += flops.forward(
                self.model.shape, batch.lengths, len(batch.targets), self.rank, self.adapted
            )
        self.model.train(was_training)
        return [np.concatenate(c) for c in columns], np.concatenate(owners)
