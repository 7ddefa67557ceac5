"""What a run's first update would be, told by the untouched base model, before any training.

An adapter adds nothing before its first step, so a condition that asks the model sees the base
model's measures first: what is found here is what the run will find, to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from zpdbench import estimate, files, grid
from zpdbench.study import Study, load

UNASKED = 2e12
"""Floating-point operations of a model's updates up to which `lines` looks unasked: seconds."""


def facts(
    settings: Study, conditions: Iterable[str], seed: int, checkpoint: Path, corpus: Path
) -> Iterator[Mapping[str, Any]]:
    """The facts of each condition's first update (`conditions.UPDATE_FACTS`); none if it has none.

    Args:
        checkpoint, corpus: as make-checkpoint and make-corpus write them.

    Raises:
        UserError: a file that cannot be read, or a condition that does not fit.
    """
    import numpy as np
    import torch

    from zpdbench.adapters import decoder, encoding
    from zpdbench.adapters.learner import ModelLearner
    from zpdbench.adapters.train_adapter import read_corpus, split, told_of
    from zpdbench.curriculum import registry

    training, frame = settings.training, read_corpus(corpus)
    tokens = encoding.load_or_encode(
        encoding.Encoder(checkpoint, date=settings.template_date),
        frame["prompt"].to_list(),
        frame["response"].to_list(),
        training.max_tokens,
        files.sha256_file(corpus),
        files.cache_folder(),
    )
    trainable, probe = split(frame, tokens.fits, training.max_tokens, corpus)
    rows = np.concatenate([trainable, probe])
    dtype = torch.bfloat16 if training.precision == "bfloat16" else torch.float32
    learner = ModelLearner(
        decoder.load(checkpoint, dtype),
        tokens.take(rows),
        np.arange(len(trainable), len(rows)),
        ids=frame["id"].gather(rows).to_list(),
    )
    told = told_of(training, frame, trainable, seed)
    for name in conditions:
        chosen = settings.conditions[name]
        first = registry.make(name, chosen.order, chosen.options, told).block(0, learner)
        yield first.facts or {}


def lines(study: Study, *, asked: bool = False) -> Iterator[str]:
    """What the window of each zpd holds before training, or why that is not told, a line each.

    Reads the base models and the corpus in the study's results folder, if they are there and made
    by this configuration. A window that is not fed is a line that begins with `warning:`.

    Args:
        asked: whether to look however long it takes.

    Raises:
        UserError: as `facts`.
    """
    names = [n for n, c in study.conditions.items() if c.order == "zpd"]
    paths = grid.Paths(study.results)
    corpus, lock = Path(paths.corpus(study.corpus.name)), Path(paths.study_lock)
    made = load(lock) if lock.is_file() else None
    for model in study.models if names else ():
        checkpoint = Path(paths.checkpoint(model))
        start = f"window before training, {model}:"
        if not corpus.is_file() or not (checkpoint / "MANIFEST.json").is_file():
            yield f"{start} told once {checkpoint} and {corpus} are made (ask snakemake for them)"
        elif made is None or not _same(study, made, model):
            yield f"{start} not told, {paths.results} holds another configuration's"
        elif (cost := _flop(study, model, names)) > UNASKED and not asked:
            yield f"{start} takes {cost:.1g} floating-point operations; `plan --window` tells it"
        else:
            try:
                each = facts(study, names, study.seeds[0], checkpoint, corpus)
                for name, found in zip(names, each, strict=True):
                    yield from _said(f"{name} in {model}", study.seeds[0], found)
            except ImportError as error:
                yield f"{start} not told, {error.name} is not installed here"


def _same(study: Study, made: Study, model: str) -> bool:
    """Whether base model and corpus of the results folder are those of this configuration."""
    which = SimpleNamespace(model=model)
    return (
        model in made.models
        and study.corpus.name == made.corpus.name
        and study.digest("make_corpus") == made.digest("make_corpus")
        and study.digest("make_checkpoint", which) == made.digest("make_checkpoint", which)
    )


def _flop(study: Study, model: str, names: list[str]) -> float:
    """Floating-point operations of one update of each condition."""
    tokens = 0.0
    for name in names:
        every = int(study.conditions[name].options.get("update_every", 500))
        updates = -(-study.training.steps // every)
        tokens += estimate.training_tokens(study, model, name)[1] / updates
    return 2.0 * estimate.parameters(study, model) * tokens


def _said(what: str, seed: int, found: Mapping[str, Any]) -> Iterator[str]:
    from zpdbench.curriculum import diagnosis

    high = "" if found["high"] is None else f" to {found['high']:.3g}"
    yield (
        f"window before training, {what}, s{seed}: {found['low']:.3g}{high} around "
        f"{found['perplexity']:.3g} holds {found['occupancy']:.0%} of the pool "
        f"({found['pool_below']:.0%} below it, easier; "
        f"{1.0 - found['pool_below'] - found['occupancy']:.0%} above it, harder); of the first "
        f"block {1.0 - found['fallback']:.0%} from inside, mean response "
        f"{found['drawn_tokens']:.1f} tokens (pool {found['pool_tokens']:.1f})"
    )
    if said := diagnosis.unfed(found):
        yield f"warning: {what}, s{seed}, before training: {said}"
