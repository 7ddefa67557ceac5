"""An order of one's own for ZPD-Bench: trains next on what the model finds least likely now."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from zpdbench.curriculum.conditions import Block, Condition, Learner, Options


class SpacedOptions(Options):
    """Steps between two looks at the model, and how many examples are looked at."""

    update_every: int = Field(100, gt=0)
    pool_size: int = Field(512, gt=0)


class Spaced(Condition):
    """See the module."""

    Options = SpacedOptions
    uses_model = True

    def block(self, step: int, learner: Learner) -> Block:
        """The next `update_every` steps' rows: the hardest of a seeded pool."""
        told, options = self.told, self.options
        size = min(options.pool_size, len(told.distinct))
        pool = told.generator(100, step).choice(told.distinct, size, replace=False)
        loss = learner.score(pool).loss
        need = min(options.update_every, told.steps - step) * told.batch_size
        hardest = pool[np.argsort(-loss, kind="stable")]
        return Block(np.resize(hardest, need), {"pool": len(pool), "mean_loss": float(loss.mean())})
