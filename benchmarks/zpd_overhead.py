"""zpd's overhead over random in operations: by the trace's arithmetic, or out of a finished run.

    python benchmarks/zpd_overhead.py [--config FILE ...] [--adapters FOLDER]
        [--tokens N] [--targets N]

For each configuration with a zpd condition, and for R4 (500 steps between updates, batch 8) at
pools of 1,024, 2,048 and 4,096: scoring's operations over training's, by `zpdbench.adapters.flops`
for examples of mean length, a decoder of the model's size and LoRA on all linear layers. With
--adapters (`{results}/adapters/{model}`) what `random` and `zpd` runs there recorded, also in
seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
POOLS = (1024, 2048, 4096)


def share(
    shape: Any, tokens: int, targets: int, *, steps: int, every: int, batch: int, pool: int,
    probe: int, rank: int,
) -> float:  # fmt: skip
    """Scoring's operations over training's."""
    from zpdbench.adapters import flops

    inner, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    adapted = shape.layers * (
        2 * (shape.hidden_size + inner)
        + 2 * (shape.hidden_size + kv)
        + 3 * (shape.hidden_size + shape.intermediate_size)
    )
    updates = -(-steps // every)
    scored = updates * (pool + probe) * flops.forward(shape, [tokens], targets, rank, adapted)
    trained = steps * batch * flops.training(shape, [tokens], targets, rank, adapted, False)
    return scored / trained


def shape_of(parameters: float, vocabulary: int) -> Any:
    """A decoder of 12 h^2 parameters a layer and h / 128 layers, about this large."""
    from zpdbench.adapters.decoder import Shape

    hidden = max(int((parameters * 128 / 12) ** (1 / 3)) // 64 * 64, 64)
    layers, heads = max(hidden // 128, 1), hidden // 64
    return Shape(
        "llama", vocabulary, hidden, 8 * hidden // 3, layers, heads, heads, 64, 1e-6, 1e4, True,
        False,
    )  # fmt: skip


def recorded(folder: Path) -> None:
    """What runs of one model spent: operations and seconds, zpd's over random's."""
    import polars as pl

    spent: dict[str, dict[str, list[float]]] = {}
    for trace in sorted(folder.glob("*/s*/trace.parquet")):
        condition = trace.parent.parent.name
        part = spent.setdefault(condition, {"flops": [], "seconds": []})
        part["flops"].append(float(pl.read_parquet(trace)["flops"].sum()))
        timing = trace.with_name("steps.timing.parquet")
        if timing.is_file():
            part["seconds"].append(float(pl.read_parquet(timing)["seconds"].sum()))
    if not {"random", "zpd"} <= spent.keys():
        raise SystemExit(f"{folder}: no runs of both random and zpd")
    for unit in ("flops", "seconds"):
        mean = {c: sum(v[unit]) / len(v[unit]) for c, v in spent.items() if v[unit]}
        if {"random", "zpd"} <= mean.keys():
            print(f"{folder.name}\trecorded {unit}\t{mean['zpd'] / mean['random'] - 1:.1%}")


def main() -> None:
    """Print the table."""
    from zpdbench import estimate, study

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = ("mini", "micro", "smol", "real", "laptop", "ablations", "r4", "ladder")
    parser.add_argument(
        "--config", type=Path, nargs="*", default=[ROOT / f"config/{n}.yaml" for n in names]
    )
    parser.add_argument("--adapters", type=Path, action="append", default=[])
    parser.add_argument("--tokens", type=int, help="of an example; else the estimate's mean")
    parser.add_argument("--targets", type=int, help="of them in the response; else half")
    args = parser.parse_args()
    print("configuration\tmodel\tcondition\tupdate_every\tpool\tprobe\toverhead_flops")
    for path in args.config:
        settings = study.load(path)
        training = settings.training
        for model in settings.models:
            tokens = args.tokens or round(estimate.example_tokens(settings, model))
            targets = args.targets or tokens // 2
            parameters = estimate.parameters(settings, model)
            small = parameters < 2e7
            shape = shape_of(parameters, 1620 if small else 49_152 if parameters < 3e8 else 151_936)
            for name, condition in settings.conditions.items():
                if condition.order != "zpd":
                    continue
                every = int(condition.options.get("update_every", 500))
                pool = int(condition.options.get("pool_size", 2048))
                for size in sorted({pool, *(POOLS if path.stem == "r4" else ())}):
                    found = share(
                        shape, tokens, targets, steps=training.steps, every=every,
                        batch=training.batch_size, pool=size, probe=settings.corpus.probe,
                        rank=training.lora.rank,
                    )  # fmt: skip
                    print(
                        f"{path.stem}\t{model}\t{name}\t{every}\t{size}\t{settings.corpus.probe}"
                        f"\t{found:.1%}"
                    )
    for folder in args.adapters:
        recorded(folder)


if __name__ == "__main__":
    main()
