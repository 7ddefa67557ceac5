"""`zpdbench draw-training`: what the window did and how hard the examples were, from the traces."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zpdbench.artifacts.layout import TRAINING_FIGURES
from zpdbench.errors import UserError
from zpdbench.report import draw_figures, evidence
from zpdbench.report.draw_figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_window(traces: evidence.Traces) -> Figure:
    """The window and the model's perplexity beside occupancy and fallback, a row a condition.

    Where no condition has a window the figure says so.
    """
    import matplotlib.pyplot as plt

    if not traces.windows:
        return draw_figures.nothing("no condition has a window")
    rows = len(traces.windows)
    figure, axes = plt.subplots(rows, 2, figsize=(8.6, 2.3 * rows + 0.5), squeeze=False)
    for (left, right), window in zip(axes, traces.windows, strict=True):
        means = window.means
        left.fill_between(
            window.steps, means["low"], means["high"], color=COLOURS[3], alpha=0.25,
            linewidth=0, label="window",
        )  # fmt: skip
        left.plot(window.steps, means["perplexity"], color=COLOURS[0], label="probe")
        left.plot(
            window.steps, means["perplexity_smoothed"], "--", color=COLOURS[1],
            label="probe, smoothed",
        )  # fmt: skip
        for name, colour, label in (
            ("occupancy", COLOURS[2], "inside the window"),
            ("fallback", COLOURS[4], "filled from outside"),
            ("fallback_below", COLOURS[5], "of it from below"),
        ):
            right.plot(window.steps, [100 * v for v in means[name]], color=colour, label=label)
        right.set_ylim(0, 102)
        left.set(ylabel="effective perplexity", title=f"{window.condition}, {window.model}")
        right.set(ylabel="share, %")
        for axis in (left, right):
            axis.set_xlabel("training step")
            axis.grid(color="0.93")
            axis.set_axisbelow(True)
            axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def draw_difficulty(
    shares: Sequence[tuple[str, Sequence[float]]], traces: evidence.Traces
) -> Figure:
    """The corpus's difficulty by language, and what each condition trained on, a panel a model."""
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(m for m, _ in traces.trained))
    figure, axes = plt.subplots(
        1, 1 + len(models), figsize=(3.4 * (1 + len(models)) + 0.4, 2.9), squeeze=False
    )
    corpus, *others = axes[0]
    for index, (language, counts) in enumerate(shares):
        edges = [i / len(counts) for i in range(len(counts) + 1)]
        corpus.stairs(
            counts, edges, fill=True, alpha=0.35, color=COLOURS[5 if index else 0], label=language
        )
    corpus.set(xlabel="difficulty before training", ylabel="examples, %", title="the corpus")
    conditions = draw_figures.condition_order({c for _, c in traces.trained})
    for axis, model in zip(others, models, strict=True):
        for i, condition in enumerate(conditions):
            points = traces.trained.get((model, condition), [])
            if points:
                axis.plot(
                    *zip(*points, strict=True), color=COLOURS[i % len(COLOURS)], label=condition
                )
        axis.set(xlabel="training step", ylabel="mean difficulty", title=model, ylim=(0, 1))
    for axis in axes[0]:
        axis.grid(color="0.93")
        axis.set_axisbelow(True)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.adapters (runs' folders), args.corpus, args.out.

    What is drawn is said by the names in args.out: window.*, difficulty.*.

    Raises:
        UserError: another name, or no such corpus.
    """
    wanted = draw_figures.by_name(args.out, TRAINING_FIGURES)
    if not Path(args.corpus).is_file():
        raise UserError("no such corpus", where=str(args.corpus), fix="make it first")
    corpus = evidence.read_corpus(args.corpus)
    traces = evidence.read_traces(args.adapters, corpus)
    draw = {
        "window": lambda: draw_window(traces),
        "difficulty": lambda: draw_difficulty(evidence.difficulty_shares(corpus), traces),
    }
    for stem, outs in wanted.items():
        draw_figures.write(draw[stem], outs)
