"""Whether a row's numbers depend on the rows beside it: `python -m tests.rows SETTING THREADS`.

In a process of its own, since libraries read their settings once. Prints what depends.
"""

from __future__ import annotations

import itertools
import sys

from zpdbench import arithmetic

WIDTHS = [(48, 64), (128, 128), (128, 384), (384, 128), (128, 8), (8, 352), (576, 1536), (896, 64)]
COUNTS = (*range(1, 41), 64, 100, 129, 200)


def main(setting: str, threads: int) -> None:
    """Products, measures of targets, LoRA products and scores of examples."""
    arithmetic.choose(setting)  # type: ignore[arg-type]
    import tempfile
    from pathlib import Path

    import numpy as np
    import torch

    from tests.adapters import material
    from zpdbench.adapters import decoder, encoding, products
    from zpdbench.adapters.learner import ModelLearner
    from zpdbench.adapters.loss import measure

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    generator = torch.Generator().manual_seed(0)
    wrong: list[str] = []
    for inner, outer in WIDTHS:
        w = torch.randn(outer, inner, generator=generator)
        x = torch.randn(300, inner, generator=generator)
        whole = products.linear(x, w, None)
        wrong += [
            f"a product of {m} rows, {inner} to {outer}"
            for m in COUNTS
            if not torch.equal(products.linear(x[:m].contiguous(), w, None), whole[:m])
        ]
    head = torch.randn(20011, 64, generator=generator)
    hidden = torch.randn(530, 64, generator=generator)
    targets = torch.randint(20011, (530,), generator=generator)
    all_at_once = measure(hidden, head, targets)
    for m in (1, 3, 9, 513):
        alone = measure(hidden[:m], head, targets[:m])
        for name in ("loss", "confidence", "entropy"):
            if not torch.equal(getattr(alone, name), getattr(all_at_once, name)[:m]):
                wrong.append(f"{name} of {m} targets")
    frame = material.examples(40)
    with tempfile.TemporaryDirectory() as folder:
        made = material.checkpoint(Path(folder) / "m")
        tokens = encoding.Encoder(made).encode(
            frame["prompt"].to_list(), frame["response"].to_list(), 256
        )
        network = decoder.load(made)
    learner = ModelLearner(network, tokens, np.arange(4))
    together = learner.score(np.arange(40))
    for size in (3, 7):
        for first in range(0, 40, size):
            rows = np.arange(first, min(first + size, 40))
            found = learner.score(rows)
            for name in ("loss", "confidence", "entropy"):
                if not np.array_equal(getattr(found, name), getattr(together, name)[rows]):
                    wrong.append(f"the {name} of examples scored {size} at a time")
    lora = _lora(generator, torch)
    for slots in itertools.islice(itertools.product((-1, 0, 1), repeat=5), 0, None, 7):
        if not lora(list(slots)):
            wrong.append(f"LoRA products of slots {slots}")
    print(*sorted(set(wrong)) or ["every row is its own"], sep="\n")
    sys.exit(bool(wrong))


def _lora(generator, torch):  # type: ignore[no-untyped-def]
    from zpdbench.engines.punica import GroupedPunicaWrapper, group_rows

    a = (torch.randn(2, 1, 8, 64, generator=generator),)
    b = (torch.randn(2, 1, 48, 8, generator=generator),)
    x = torch.randn(90, 64, generator=generator)
    fill = [n % 3 - 1 for n in range(85)]

    def products(slots: list[int]) -> object:
        wrapper = GroupedPunicaWrapper(128, 128, "cpu")
        wrapper.order, wrapper.filling, wrapper.groups = group_rows(torch.tensor(slots))
        y = torch.zeros(len(slots), 48)
        wrapper.add_lora_linear(y, x[: len(slots)], a, b, 1.0, (48,))
        return y

    return lambda slots: torch.equal(products(slots), products(slots + fill)[: len(slots)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
