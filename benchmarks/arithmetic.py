"""What portable arithmetic costs: a training step's CPU time under each setting, by turns.

    python benchmarks/arithmetic.py RESULTS [--rounds 5]

RESULTS is the results folder of an embedded study that has been run (results/micro, say).
`unset` is torch as it comes; `onednn` is `portable` with every matrix product by oneDNN, which
takes no account of a processor's maker, where oneMKL does (docs/methods/arithmetic.md).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

WAYS = ("unset", "native", "portable", "onednn")
VARIABLES = ("MKL_CBWR", "ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA")


def main() -> None:
    """Measure each way in a process of its own, and print medians and ratios to `unset`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(measure(args.way, args.results))
        return
    clean = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way in WAYS:
            command = [sys.executable, __file__, str(args.results), "--way", way]
            done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
            seconds[way].append(float(done.stdout.split()[-1]))
    base = statistics.median(seconds["unset"])
    for way, found in seconds.items():
        middle = statistics.median(found)
        print(f"{way:9s} {1e3 * middle:7.1f} ms a step  {middle / base:5.2f} of unset")


def measure(way: str, results: Path) -> float:
    """CPU seconds of a step of 8 examples, the best of 8 times 10 steps."""
    from zpdbench import arithmetic, study

    if way != "unset":
        arithmetic.choose("native" if way == "native" else "portable")
    import numpy as np
    import torch

    if way == "onednn":
        multiply_by_onednn()
    from zpdbench.adapters import batches, encoding, methods, parallel
    from zpdbench.adapters.loss import cross_entropy
    from zpdbench.adapters.train_adapter import read_corpus

    torch.set_num_threads(1)
    settings = study.load(results / "study.lock.yaml")
    name = settings.hypotheses.h3a.large if settings.hypotheses.h3a else next(iter(settings.models))
    checkpoint = results / "checkpoints" / name
    frame = read_corpus(results / "corpora" / f"{settings.corpus.name}.parquet")
    tokens = encoding.Encoder(checkpoint).encode(
        frame["prompt"].to_list(), frame["response"].to_list(), settings.training.max_tokens
    )
    trained = methods.prepare(settings.training, checkpoint, name, 0, parallel.Group())
    generator = np.random.default_rng(0)
    best = float("inf")
    for _ in range(8):
        started = time.process_time()
        for _ in range(10):
            rows = generator.choice(len(tokens.lengths), 8, replace=False)
            batch = batches.pack(tokens, rows)
            total, _ = cross_entropy(trained.network(batch), trained.network.head, batch.targets)
            (total / len(batch.targets)).backward()
            trained.optimiser.step(1e-4)
        best = min(best, (time.process_time() - started) / 10)
    return best


def multiply_by_onednn() -> None:
    """Have torch's float32 products of this process computed by oneDNN instead of oneMKL."""
    import torch
    from torch import Tensor

    linear = torch.ops.mkldnn._linear_pointwise.default

    def mm(a: Tensor, b: Tensor) -> Tensor:
        return linear(a.contiguous(), b.t().contiguous(), None, "none", [], "")

    def addmm(bias: Tensor, a: Tensor, b: Tensor, beta: float = 1, alpha: float = 1) -> Tensor:
        return bias * beta + mm(a, b) * alpha

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.impl("mm", mm, "CPU")
        library.impl("addmm", addmm, "CPU")
    multiply_by_onednn.kept = library  # type: ignore[attr-defined]  # else it is undone


if __name__ == "__main__":
    main()
