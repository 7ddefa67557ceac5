"""What of a training step is model arithmetic, and what the rest is.

    python benchmarks/step_share.py --checkpoint DIR --data FILE.json [--steps 8] [--threads 2]
        [--bf16]

The machine's rate is that of the model's own largest layer product, measured before and after; the
arithmetic is the trace's (`zpdbench.adapters.flops`). Its share is arithmetic over rate over the
time of the steps, without the first two. What the rest is: torch's profiler, self time of the
operators in groups.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import train_speed

GROUPS = {
    "matrix products": ("mm", "addmm", "bmm", "matmul", "linear"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "vocabulary loss": ("logsumexp", "exp_", "scatter_add", "gather", "sub_", "max", "amax"),
    "norms": ("rms_norm", "rsqrt", "pow", "mean"),
    "activations": ("silu",),
    "layout": ("index", "cat", "copy_", "repeat", "expand", "zero", "clone", "fill_", "chunk"),
    "optimiser": ("lerp", "addcmul", "addcdiv", "sqrt", "linalg_vector_norm"),
    "sums and products of elements": ("mul", "add", "neg", "div", "sum"),
}


def group_of(operator: str) -> str:
    """The group of an operator's name."""
    name = operator.removeprefix("aten::").removeprefix("_")
    for group, parts in GROUPS.items():
        if any(name.startswith(part) or f"_{part}" in name for part in parts):
            return group
    return "other"


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    args.big_vocabulary = False

    import torch
    from torch.profiler import ProfilerActivity, profile

    from zpdbench.adapters import decoder

    torch.set_num_threads(args.threads)
    tokens = train_speed.encode(args)
    shape = decoder.read_shape(args.checkpoint)
    assert shape is not None
    size = train_speed.largest_product(shape, tokens, args.steps)
    rates = [train_speed.gemm_rate(*size, args.bf16)]
    _, seconds = train_speed.ours(args, tokens)
    rates.append(train_speed.gemm_rate(*size, args.bf16))
    spent = train_speed.operations(shape, tokens, args.steps)
    timed = slice(train_speed.WARM_UP, None)
    rate = max(rates)
    used = sum(spent[timed]) / sum(seconds[timed])
    print(f"machine\t{rate / 1e9:.1f} GFLOP/s in the product of {size[0]} x {size[1]} x {size[2]}")
    print(f"step\t{used / 1e9:.1f} GFLOP/s, {sum(seconds[timed]) / len(seconds[timed]):.3f} s")
    print(f"model arithmetic\t{used / rate:.1%} of the step at the machine's rate")

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        train_speed.ours(args, tokens)
    groups: dict[str, float] = {}
    for event in profiler.key_averages():
        if event.key.startswith("aten::"):
            group = group_of(event.key)
            groups[group] = groups.get(group, 0.0) + event.self_cpu_time_total
    total = sum(groups.values())
    for group, value in sorted(groups.items(), key=lambda pair: -pair[1]):
        print(f"{group}\t{value / total:.1%} of the operators' time")


if __name__ == "__main__":
    main()
