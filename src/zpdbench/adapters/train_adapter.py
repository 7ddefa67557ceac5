"""`zpdbench train-adapter`: fine-tune one run, a model under a condition with a seed."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import devices, files, grid, resources, study
from zpdbench.errors import UserError
from zpdbench.progress import track

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("id", "language", "prompt", "response", "difficulty", "split")


def main(args: argparse.Namespace) -> int:
    """Train one run and write its folder: `step{step}/`, trace.parquet, MANIFEST.json.

    Raises:
        UserError: what the user can mend; see `docs/methods/curriculum.md`.
    """
    started = time.perf_counter()
    settings = study.load(args.study)
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
    condition, the seed, the checkpoint and the corpus (on one machine, with one number of threads).

    Raises:
        UserError: an unknown name, a corpus that does not fit, a loss that is not finite.
    """
    started = time.perf_counter() if started is None else started
    training = settings.training
    _known(model, settings.models, "models")
    _known(condition, settings.conditions, "conditions")
    base = files.read_manifest(checkpoint)
    frame = read_corpus(corpus)

    import numpy as np
    import torch
    from safetensors.torch import save

    from zpdbench.adapters import decoder, encoding, lora, trace
    from zpdbench.adapters.learner import ModelLearner
    from zpdbench.adapters.loop import Run, Settings
    from zpdbench.adapters.optimiser import AdamW
    from zpdbench.adapters.state import FORMAT, Store, arithmetic
    from zpdbench.curriculum import conditions, diagnosis, registry

    torch.set_num_threads(training.threads)
    imported = time.perf_counter()

    corpus_digest = files.sha256_file(corpus)
    encoder = encoding.Encoder(checkpoint)
    tokens = encoding.load_or_encode(
        encoder,
        frame["prompt"].to_list(),
        frame["response"].to_list(),
        training.max_tokens,
        corpus_digest,
        files.cache_folder(),
    )
    fits = tokens.fits
    is_probe = (frame["split"] == "probe").to_numpy()
    trainable = np.flatnonzero(~is_probe & fits)
    probe = np.flatnonzero(is_probe & fits)
    if not len(trainable) or not len(probe):
        raise UserError(
            f"of {len(frame)} examples {len(trainable)} are left to train on and {len(probe)} as "
            f"probe after {int((~fits).sum())} whose response exceeds {training.max_tokens} tokens",
            where=str(corpus),
            fix="raise training.max_tokens, or give more examples",
        )
    ids = frame["id"].to_list()
    languages = frame["language"].to_list()
    told = conditions.Told(
        ids=[ids[r] for r in trainable],
        difficulty=frame["difficulty"].to_numpy()[trainable].astype(np.float64),
        languages=[languages[r] for r in trainable],
        drawn=conditions.multiset(len(trainable), training.steps, training.batch_size, seed),
        steps=training.steps,
        batch_size=training.batch_size,
        seed=seed,
    )
    chosen = settings.conditions[condition]
    plan = registry.make(condition, chosen.order, chosen.options, told)

    dtype = torch.bfloat16 if training.precision == "bfloat16" else torch.float32
    device = devices.find(resources.gpus(settings, model) > 0)
    network = decoder.load(checkpoint, dtype, device)
    layers = lora.apply(
        network,
        training.lora.target_modules,
        training.lora.rank,
        training.lora.alpha,
        training.lora.dropout,
        seed,
    )
    parameters = [p for layer in layers.values() for p in (layer.lora_a, layer.lora_b)]
    adapted = sum(layer.base.in_features + layer.base.out_features for layer in layers.values())
    optimiser = AdamW(parameters, training.weight_decay, training.max_grad_norm)
    both = tokens.take(np.concatenate([trainable, probe]))
    learner = ModelLearner(
        network,
        both,
        np.arange(len(trainable), len(trainable) + len(probe)),
        rank=training.lora.rank,
        adapted=adapted,
        device=device,
    )
    key = files.digest(
        [
            FORMAT,
            arithmetic(),
            training.model_dump(mode="json"),
            chosen.model_dump(mode="json"),
            seed,
            base["digest"],
            corpus_digest,
            encoder.digest,
            torch.__version__,
        ]
    )
    steps = grid.evaluation_steps(training.steps, training.evaluate_every)
    run = Run(
        network,
        optimiser,
        plan,
        learner,
        both,
        Settings(
            steps=training.steps,
            batch_size=training.batch_size,
            micro_batch=training.micro_batch or training.batch_size,
            learning_rate=training.learning_rate,
            warmup=training.warmup,
            evaluation_steps=steps,
            seed=seed,
            dropout=training.lora.dropout > 0,
            device=device,
        ),
        Store(key),
        lambda: save(dict(sorted(lora.tensors(layers).items())), {"format": "pt"}),
    )
    resumed_at = run.resume()
    ready = time.perf_counter()
    with track(f"{model} {condition} s{seed}", training.steps, done=resumed_at) as bar:
        if resumed_at:
            bar.advance(0, f"resumed at step {resumed_at}")
        run.train(lambda note: bar.advance(1, note))

    progress = run.progress
    done = trace.table(progress.steps, progress.updates, told.ids)
    order = np.concatenate([s["rows"] for s in progress.steps]).astype(np.int64)
    used = np.unique(order)
    fixed = chosen.order in ("easy_to_hard", "hard_to_easy")
    config = lora.config_text(
        model, list(layers), training.lora.rank, training.lora.alpha, training.lora.dropout
    )
    cut = tokens.cut[trainable]
    facts: dict[str, Any] = {
        "kind": "adapter",
        "model": model,
        "condition": condition,
        "order": chosen.order,
        "seed": seed,
        "steps": steps,
        "base": base["digest"],
        "corpus": corpus_digest,
        "trained_parameters": int(optimiser.values.numel()),
        "examples_train": len(trainable),
        "examples_probe": len(probe),
        "examples_used": len(used),
        "examples_too_long": int((~fits).sum()),
        "examples_cut": int((cut[used] > 0).sum()),
        "tokens_cut": int(cut[used].sum()),
        "passes": round(training.steps * training.batch_size / len(trainable), 6),
        "notes": corpus_notes(corpus),
        "diagnosis": diagnosis.describe(
            [{**u["facts"], "step": u["step"]} for u in progress.updates],
            keep=getattr(plan.options, "keep", None),
            difficulty=told.difficulty[order] if not fixed else None,
            max_repeats=getattr(plan.options, "max_repeats", None),
        ),
    }
    with files.atomic_directory(out) as folder:
        for step in steps:
            target = folder / grid.adapter_step(step)
            target.mkdir()
            (target / "adapter_model.safetensors").write_bytes(run.store.adapter(step))
            (target / "adapter_config.json").write_text(config, "utf-8")
        trace.write(folder / "trace.parquet", done)
        files.write_manifest(folder, facts)
        _write_timing(folder, progress, started, imported, ready, done)
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
            f"the difficulty of row {row + 1} (id {frame['id'][row]}) is no number", where=str(path)
        )
    return frame


def corpus_notes(path: Path) -> list[str]:
    """What make-corpus says must stand beside every result (shortfalls, examples left out)."""
    import polars as pl

    said = pl.read_parquet_metadata(path).get("zpdbench")
    return json.loads(said)["notes"] if said else []


def _known(name: str, names: Any, section: str) -> None:
    if name not in names:
        raise UserError(
            f"no {name!r} under {section}", where="study", fix=f"one of {', '.join(names)}"
        )


def _write_timing(
    folder: Path, progress: Any, started: float, imported: float, ready: float, done: Any
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
    }
    files.write_text(folder / "train.timing.json", json.dumps(timing, indent=1) + "\n")
    rows = [("step", s["step"], s["seconds"]) for s in progress.steps]
    rows += [("update", u["step"], u["seconds"]) for u in progress.updates]
    frame = pl.DataFrame(rows, schema=["kind", "step", "seconds"], orient="row")
    trace.write(folder / "steps.timing.parquet", frame)
