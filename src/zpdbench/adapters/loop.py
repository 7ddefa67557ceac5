"""The training loop: what a condition gives, in the order it gives it, and nothing else."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zpdbench import files
from zpdbench.adapters import flops
from zpdbench.adapters.batches import Rows, pack
from zpdbench.adapters.decoder import Decoder
from zpdbench.adapters.encoding import Tokens
from zpdbench.adapters.learner import ModelLearner
from zpdbench.adapters.loss import cross_entropy
from zpdbench.adapters.optimiser import Optimiser, schedule
from zpdbench.adapters.state import Progress, Store
from zpdbench.curriculum import diagnosis
from zpdbench.curriculum.conditions import Condition
from zpdbench.errors import UserError

EXIT_TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Settings:
    """What the loop needs of `training:`.

    Attributes:
        micro_batch: examples a forward pass; the gradient is that of the whole batch.
        saved_steps: where the state is saved.
        kept_steps: where the weights are kept, to be served.
        dropout: whether the adapter has dropout (its generator is then set at each step).
    """

    steps: int
    batch_size: int
    micro_batch: int
    learning_rate: float
    warmup: float
    saved_steps: Sequence[int]
    kept_steps: Sequence[int]
    seed: int
    dropout: bool = False
    full: bool = False


class Run:
    """One fine-tuning run that can be stopped at any step and taken up again."""

    def __init__(
        self,
        model: Decoder,
        optimiser: Optimiser,
        condition: Condition,
        learner: ModelLearner,
        tokens: Tokens,
        settings: Settings,
        store: Store,
        export: Callable[[], dict[str, Tensor]],
    ) -> None:
        """
        Args:
            tokens: encoded examples; the condition's rows index them.
            store: also says which processes share the run (`store.group`).
            export: what of the current weights is to be served, by name.
        """
        self.model, self.optimiser, self.condition = model, optimiser, condition
        self.learner, self.tokens, self.settings = learner, tokens, settings
        self.store, self.export, self.group = store, export, store.group
        self.progress = Progress()
        self.signalled = self.terminated = False

    def resume(self) -> int:
        """Take up the last saved state, if there is one; returns the step that it is at."""
        found = self.store.load()
        if found is None:
            return 0
        tensors, progress = found
        done = [s for s in self.settings.kept_steps if s <= progress.step]
        if not all(self.store.weights(s).is_file() for s in done):
            return 0
        self.optimiser.restore(tensors, progress.step)
        self.condition.restore(progress.condition)
        self.progress = progress
        progress.resumed += 1
        return progress.step

    def save(self) -> None:
        """Write the state of this moment."""
        self.progress.condition = self.condition.state()
        self.store.save(self.optimiser.state(), self.progress)

    def train(self, advance: Callable[[str], None]) -> None:
        """Run to the last step, saving at each evaluation point and on SIGTERM.

        Args:
            advance: called after each step with a note for the progress bar.

        Raises:
            UserError: the loss or the gradient is not finite; the last good state is kept.
            SystemExit: SIGTERM came; the state is saved.
        """
        settings, progress = self.settings, self.progress

        def stop(signum: int, frame: FrameType | None) -> None:
            self.signalled = True

        previous = signal.signal(signal.SIGTERM, stop)
        self.model.train()
        try:
            while progress.step < settings.steps:
                if not progress.queue:
                    self._ask()
                rows = np.array(progress.queue[: settings.batch_size], dtype=np.int64)
                loss = self._step(rows)
                del progress.queue[: settings.batch_size]
                advance(f"loss {loss:.3f}")
                if progress.step in settings.kept_steps:
                    self.store.save_weights(progress.step, self.export())
                if progress.step in settings.saved_steps:
                    self.save()
                if self.group.size == 1:
                    self.terminated = self.signalled
                if self.terminated and progress.step < settings.steps:
                    self.save()
                    raise SystemExit(EXIT_TERMINATED)
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _ask(self) -> None:
        """Let the condition give its next block, and record the update."""
        settings, progress = self.settings, self.progress
        start = time.perf_counter()
        block = self.condition.block(progress.step, self.learner)
        facts = None if block.facts is None else dict(block.facts)
        rows, facts = self.group.first(([int(r) for r in block.rows], facts))
        left = (settings.steps - progress.step) * settings.batch_size
        if not rows or len(rows) % settings.batch_size or len(rows) > left:
            raise UserError(
                f"{type(self.condition).__name__} gave {len(rows)} examples at step "
                f"{progress.step}",
                fix=f"a condition must give a positive multiple of {settings.batch_size}, "
                f"at most {left}",
            )
        progress.queue = rows
        said = diagnosis.unfed(facts or {})
        # The first time only, also of a run that is taken up again.
        if said and self.group.leads and not any(map(_unfed, progress.updates)):
            print(f"warning: step {progress.step}: {said}", file=sys.stderr, flush=True)
        tokens, operations = self.learner.charge.take()
        if facts is not None or tokens:
            progress.updates.append(
                {
                    "step": progress.step,
                    "block": len(rows),
                    "tokens_scored": tokens,
                    "flops": operations,
                    "facts": facts or {},
                    "seconds": time.perf_counter() - start,
                }
            )
        self._spent("scoring", start)

    def _step(self, rows: Rows) -> float:
        """One optimiser step on these examples; returns the mean loss a response token."""
        settings, progress, group = self.settings, self.progress, self.group
        start = time.perf_counter()
        if settings.dropout:
            # Counter-based: a resumed run draws what an undisturbed one would.
            torch.manual_seed(_counter_seed(settings.seed, progress.step, group.rank))
        # Every process has its share of the long examples and of the short ones.
        by_length = rows[np.argsort(-self.tokens.lengths[rows], kind="stable")]
        own = by_length[group.rank :: group.size]
        parts = [
            own[i : i + settings.micro_batch] for i in range(0, len(own), settings.micro_batch)
        ]
        n_targets = int((self.tokens.lengths[rows] - self.tokens.prompts[rows]).sum())
        total = 0.0
        bad: list[int] = []
        for part in parts:
            batch = pack(self.tokens, part, group.device)
            loss, each = cross_entropy(self.model(batch), self.model.head, batch.targets)
            value = loss.item()
            if not math.isfinite(value):
                wrong = batch.owner[~torch.isfinite(each)]
                bad += [int(part[int(wrong[0])])] if len(wrong) else part.tolist()
                if group.size == 1:
                    break
            (loss / n_targets).backward()
            total += value
        total = self._agree(total, bad)
        rate = settings.learning_rate * schedule(progress.step, settings.steps, settings.warmup)
        norm = self.optimiser.step(rate)
        if not math.isfinite(norm):
            raise self._not_finite("gradient", rows)
        progress.step += 1
        mean = total / n_targets
        progress.steps.append(
            {
                "step": progress.step,
                "loss": mean,
                "learning_rate": rate,
                "gradient_norm": norm,
                "rows": [int(r) for r in rows],
                "tokens": int(self.tokens.lengths[rows].sum()),
                "targets": n_targets,
                "flops": flops.training(
                    self.model.shape,
                    self.tokens.lengths[rows].tolist(),
                    n_targets,
                    self.learner.rank,
                    self.learner.adapted,
                    settings.full,
                ),
                "seconds": time.perf_counter() - start,
            }
        )
        self._spent("training", start)
        return mean

    def _agree(self, total: float, bad: list[int]) -> float:
        """The whole batch's loss; the processes also tell of SIGTERM and of a loss that is none.

        Raises:
            UserError: an example's loss is not finite.
        """
        if self.group.size > 1:
            told = torch.tensor(
                [0.0 if bad else total, len(bad), self.signalled],
                dtype=torch.float64,
                device=self.group.device,
            )
            self.group.sum(told)
            total, wrong, signalled = told.tolist()
            self.terminated = self.terminated or signalled > 0
            if wrong:
                bad = [row for rows in self.group.gather(bad) for row in rows]
        if bad:
            raise self._not_finite("loss", bad)
        return total

    def _spent(self, part: str, start: float) -> None:
        seconds = self.progress.seconds
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start

    def _not_finite(self, what: str, rows: Any) -> UserError:
        ids = ", ".join(str(self.condition.told.ids[int(r)]) for r in rows)
        # The weights are still those of the last good step; what is wrong may be mended outside
        # of the settings (a driver, a damaged device), and then the run goes on from here.
        self.save()
        return UserError(
            f"{what} is not finite at step {self.progress.step + 1}, example {ids}",
            where="training",
            fix="look at the example, or lower training.learning_rate (a changed corpus or setting "
            f"starts anew; the same ones go on from step {self.progress.step}, kept in "
            f"{self.store.folder})",
        )


def _unfed(update: dict[str, Any]) -> bool:
    return diagnosis.unfed(update["facts"]) is not None


def _counter_seed(seed: int, step: int, rank: int) -> int:
    return int(files.digest([seed, step, rank] if rank else [seed, step])[:15], 16)
