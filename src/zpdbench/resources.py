"""What a job needs of a scheduler: memory, minutes and GPUs, from the model and the work to do.

Upper estimates, by the sizes in the configuration; nothing is measured and no file is read. Each
further attempt asks for more, so a profile that sets `retries` mends an estimate that was too low.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from zpdbench import grid
from zpdbench.study import Benchmark, EmbeddedModel, Study

_LIBRARIES_MB = 1500  # torch, transformers and their code, resident
_EMBEDDED_PARAMETERS = 2_000_000
_UNKNOWN_PARAMETERS = 200_000_000
# From here on a model is trained and served on a GPU; below, a CPU does.
GPU_PARAMETERS = 500_000_000
_GPU_MB = 80_000
# FLOP/s that jobs reach, cautiously: a third of an A100's bfloat16 peak, and a thread of a server
# CPU in float32 with batches as small as the embedded default's.
_GPU_RATE, _CPU_RATE = 1e14, 1e10
# Generation is bound by memory and not by arithmetic: this part of those rates.
_DECODING_SHARE = 0.1
VOCABULARY = 150_000
_BYTES = {"float32": 4, "bfloat16": 2}
# Items where the configuration takes all: the benchmark's own number, tasks, shots' share aside.
_ALL_ITEMS = {"humaneval": 164, "gsm8k": 1319, "mmlu": 14042, "kobest": 4561}
TASKS = {"mmlu": 57, "kobest": 5}
_LEAST_MINUTES = 15


def use_this_interpreter() -> None:
    """Let jobs on this host find the `zpdbench` of the interpreter that runs the workflow.

    An environment variable and not a command's prefix: a container has a PATH of its own.
    """
    here = str(Path(sys.executable).parent)
    search = os.environ.get("PATH", os.defpath)
    if search.split(os.pathsep)[0] != here:
        os.environ["PATH"] = here + os.pathsep + search


def parameters(study: Study, model: str) -> int:
    """Parameters of a model: as configured, else what its source is known to have."""
    spec = study.models[model]
    if spec.parameters:
        return spec.parameters
    return _EMBEDDED_PARAMETERS if isinstance(spec, EmbeddedModel) else _UNKNOWN_PARAMETERS


def gpus(study: Study, model: str) -> int:
    """GPUs for a job on this model: none for a small one, else as many as its weights need."""
    size = parameters(study, model)
    if size < GPU_PARAMETERS:
        return 0
    weights_mb = size * _BYTES[study.training.precision] / 2**20
    return 1 + int(weights_mb * 1.2 // _GPU_MB)


def train_mb(study: Study, model: str) -> int:
    """Memory (MiB) of one training run: weights, adapter with optimiser, activations, logits.

    On a GPU job this is the host's memory, which holds the weights once while they are loaded;
    the activations are counted all the same.
    """
    size, training = parameters(study, model), study.training
    width = _BYTES[training.precision]
    tokens = (training.micro_batch or training.batch_size) * training.max_tokens
    # About 34 bytes of hidden size a layer and token at 16 bits (Korthikanti et al. 2022, eq. 1,
    # without attention scores, which are not kept); a decoder of 12 h^2 parameters a layer whose
    # hidden size is 128 times its layers has hidden size x layers = h^2 / 128.
    hidden = (size * 128 / 12) ** (1 / 3)
    activations = tokens * 17 * width * hidden**2 / 128
    vocabulary = min(VOCABULARY, size // 100)
    logits = 2 * 4 * tokens * vocabulary
    adapter = 16 * size / 150 * training.lora.rank / 8
    return _LIBRARIES_MB + int((1.3 * size * width + adapter + activations + logits) / 2**20)


def serve_mb(study: Study, model: str) -> int:
    """Memory (MiB) of one engine: weights, KV cache, adapters."""
    weights = parameters(study, model) * _BYTES[study.generations.dtype]
    cache = study.generations.kv_cache_gib * 1024
    return 2 * _LIBRARIES_MB + int(1.3 * weights / 2**20 + cache)


def train_flop(study: Study, model: str, condition: str) -> float:
    """Arithmetic of one run: 4 FLOP a parameter and token for LoRA, 2 for each scored token.

    Forward 2 and the gradient of activations 2 (Kaplan et al. 2020, table 1; the frozen weights
    have no gradient), at the full sequence length.
    """
    training, options = study.training, study.conditions[condition].options
    size = parameters(study, model)
    flop = 4.0 * size * training.steps * training.batch_size * training.max_tokens
    if study.conditions[condition].order == "zpd":
        updates = -(-training.steps // int(options.get("update_every", 500)))
        scored = int(options.get("pool_size", 2048)) + study.corpus.probe
        flop += 2.0 * size * updates * scored * training.max_tokens
    return flop


def generate_flop(study: Study, model: str, members: Sequence[grid.Run]) -> float:
    """Arithmetic of one chunk's runs: 2 FLOP a parameter and token, each request of full length."""
    requests, interim_steps = 0, len(study.served_steps) - 1
    for name, benchmark in study.benchmarks.items():
        last, interim = items_asked(name, benchmark)
        for run in members:
            served = 0 if run.condition == grid.BASE else interim_steps
            requests += (last + served * interim) * benchmark.samples
    return 2.0 * parameters(study, model) * requests * study.generations.max_model_len


def items_asked(name: str, benchmark: Benchmark) -> tuple[int, int]:
    """Items asked at the last step and at each step before."""
    per = TASKS.get(name, 1) if benchmark.items_per == "task" else 1
    last = benchmark.items * per if benchmark.items else _ALL_ITEMS.get(name, 2000)
    return last, (benchmark.interim_items or 0) * per


def minutes(flop: float, devices: int, threads: int, share: float = 1.0) -> int:
    """Minutes for so much arithmetic, twice over, on so many GPUs or else CPU threads."""
    rate = (devices * _GPU_RATE if devices else threads * _CPU_RATE) * share
    return _LEAST_MINUTES + int(2 * flop / rate / 60)


def _growing(estimate: Callable[[Any], int]) -> Callable[[Any, int], int]:
    """A Snakemake resource: the estimate, and as much again with each further attempt."""

    def asked(wildcards: Any, attempt: int) -> int:
        return estimate(wildcards) * attempt

    return asked


def _rules(study: Study) -> dict[str, dict[str, Callable[[Any], int]]]:
    training, generations = study.training, study.generations
    chunks = cache(lambda: study.chunks)

    def pretraining(w: Any) -> int:
        spec = study.models[w.model]
        steps = spec.steps if isinstance(spec, EmbeddedModel) else 0
        steps += spec.upscale.steps if spec.upscale else 0
        flop = 6.0 * parameters(study, w.model) * steps * 8 * training.max_tokens
        return minutes(flop, gpus(study, w.model), 1) + 45

    def train(w: Any) -> int:
        flop = train_flop(study, w.model, w.condition)
        return minutes(flop, gpus(study, w.model), training.threads)

    def generate(w: Any) -> int:
        flop = generate_flop(study, w.model, chunks().get((w.model, w.chunk), []))
        return minutes(flop, gpus(study, w.model), generations.threads, _DECODING_SHARE)

    def gpu(w: Any) -> int:
        return gpus(study, w.model)

    return {
        "make_checkpoint": {
            "mem_mb": lambda w: train_mb(study, w.model),
            "runtime": pretraining,
            "gpu": gpu,
        },
        "make_corpus": {"mem_mb": lambda w: 4000, "runtime": lambda w: 120},
        "make_items": {"mem_mb": lambda w: 2000, "runtime": lambda w: 20},
        "train_adapter": {
            "mem_mb": lambda w: train_mb(study, w.model),
            "runtime": train,
            "gpu": gpu,
        },
        "generate_chunk": {
            "mem_mb": lambda w: serve_mb(study, w.model),
            "runtime": generate,
            "gpu": gpu,
        },
        "score_run": {"mem_mb": lambda w: 2000, "runtime": lambda w: 120},
        "verify": {"mem_mb": lambda w: 8000, "runtime": lambda w: 240},
    }


_SMALL = {"mem_mb": lambda w: 4000, "runtime": lambda w: 60}


def for_rule(study: Study, rule: str) -> dict[str, Any]:
    """Snakemake's `resources` of a rule: mem_mb (MiB), runtime (minutes), and gpu where it matters.

    The values are functions of a job's wildcards and attempt.
    """
    wanted = _rules(study).get(rule, _SMALL)
    return {
        name: (lambda wildcards, f=estimate: f(wildcards)) if name == "gpu" else _growing(estimate)
        for name, estimate in wanted.items()
    }
