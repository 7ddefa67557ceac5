"""`zpdbench train-adapter`: fine-tune one run, a model under a condition with a seed."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import arithmetic, files, grid, resources, startup, study
from zpdbench.adapters import parallel
from zpdbench.errors import UserError
from zpdbench.progress import Task, track

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from zpdbench.curriculum.conditions import Rows, Told

COLUMNS = ("id", "language", "prompt", "response", "difficulty", "split")


def main(args: argparse.Namespace) -> int:
    """Train one run and write its folder: `step{step}/`, trace.parquet, MANIFEST.json.

    Raises:
        UserError: what the user can mend; see `docs/methods/curriculum.md`.
    """
    started = time.perf_counter()
    read = study.load(args.study)
    arithmetic.choose(read.computes)
    settings = study.resolve(read)
    processes = settings.training.processes
    if processes > 1 and not parallel.started(processes):
        given = {k: v for k, v in vars(args).items() if k != "verb"}
        return parallel.launch(processes, given, resources.wants_gpu(settings, args.model))
    # Before torch is loaded: its thread pools are made once.
    os.environ["OMP_NUM_THREADS"] = str(settings.training.threads)
    run = train(
        settings,
        model=args.model,
        condition=args.condition,
        seed=args.seed,
        checkpoint=Path(args.checkpoint),
        corpus=Path(args.corpus),
        out=Path(args.out),
        started=started,
    )
    if run:
        print(run, file=sys.stderr)
    return 0


def train(
    settings: study.Study,
    *,
    model: str,
    condition: str,
    seed: int,
    checkpoint: Path,
    corpus: Path,
    out: Path,
    started: float | None = None,
) -> str:
    """Train one run into folder `out`; returns a line that sums it up.

    The bytes of all files but `*.timing.*` depend only on the configuration's `training:` and
    condition, the seed, the checkpoint and the corpus (on one machine, with one number of threads
    and of processes). Of several processes each calls this; the first writes, the others return
    an empty line.

    Raises:
        UserError: an unknown name, a corpus that does not fit, a loss that is not finite.
    """
    started = time.perf_counter() if started is None else started
    training = settings.training
    _known(model, settings.models, "models")
    _known(condition, settings.conditions, "conditions")
    base = files.read_manifest(checkpoint)
    with startup.uncollected():
        import numpy as np
        import torch

        from zpdbench.adapters import base_perplexity, encoding, methods, trace
        from zpdbench.adapters.learner import ModelLearner
        from zpdbench.adapters.loop import Run, Settings
        from zpdbench.adapters.state import FORMAT, Store, trainer
        from zpdbench.curriculum import diagnosis, registry

        frame = read_corpus(corpus)

    torch.set_num_threads(training.threads)
    imported = time.perf_counter()
    group = parallel.join(
        training.processes,
        resources.wants_gpu(settings, model),
        or_cpu=not resources.needs_gpu(settings, model),
    )

    corpus_digest = files.sha256_file(corpus)
    encoder = encoding.Encoder(checkpoint, date=settings.template_date)
    if not group.leads:
        group.wait()  # for the tokens that the first process puts into the cache
    tokens = encoding.load_or_encode(
        encoder,
        frame["prompt"].to_list(),
        frame["response"].to_list(),
        training.max_tokens,
        corpus_digest,
        files.cache_folder(),
    )
    if group.leads:
        group.wait()
    fits = tokens.fits
    trainable, probe = split(frame, fits, training.max_tokens, corpus)
    ids = frame["id"].to_list()
    difficulty = None
    own = settings.corpus.difficulty == "base_perplexity"
    if own:
        difficulty = base_perplexity.normalised(
            base_perplexity.losses(
                checkpoint,
                tokens,
                trainable,
                [
                    base["digest"],
                    corpus_digest,
                    encoder.digest,
                    training.max_tokens,
                    settings.computes,
                ],
                files.cache_folder(),
                torch.bfloat16 if training.precision == "bfloat16" else torch.float32,
                group,
            ),
            frame["language"].gather(trainable).to_list(),
        )
    told = told_of(training, frame, trainable, seed, difficulty)
    chosen = settings.conditions[condition]
    plan = registry.make(condition, chosen.order, chosen.options, told)

    trained = methods.prepare(training, checkpoint, model, seed, group)
    both = tokens.take(np.concatenate([trainable, probe]))
    learner = ModelLearner(
        trained.network,
        both,
        np.arange(len(trainable), len(trainable) + len(probe)),
        rank=trained.rank,
        adapted=trained.adapted,
        group=group,
        sharded=trained.sharded,
        ids=[ids[r] for r in [*trainable, *probe]],
    )
    key = files.digest(
        [
            FORMAT,
            trainer(),
            settings.computes,
            training.model_dump(mode="json", exclude={"gradient_checkpointing"}),
            chosen.model_dump(mode="json"),
            seed,
            base["digest"],
            corpus_digest,
            encoder.digest,
            torch.__version__,
            *([files.digest(told.difficulty.tolist())] if own else []),
        ]
    )
    steps = settings.evaluation_steps
    run = Run(
        trained.network,
        trained.optimiser,
        plan,
        learner,
        both,
        Settings(
            steps=training.steps,
            batch_size=training.batch_size,
            micro_batch=training.micro_batch or training.batch_size,
            learning_rate=training.learning_rate,
            warmup=training.warmup,
            saved_steps=grid.evaluation_steps(training.steps, training.evaluate_every),
            kept_steps=steps,
            seed=seed,
            dropout=training.method == "lora" and training.lora.dropout > 0,
            full=training.method == "full",
        ),
        Store(key, group=group, sharded=trained.sharded),
        trained.export,
    )
    resumed_at = run.resume()
    ready = time.perf_counter()
    with _progress(group, f"{model} {condition} s{seed}", training.steps, resumed_at) as bar:
        if resumed_at:
            bar.advance(0, f"resumed at step {resumed_at}")
        run.train(lambda note: bar.advance(1, note))
    parallel.leave(group)
    if not group.leads:
        return ""

    progress = run.progress
    done = trace.table(progress.steps, progress.updates, told.ids)
    order = np.concatenate([s["rows"] for s in progress.steps]).astype(np.int64)
    used = np.unique(order)
    fixed = chosen.order in ("easy_to_hard", "hard_to_easy")
    cut = tokens.cut[trainable]
    facts: dict[str, Any] = {
        "kind": "adapter" if training.method == "lora" else "full",
        "model": model,
        "condition": condition,
        "order": chosen.order,
        "seed": seed,
        "steps": steps,
        "base": base["digest"],
        "corpus": corpus_digest,
        "trained_parameters": trained.size,
        "examples_train": len(trainable),
        "examples_probe": len(probe),
        "examples_used": len(used),
        "examples_too_long": int((~fits).sum()),
        "examples_cut": int((cut[used] > 0).sum()),
        "tokens_cut": int(cut[used].sum()),
        "examples_ended_early": sum(
            encoder.ends_early(frame["response"][int(r)]) for r in trainable[used]
        ),
        "passes": round(training.steps * training.batch_size / len(trainable), 6),
        "difficulty": settings.corpus.difficulty,
        "difficulty_digest": files.digest(told.difficulty.tolist()),
        "notes": corpus_notes(corpus),
        "diagnosis": diagnosis.describe(
            [{**u["facts"], "step": u["step"]} for u in progress.updates],
            keep=getattr(plan.options, "carried", None),
            difficulty=told.difficulty[order] if not fixed else None,
            max_repeats=getattr(plan.options, "max_repeats", None),
        ),
    }
    with files.atomic_directory(out) as folder:
        for step in steps:
            trained.write(folder / grid.adapter_step(step), run.store.weights(step))
        trace.write(folder / "trace.parquet", done)
        files.write_manifest(folder, facts)
        how = {"processes": group.size, "gradient_checkpointing": trained.network.checkpointing}
        _write_timing(folder, progress, started, imported, ready, how)
    run.store.clear()
    last = progress.steps[-1]["loss"]
    seconds = time.perf_counter() - started
    return (
        f"{model} {condition} s{seed}: {training.steps} steps in {seconds:.1f} s, "
        f"loss {progress.steps[0]['loss']:.3f} to {last:.3f}, {len(used)} distinct examples"
        + (
            f", {facts['examples_cut']} cut at {training.max_tokens}"
            if facts["examples_cut"]
            else ""
        )
    )


def split(
    frame: pl.DataFrame, fits: NDArray[Any], max_tokens: int, corpus: Path
) -> tuple[Rows, Rows]:
    """The rows of a corpus to train on, and those of the probe.

    Args:
        fits: whether each row's response is within `max_tokens`, shape (rows,).

    Raises:
        UserError: none of either is left.
    """
    import numpy as np

    is_probe = (frame["split"] == "probe").to_numpy()
    trainable, probe = (np.flatnonzero(part & fits) for part in (~is_probe, is_probe))
    if not len(trainable) or not len(probe):
        raise UserError(
            f"of {len(frame)} examples {len(trainable)} are left to train on and {len(probe)} as "
            f"probe after {int((~fits).sum())} whose response exceeds {max_tokens} tokens",
            where=str(corpus),
            fix="raise training.max_tokens, or give more examples",
        )
    return trainable, probe


def told_of(
    training: study.Training,
    frame: pl.DataFrame,
    trainable: Rows,
    seed: int,
    difficulty: NDArray[Any] | None = None,
) -> Told:
    """What a condition is told of a run.

    Args:
        difficulty: of the trainable rows; the corpus's own if None.
    """
    import numpy as np

    from zpdbench.curriculum import conditions

    mine = frame[trainable]
    if difficulty is None:
        difficulty = mine["difficulty"].to_numpy().astype(np.float64)
    return conditions.Told(
        ids=mine["id"].to_list(),
        difficulty=difficulty,
        languages=mine["language"].to_list(),
        drawn=conditions.multiset(len(trainable), training.steps, training.batch_size, seed),
        steps=training.steps,
        batch_size=training.batch_size,
        seed=seed,
    )


def read_corpus(path: Path) -> pl.DataFrame:
    """A corpus as make-corpus writes it, checked.

    Raises:
        UserError: unreadable, a missing column, an empty response, a number that is none.
    """
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(
            f"no readable Parquet file ({error.__class__.__name__})",
            where=str(path),
            fix="delete it; it is made again",
        ) from error
    missing = [c for c in COLUMNS if c not in frame.columns]
    if missing:
        raise UserError(
            f"no column {', '.join(missing)}",
            where=str(path),
            fix=f"a corpus has {', '.join(COLUMNS)}",
        )
    empty = frame["response"].fill_null("").str.strip_chars().str.len_chars() == 0
    if empty.any():
        row = int(empty.arg_true()[0])
        raise UserError(
            f"the response of row {row + 1} (id {frame['id'][row]}) is empty",
            where=str(path),
            fix="take the row out, or give it a response",
        )
    bad = frame["difficulty"].is_null() | frame["difficulty"].is_nan()
    if bad.any():
        row = int(bad.arg_true()[0])
        raise UserError(
            f"the difficulty of row {row + 1} (id {frame['id'][row]}) is no number",
            where=str(path),
            fix="delete the corpus file; it is made again",
        )
    return frame


def corpus_notes(path: Path) -> list[str]:
    """What make-corpus says must stand beside every result (shortfalls, examples left out)."""
    import polars as pl

    said = pl.read_parquet_metadata(path).get("zpdbench")
    return json.loads(said)["notes"] if said else []


@contextmanager
def _progress(group: parallel.Group, title: str, steps: int, done: int) -> Iterator[Task]:
    """`track`, by the first process only."""
    if group.leads:
        with track(title, steps, done=done) as bar:
            yield bar
    else:
        yield _Silent()


class _Silent:
    def advance(self, amount: float = 1.0, note: str = "") -> None:
        pass


def _known(name: str, names: Any, section: str) -> None:
    if name not in names:
        raise UserError(
            f"no {name!r} under {section}", where="study", fix=f"one of {', '.join(names)}"
        )


def _write_timing(
    folder: Path, progress: Any, started: float, imported: float, ready: float, how: Any
) -> None:
    """train.timing.json and steps.timing.parquet: seconds, rates, peak memory."""
    import polars as pl

    from zpdbench.adapters import trace

    training = progress.seconds.get("training", 0.0)
    tokens = sum(s["tokens"] for s in progress.steps)
    operations = sum(s["flops"] for s in progress.steps)
    timing = {
        "seconds": time.perf_counter() - started,
        "seconds_imports": imported - started,
        "seconds_loading": ready - imported,
        "seconds_training": training,
        "seconds_scoring": progress.seconds.get("scoring", 0.0),
        "tokens_per_second": tokens / training if training else None,
        "gflops_per_second": operations / training / 1e9 if training else None,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "resumed": progress.resumed,
        **how,
    }
    files.write_text(folder / "train.timing.json", json.dumps(timing, indent=1) + "\n")
    rows = [("step", s["step"], s["seconds"]) for s in progress.steps]
    rows += [("update", u["step"], u["seconds"]) for u in progress.updates]
    frame = pl.DataFrame(rows, schema=["kind", "step", "seconds"], orient="row")
    trace.write(folder / "steps.timing.parquet", frame)
