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

from zpdbench import estimate, grid
from zpdbench.hardware import MACHINES, cpu_gflops
from zpdbench.study import EmbeddedModel, GgufModel, LocalModel, Study

_LIBRARIES_MB = 1500  # torch, transformers and their code, resident
# From here on a model is trained and served on a GPU where there is one; below, a CPU does
# (SmolLM2-135M and 360M).
GPU_PARAMETERS = 400_000_000
# What a model may take on a CPU before a GPU is asked for: a job a common machine's memory, and all
# its jobs a day.
CPU_MB = 16_000
CPU_SECONDS = 86_400.0
GPU = MACHINES["a100"]
"""The card that estimates of a GPU job are for; a smaller one wants `set-resources`."""
_GPU_SHARE = 0.9  # of a card's memory, to be filled
_BYTES = {"float32": 4, "bfloat16": 2, "auto": 4}
_LEAST_MINUTES = 15
_FETCH_BYTES = 30e6  # a second, of a hub, hashing included


def use_this_interpreter() -> None:
    """Let jobs on this host find the `zpdbench` of the interpreter that runs the workflow.

    An environment variable and not a command's prefix: a container has a PATH of its own.
    """
    here = str(Path(sys.executable).parent)
    search = os.environ.get("PATH", os.defpath)
    if search.split(os.pathsep)[0] != here:
        os.environ["PATH"] = here + os.pathsep + search


def wants_gpu(study: Study, model: str) -> bool:
    """Whether a model takes a GPU where there is one: a small one's bytes are promised on a CPU."""
    return estimate.parameters(study, model) >= GPU_PARAMETERS


def why_gpu(study: Study, model: str) -> str | None:
    """Why no CPU will do for a model: memory, or more than a day for its jobs; None where one will.

    By the measured CPU's rates (`zpdbench.hardware`), whatever this machine is.
    """
    if not wants_gpu(study, model):
        return None
    memory = max(train_mb(study, model), serve_mb(study, model))
    if memory > CPU_MB:
        return f"a job takes {memory / 1000:.0f} GB"
    runs = sum(estimate.cpu_train_seconds(study, model, c) for c in study.conditions)
    seconds = runs * len(study.seeds) + estimate.cpu_serve_seconds(study, model)
    if seconds > CPU_SECONDS:
        return f"its jobs take {seconds / 86_400:.1f} days of a CPU"
    return None


def needs_gpu(study: Study, model: str) -> bool:
    """Whether a model is asked a GPU for: it takes one, and no CPU will do."""
    return why_gpu(study, model) is not None


def train_gpus(study: Study, model: str) -> int:
    """GPUs of a training job where there are any: one a process, or none."""
    return study.training.processes if wants_gpu(study, model) else 0


def serve_gpus(study: Study, model: str) -> int:
    """GPUs of an engine where there are any, for weights, cache and adapters; or none.

    A power of two, because vLLM splits attention heads evenly (tensor parallelism).
    """
    if not wants_gpu(study, model):
        return 0
    needed, devices = estimate.serve_gb(study, model), 1
    while needed > devices * GPU.memory_gb * _GPU_SHARE:
        devices *= 2
    return devices


def too_large_to_train(study: Study, model: str) -> str | None:
    """Why a model's training does not fit the one GPU that it gets, or None."""
    needed = estimate.train_gb(study, model, study.training.method)
    if not wants_gpu(study, model) or needed <= GPU.memory_gb:
        return None
    return (
        f"{model}: training takes about {needed:.0f} GB on one GPU, where an {GPU.name} has "
        f"{GPU.memory_gb:.0f}; only full fine-tuning is spread over several (training.processes). "
        "Leave the model out, lower training.micro_batch or max_tokens, or name a partition of "
        "larger cards"
    )


def train_mb(study: Study, model: str) -> int:
    """Memory (MiB) of one training run: weights, adapter with optimiser, activations, logits.

    On a GPU job this is the host's memory, which holds the weights once while they are loaded;
    the activations are counted all the same.
    """
    size, training = estimate.parameters(study, model), study.training
    width = _BYTES[training.precision]
    processes = training.processes
    micro = min(training.micro_batch or training.batch_size, training.batch_size // processes)
    tokens = micro * training.max_tokens
    # The formulas of estimate.train_gb, whose docstring has their sources.
    hidden = estimate.hidden_size(size)
    activations = tokens * 17 * width * hidden**2 / 128
    vocabulary = min(estimate.VOCABULARY, size // 100)
    logits = 2 * 4 * tokens * vocabulary
    adapter = 16 * size / 150 * training.lora.rank / 8
    each = _LIBRARIES_MB + int((activations + logits) / 2**20)
    if training.method == "full":
        # Value, gradient and two moments in float32; loading and saving hold the weights again, in
        # each process, and a layer's cast or gathered weights stay for its backward pass.
        return processes * each + int((16 + processes * 8) * size / 2**20)
    return processes * (each + int((1.3 * size * width + adapter) / 2**20))


def serve_mb(study: Study, model: str) -> int:
    """Memory (MiB) of one engine: weights, KV cache, adapters."""
    weights = estimate.parameters(study, model) * _BYTES[study.generations.dtype]
    cache = study.generations.kv_cache_gib * 1024
    return 2 * _LIBRARIES_MB + int(1.3 * weights / 2**20 + cache)


def train_minutes(study: Study, model: str, condition: str) -> int:
    """Minutes to ask for one run: twice what `estimate` says, and a start."""
    if needs_gpu(study, model):
        hours = estimate.train_hours(study, model, GPU, condition)
        return _minutes(hours, train_gpus(study, model))
    seconds = estimate.cpu_train_seconds(study, model, condition) / study.training.processes
    return _LEAST_MINUTES + int(2 * seconds / 60)


def serve_minutes(study: Study, model: str, members: Sequence[grid.Run]) -> int:
    """Minutes to ask for one chunk: twice what `estimate` says, and a start."""
    if needs_gpu(study, model):
        hours = estimate.serve_hours(study, model, GPU, members=members)
        return _minutes(hours, serve_gpus(study, model))
    return _LEAST_MINUTES + int(2 * estimate.cpu_serve_seconds(study, model, members) / 60)


def _minutes(hours: estimate.Hours | None, devices: int) -> int:
    assert hours is not None, "the card that estimates are for has figures"
    # Twice the middle of the range, so even the cautious end of it leaves a third.
    return _LEAST_MINUTES + int((hours.low + hours.high) * 60 / devices)


def _growing(estimate: Callable[[Any], int]) -> Callable[[Any, int], int]:
    """A Snakemake resource: the estimate, and as much again with each further attempt."""

    def asked(wildcards: Any, attempt: int) -> int:
        return estimate(wildcards) * attempt

    return asked


def _rules(study: Study) -> dict[str, dict[str, Callable[[Any], int]]]:
    training = study.training
    chunks = cache(lambda: study.chunks)

    def checkpoint_mb(w: Any) -> int:
        spec = study.models[w.model]
        if isinstance(spec, EmbeddedModel) or spec.upscale:
            return train_mb(study, w.model)
        if isinstance(spec, GgufModel) or (isinstance(spec, LocalModel) and spec.is_gguf):
            # Dequantised to float32: Qwen2.5-0.5B took 3,790 MB, SmolLM2-135M 1,195.
            weights = 4 * estimate.parameters(study, w.model)
            return max(4000, _LIBRARIES_MB + int(1.5 * weights / 2**20))
        return 4000  # files are fetched or linked, and hashed

    def checkpoint_minutes(w: Any) -> int:
        spec, size = study.models[w.model], estimate.parameters(study, w.model)
        if not isinstance(spec, EmbeddedModel):
            return 30 + int(2 * size / _FETCH_BYTES / 60)
        steps = spec.steps + (spec.upscale.steps if spec.upscale else 0)
        flop = 6.0 * size * steps * 8 * training.max_tokens
        return 60 + int(2 * flop / (cpu_gflops(size) * 1e9) / 60)

    return {
        "make_checkpoint": {
            "mem_mb": checkpoint_mb,
            "runtime": checkpoint_minutes,
        },
        "make_corpus": {"mem_mb": lambda w: 4000, "runtime": lambda w: 120},
        "make_items": {"mem_mb": lambda w: 2000, "runtime": lambda w: 20},
        "train_adapter": {
            "mem_mb": lambda w: train_mb(study, w.model),
            "runtime": lambda w: train_minutes(study, w.model, w.condition),
            "gpu": lambda w: train_gpus(study, w.model) if needs_gpu(study, w.model) else 0,
        },
        "generate_chunk": {
            "mem_mb": lambda w: serve_mb(study, w.model),
            "runtime": lambda w: serve_minutes(
                study, w.model, chunks().get((w.model, w.chunk), [])
            ),
            "gpu": lambda w: serve_gpus(study, w.model) if needs_gpu(study, w.model) else 0,
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
