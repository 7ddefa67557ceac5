"""Conditions as plug-ins: the interface, and the ones that come with ZPD-Bench.

A condition decides which examples are trained on, and in which order. It is told once what the run
is (`Told`) and then asked for a block of examples whenever the trainer has none left; it may ask
the model how hard examples are for it now (`Learner`), which is charged to it. Nothing between a
condition and the loss reorders: row i of the block is trained on in batch i // batch_size.

Another package brings a condition by an entry point in the group `zpdbench.conditions`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from zpdbench.curriculum import competence as measure
from zpdbench.curriculum.window import Window, draw

Rows = NDArray[np.int64]
Positive = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class Told:
    """What a condition knows of its run; the same for all conditions of a seed.

    Attributes:
        ids: the training examples' identifiers; a *row* is a position in this list.
        difficulty: difficulty before training, shape (n,), in [0, 1].
        languages: language of each example.
        drawn: the seed's multiset of rows, shape (steps * batch_size,), in random order: without
            replacement until the corpus is used up, then again.
        steps: optimiser steps of the run.
        batch_size: examples a step.
        seed: the run's seed.
    """

    ids: Sequence[str]
    difficulty: NDArray[np.float64]
    languages: Sequence[str]
    drawn: Rows
    steps: int
    batch_size: int
    seed: int

    @property
    def distinct(self) -> Rows:
        """The distinct rows of `drawn`, ascending: what a condition may select from."""
        return np.unique(self.drawn)

    def generator(self, *stream: int) -> np.random.Generator:
        """A random generator of this seed; other `stream` numbers give independent ones.

        Made anew from counters, so a resumed run needs no generator's state. The numbers are a
        spawn key: as further entropy (1,) and (1, 0) would be one stream, and none the multiset's.
        """
        sequence = np.random.SeedSequence([self.seed, 0x5A9D], spawn_key=(1, *stream))
        return np.random.default_rng(sequence)


class Learner(Protocol):
    """The model as it is now. Every call is charged to the condition (tokens, FLOPs, seconds)."""

    def probe(self) -> measure.Probe:
        """Measures on the held-out probe."""
        ...

    def score(self, rows: Rows) -> measure.Measures:
        """Measures on these examples, in the order of `rows`."""
        ...


@dataclass(frozen=True)
class Block:
    """The next examples to train on.

    Attributes:
        rows: their rows in training order; a positive multiple of batch_size, and no more than
            what is left of the run.
        facts: what to record of this update; names of `UPDATE_FACTS` get a column each, others go
            to the column `facts` as JSON. None if nothing was updated.
    """

    rows: Rows
    facts: Mapping[str, Any] | None = field(default=None)


UPDATE_FACTS = (
    "probe_loss",
    "probe_confidence",
    "probe_entropy",
    "probe_accuracy",
    "calibration_error",
    "competence",
    "perplexity",
    "perplexity_smoothed",
    "competence_smoothed",
    "alpha",
    "beta",
    "low",
    "high",
    "pool",
    "inside",
    "occupancy",
    "fallback",
    "fallback_below",
    "pool_below",
    "pool_tokens",
    "drawn_tokens",
    "pool_reuse",
    "repeats_max",
    "distinct",
    "coverage",
)
"""What an update may record; `docs/methods/curriculum.md` defines each."""


class Options(BaseModel):
    """A condition's options: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Condition(ABC):
    """A condition. Subclasses give `Options` and `block`, and `state`/`restore` if they remember.

    Attributes:
        uses_model: whether `block` calls the learner (else a plan without a model is possible).
    """

    Options: ClassVar[type[Options]] = Options
    uses_model: ClassVar[bool] = False

    def __init__(self, told: Told, options: Any) -> None:
        """
        Args:
            told: what the run is.
            options: an instance of this class's `Options`.

        Raises:
            ValueError: the options do not fit the run; the message says why.
        """
        self.told = told
        self.options = options

    @classmethod  # noqa: B027 - most fit any run
    def check(cls, options: Any, steps: int, batch_size: int, distinct: int) -> None:
        """Refuse what cannot be done; asked for all conditions before any job starts.

        Args:
            distinct: different examples a seed has, at most.

        Raises:
            ValueError: the options do not fit the run; the message says why.
        """

    @abstractmethod
    def block(self, step: int, learner: Learner) -> Block:
        """The next examples, asked for after `step` optimiser steps (0 before the first)."""

    def state(self) -> dict[str, Any]:
        """All that `block` remembers between calls, as JSON-able values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 - most remember nothing
        """Take back what `state` gave."""


class RandomOptions(Options):
    """Options of `random`."""

    draw: Annotated[
        int,
        Field(
            ge=0,
            description="0: what all conditions of a seed share; others are each a draw of its "
            "own, for a null control",
        ),
    ] = 0


class Random(Condition):
    """The seed's examples in the order they were drawn: plain shuffling.

    With `draw` 1, 2, ... other examples in another order, drawn as the seed's are but apart from
    them: a treatment that is none, so a test of it has nothing to find.
    """

    Options = RandomOptions

    def block(self, step: int, learner: Learner) -> Block:
        told, draw = self.told, self.options.draw
        if not draw:
            return Block(told.drawn)
        generator = told.generator(4, draw)
        rows = _passes(len(told.ids), told.steps * told.batch_size, generator)
        return Block(rows, {"draw": draw})


class EasyToHard(Condition):
    """The seed's examples sorted by difficulty, easiest first, once over the whole run."""

    def block(self, step: int, learner: Learner) -> Block:
        rows = self.told.drawn
        return Block(rows[np.argsort(self.told.difficulty[rows], kind="stable")])


class HardToEasy(Condition):
    """The seed's examples sorted by difficulty, hardest first, once over the whole run."""

    def block(self, step: int, learner: Learner) -> Block:
        rows = self.told.drawn
        return Block(rows[np.argsort(-self.told.difficulty[rows], kind="stable")])


class ZpdOptions(Options):
    """Options of `zpd`; the eight ablations are settings of these (config/ablations.yaml)."""

    update_every: Positive = 500
    pool_size: Positive = 2048
    alpha: Annotated[float, Field(gt=0)] = 1.1
    beta: Annotated[float, Field(gt=0)] = 1.3
    keep: Annotated[float, Field(ge=0, lt=1, description="weight of the past in the EMA")] = 0.9
    adaptive: bool = True
    lower: bool = True
    upper: bool = True
    weights: Annotated[
        tuple[float, float, float],
        Field(description="of likelihood, confidence, certainty in competence"),
    ] = measure.WEIGHTS
    max_repeats: Annotated[int, Field(gt=0, description="of one example in a block")] = 4
    level: Annotated[
        Literal["tokens", "examples", "median"],
        Field(
            description="the model's measures: over the probe's tokens, or the mean or the median "
            "of its examples' means"
        ),
    ] = "tokens"
    per_steps: Annotated[
        int | None,
        Field(
            gt=0,
            description="steps that keep, the gain of 1 % and the stretch of 1.05 are meant for; "
            "none: one update, whatever its length",
        ),
    ] = None
    fallback_limit: Annotated[
        float | None,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="log distance to the window beyond which what lacks is drawn at random "
            "instead of by nearness; none: no limit",
        ),
    ] = None

    @property
    def updates(self) -> float:
        """How many of the updates that `keep`, gain and stretch are meant for one update is."""
        return 1.0 if self.per_steps is None else self.update_every / self.per_steps

    @property
    def carried(self) -> float:
        """Weight of the past in the moving average at one update."""
        return self.keep**self.updates

    @model_validator(mode="after")
    def _sensible(self) -> ZpdOptions:
        if self.alpha > self.beta:
            raise ValueError("alpha: must not be larger than beta")
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ValueError("weights: none negative, not all zero")
        return self


def _check_pool(options: Any, steps: int, batch_size: int, distinct: int) -> None:
    """Refuse a pool that the longest block cannot be drawn from."""
    pool = min(options.pool_size, distinct)
    longest = min(options.update_every, steps) * batch_size
    if longest > pool * options.max_repeats:
        raise ValueError(
            f"a block of {longest} examples cannot be drawn from a pool of {pool} "
            f"with each at most {options.max_repeats} times; "
            "make update_every smaller or pool_size larger"
        )


class Zpd(Condition):
    """Examples whose effective perplexity is just above the model's own.

    Every `update_every` steps: probe the model, smooth its effective perplexity, move the window,
    score a seeded pool of candidates, draw the next block from those inside the window.
    """

    Options = ZpdOptions
    uses_model = True

    def __init__(self, told: Told, options: ZpdOptions) -> None:
        super().__init__(told, options)
        self.pool_size = min(options.pool_size, len(told.distinct))
        self.check(options, told.steps, told.batch_size, len(told.distinct))
        self.window = Window(options.alpha, options.beta, options.lower, options.upper)
        self.smoothed: float | None = None
        self.last_competence: float | None = None
        self.used: set[int] = set()

    @classmethod
    def check(cls, options: Any, steps: int, batch_size: int, distinct: int) -> None:
        _check_pool(options, steps, batch_size, distinct)

    def block(self, step: int, learner: Learner) -> Block:
        told, options = self.told, self.options
        probe = learner.probe()
        level = {
            "tokens": (probe.loss, probe.confidence, probe.entropy),
            "examples": probe.by_example,
            "median": probe.median,
        }[options.level]
        now = float(measure.competence(*level, options.weights))
        perplexity = float(measure.effective_perplexity(now))
        self.smoothed = measure.smooth(self.smoothed, perplexity, options.carried)
        if options.adaptive:
            self.window = self.window.adapt(now, self.last_competence, options.updates)
        self.last_competence = now
        low, high = self.window.bounds(self.smoothed)

        generator = told.generator(1, step)
        pool = generator.choice(told.distinct, self.pool_size, replace=False)
        scored = learner.score(pool)
        perplexities = measure.effective_perplexity(
            measure.competence(scored.loss, scored.confidence, scored.entropy, options.weights)
        )
        need = min(options.update_every, told.steps - step) * told.batch_size
        drawn = draw(
            perplexities, low, high, need, options.max_repeats, generator, options.fallback_limit
        )
        rows = pool[drawn.positions]

        reuse = sum(int(r) in self.used for r in pool) / len(pool)
        distinct, counts = np.unique(rows, return_counts=True)
        self.used.update(int(r) for r in distinct)
        limited = options.fallback_limit is not None
        return Block(
            rows,
            {
                **({"fallback_random": drawn.beyond / need} if limited else {}),
                "probe_loss": level[0],
                "probe_confidence": level[1],
                "probe_entropy": level[2],
                "probe_accuracy": probe.accuracy,
                "calibration_error": probe.calibration_error,
                "competence": now,
                "perplexity": perplexity,
                "perplexity_smoothed": self.smoothed,
                "competence_smoothed": 1.0 / self.smoothed,
                "alpha": self.window.alpha,
                "beta": self.window.beta,
                "low": low,
                "high": None if math.isinf(high) else high,
                "pool": len(pool),
                "inside": drawn.inside,
                "occupancy": drawn.inside / len(pool),
                "fallback": drawn.fallback / need,
                "fallback_below": drawn.below / need,
                "pool_below": drawn.pool_below / len(pool),
                "pool_tokens": float(scored.tokens.mean()),
                "drawn_tokens": float(scored.tokens[drawn.positions].mean()),
                "pool_reuse": reuse,
                "repeats_max": int(counts.max()),
                "distinct": len(distinct),
                "coverage": len(self.used) / len(told.ids),
            },
        )

    def state(self) -> dict[str, Any]:
        return {
            "alpha": self.window.alpha,
            "beta": self.window.beta,
            "smoothed": self.smoothed,
            "last_competence": self.last_competence,
            "used": sorted(self.used),
        }

    def restore(self, state: dict[str, Any]) -> None:
        options = self.options
        self.window = Window(state["alpha"], state["beta"], options.lower, options.upper)
        self.smoothed = state["smoothed"]
        self.last_competence = state["last_competence"]
        self.used = set(state["used"])


PACING_UPDATES = 20
"""Blocks of a run of `competence_pacing`; its trace has a row with c(t) for each."""


class CompetencePacingOptions(Options):
    """Options of `competence_pacing`."""

    initial: Annotated[float, Field(gt=0, le=1, description="competence at the start, c0")] = 0.01
    duration: Annotated[
        float, Field(gt=0, le=1, description="share of the run until all examples are allowed")
    ] = 0.5


class CompetencePacing(Condition):
    """Competence-based pacing: uniform draws from the easiest c(t) of the seed's examples.

    `c(t) = min(1, sqrt(t (1 - c0^2) / T + c0^2))`, the square-root schedule of Platanios et al.
    2019, "Competence-based Curriculum Learning for Neural Machine Translation", equation 7 with
    p = 2. At least a batch is always allowed; a batch has no example twice unless the corpus is
    smaller than it.
    """

    Options = CompetencePacingOptions

    def competence(self, step: int) -> float:
        """c(t) after `step` steps."""
        c0 = self.options.initial
        share = step / (self.options.duration * self.told.steps)
        return min(1.0, math.sqrt(share * (1.0 - c0**2) + c0**2))

    def allowed(self, step: int, n: int) -> int:
        """How many of the n easiest examples the batch after `step` steps is drawn from."""
        return min(max(math.ceil(self.competence(step) * n), self.told.batch_size), n)

    def block(self, step: int, learner: Learner) -> Block:
        told = self.told
        rows = told.distinct
        easiest = rows[np.argsort(told.difficulty[rows], kind="stable")]
        steps = range(step, min(step + -(-told.steps // PACING_UPDATES), told.steps))
        batches = []
        for t in steps:
            allowed = self.allowed(t, len(easiest))
            replace = allowed < told.batch_size
            generator = told.generator(2, t)
            batches.append(generator.choice(easiest[:allowed], told.batch_size, replace=replace))
        block = np.concatenate(batches)
        distinct, counts = np.unique(block, return_counts=True)
        return Block(
            block,
            {
                "pacing": self.competence(step),
                "allowed": self.allowed(step, len(easiest)),
                "repeats_max": int(counts.max()),
                "distinct": len(distinct),
            },
        )


class SuccessProbabilityOptions(Options):
    """Options of `success_probability`."""

    update_every: Positive = 500
    pool_size: Positive = 2048
    max_repeats: Annotated[int, Field(gt=0, description="of one example in a block")] = 4


class SuccessProbability(Condition):
    """Draws with weight p (1 - p), p the model's probability of success on an example.

    The proximal curriculum of Tzannetos et al. 2023 (ProCuRL), equation 1 with an optimal policy
    that always succeeds. p is our operationalisation for language models: exp(-loss), the
    geometric mean probability of a response token. Weighted draws without replacement by
    Gumbel-top-k (Efraimidis and Spirakis 2006), each candidate present `max_repeats` times.
    """

    Options = SuccessProbabilityOptions
    uses_model = True

    def __init__(self, told: Told, options: SuccessProbabilityOptions) -> None:
        super().__init__(told, options)
        self.pool_size = min(options.pool_size, len(told.distinct))
        self.check(options, told.steps, told.batch_size, len(told.distinct))
        self.used: set[int] = set()

    @classmethod
    def check(cls, options: Any, steps: int, batch_size: int, distinct: int) -> None:
        _check_pool(options, steps, batch_size, distinct)

    def block(self, step: int, learner: Learner) -> Block:
        told, options = self.told, self.options
        generator = told.generator(3, step)
        pool = generator.choice(told.distinct, self.pool_size, replace=False)
        success = np.exp(-learner.score(pool).loss)
        weight = np.maximum(success * (1.0 - success), 1e-12)
        need = min(options.update_every, told.steps - step) * told.batch_size
        keys = np.log(np.tile(weight, options.max_repeats))
        keys = keys + generator.gumbel(size=len(keys))
        chosen = np.argsort(-keys, kind="stable")[:need] % len(pool)
        rows = generator.permutation(pool[chosen])
        reuse = sum(int(r) in self.used for r in pool) / len(pool)
        distinct, counts = np.unique(rows, return_counts=True)
        self.used.update(int(r) for r in distinct)
        return Block(
            rows,
            {
                "pool": len(pool),
                "pool_reuse": reuse,
                "repeats_max": int(counts.max()),
                "distinct": len(distinct),
                "coverage": len(self.used) / len(told.ids),
                "success_pool": float(success.mean()),
                "success_drawn": float(success[chosen].mean()),
            },
        )

    def state(self) -> dict[str, Any]:
        return {"used": sorted(self.used)}

    def restore(self, state: dict[str, Any]) -> None:
        self.used = set(state["used"])


def multiset(n: int, steps: int, batch_size: int, seed: int) -> Rows:
    """The rows that a seed trains on, in random order, shape (steps * batch_size,).

    Without replacement until all n rows are used, then another permutation, and so on.

    Raises:
        ValueError: n is 0.
    """
    if n < 1:
        raise ValueError("there is no training example")
    return _passes(n, steps * batch_size, np.random.default_rng([seed, 0x5A9D, 0]))


def _passes(n: int, need: int, generator: np.random.Generator) -> Rows:
    """Permutations of n rows one after the other, cut at `need`."""
    passes = [generator.permutation(n) for _ in range(-(-need // n))]
    return np.concatenate(passes)[:need].astype(np.int64)
