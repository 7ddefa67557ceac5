"""What a job needs: memory in MiB and minutes, from the model's size and the work to do.

Rough upper estimates for a scheduler; a retry gets more (profiles set `retries`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from zpdbench.study import EmbeddedModel, Study

_LIBRARIES_MB = 1500  # torch, transformers and their code, resident
_EMBEDDED_PARAMETERS = 2_000_000


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
    return _EMBEDDED_PARAMETERS if isinstance(spec, EmbeddedModel) else 200_000_000


def train_mb(study: Study, model: str) -> int:
    """Memory of one training run: weights, adapter with optimiser, activations of one batch."""
    weights = parameters(study, model) * (4 if study.training.precision == "float32" else 2)
    tokens = study.training.batch_size * study.training.max_tokens
    # About 34 values of hidden size a layer and token (Korthikanti et al. 2022); hidden size and
    # layers together grow like the square root of twelve parameters a layer.
    activations = tokens * 34 * 4 * max(parameters(study, model), 1) ** 0.5
    return _LIBRARIES_MB + int((1.3 * weights + activations) / 2**20)


def serve_mb(study: Study, model: str) -> int:
    """Memory of one engine: weights, KV cache, adapters."""
    weights = parameters(study, model) * (4 if study.generations.dtype == "float32" else 2)
    cache = study.generations.kv_cache_gib * 1024
    return 2 * _LIBRARIES_MB + int(1.3 * weights / 2**20 + cache)


def for_rule(study: Study, rule: str) -> dict[str, Any]:
    """Snakemake's `resources` of a rule; values may be functions of the job's wildcards."""
    table: dict[str, dict[str, Any]] = {
        "make_checkpoint": {
            "mem_mb": lambda wildcards: train_mb(study, wildcards.model),
            "runtime": 60,
        },
        "make_corpus": {"mem_mb": 3000, "runtime": 60},
        "make_items": {"mem_mb": 2000, "runtime": 20},
        "train_adapter": {
            "mem_mb": lambda wildcards: train_mb(study, wildcards.model),
            "runtime": 24 * 60,
        },
        "generate_chunk": {
            "mem_mb": lambda wildcards: serve_mb(study, wildcards.model),
            "runtime": 12 * 60,
        },
        "score_run": {"mem_mb": 2000, "runtime": 120},
        "aggregate_scores": {"mem_mb": 4000, "runtime": 60},
        "test_h3a": {"mem_mb": 4000, "runtime": 60},
        "draw_figures": {"mem_mb": 1000, "runtime": 10},
        "make_crate": {"mem_mb": 4000, "runtime": 60},
        "verify": {"mem_mb": 8000, "runtime": 240},
    }
    return table[rule]
