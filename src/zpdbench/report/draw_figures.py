"""`zpdbench draw-figures`: figures of the tables; same bytes for the same tables."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.report.gains import gains_by_language
from zpdbench.report.show import Row
from zpdbench.study import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by every kind of colour vision, and in grey by the markers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_FIRST = ("random", "easy_to_hard", "hard_to_easy", "zpd")
_ORDER = ("mmlu", "humaneval", "gsm8k", "kobest")
_METRICS = {
    "acc": "accuracy",
    "pass@1": "pass@1",
    "macro_f1": "macro-F1",
    "exact_match_strict": "exact match",
}


def condition_order(names: Collection[str]) -> list[str]:
    """Conditions as every figure orders, and so colours, them: the four of the study first."""
    return sorted(names, key=lambda c: (_FIRST.index(c) if c in _FIRST else len(_FIRST), c))


def draw_curves(rows: Sequence[Row]) -> Figure:
    """Learning curves: a row a benchmark, a column a model, a line a condition.

    Args:
        rows: curves.tsv as `files.read_tsv` gives it. Only rows of the interim subset are drawn,
            so that every point of a line is of the same items; where a benchmark has no subset,
            its full rows.

    Raises:
        UserError: no row to draw.
    """
    import matplotlib.pyplot as plt

    has_subset = {r["benchmark"] for r in rows if r["items"] == "subset"}
    rows = [r for r in rows if r["items"] == "subset" or r["benchmark"] not in has_subset]
    models = _distinct(rows, "model")
    benchmarks = sorted(
        {r["benchmark"] for r in rows},
        key=lambda b: (_ORDER.index(b) if b in _ORDER else len(_ORDER), b),
    )
    conditions = condition_order({r["condition"] for r in rows} - {"base"})
    if not (models and benchmarks):
        raise UserError("curves.tsv holds nothing to draw", fix="run the workflow again")
    figure, axes = plt.subplots(
        len(benchmarks),
        len(models),
        figsize=(3.6 * len(models) + 0.6, 2.1 * len(benchmarks) + 0.7),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for i, benchmark in enumerate(benchmarks):
        for j, model in enumerate(models):
            axis = axes[i][j]
            part = [r for r in rows if r["model"] == model and r["benchmark"] == benchmark]
            _curves_panel(axis, part, conditions)
            if i == 0:
                axis.set_title(model)
            if j == 0:
                metric = part[0]["metric"] if part else ""
                axis.set_ylabel(f"{benchmark}\n{_METRICS.get(metric, metric)}, %")
            if i == len(benchmarks) - 1:
                axis.set_xlabel("training step")
    handles, labels = _legend(axes)
    figure.legend(handles, labels, loc="lower center", ncol=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1))
    return figure


def draw_effects(rows: Sequence[Row]) -> Figure:
    """Forest plot of h3a.tsv in percentage points: the two gains, and their difference.

    Raises:
        UserError: no row on the scale pp.
    """
    import matplotlib.pyplot as plt

    rows = [r for r in rows if r["scale"] == "pp"]
    if not rows:
        raise UserError("h3a.tsv has no row on the scale pp", fix="run the workflow again")
    first = rows[0]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.6, 0.55 * len(rows) + 1.6), sharey=True, width_ratios=(1, 1)
    )
    for position, row in enumerate(rows):
        for offset, role, colour, marker in (
            (-0.14, "small", COLOURS[0], "o"),
            (0.14, "large", COLOURS[1], "s"),
        ):
            label = row[f"model_{role}"] if position == 0 else None
            _interval(left, position + offset, row, f"effect_{role}", colour, marker, label)
        _interval(right, position, row, "difference", "#000000", "D", None)
        weight = "bold" if row["benchmark"] == "mean" else "normal"
        right.annotate(
            row["verdict"] if row["verdict"] != "NA" else "",
            (1.02, position),
            xycoords=("axes fraction", "data"),
            va="center",
            weight=weight,
        )
    for axis in (left, right):
        axis.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        axis.grid(axis="x", color="0.92")
        axis.set_axisbelow(True)
    left.set_yticks(range(len(rows)), [r["benchmark"] for r in rows])
    for tick, row in zip(left.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row["benchmark"] == "mean" else "normal")
    left.set_ylim(len(rows) - 0.5, -0.5)
    level = 100 * _float(first.get("level", "0.95"))
    left.set_title(f"gain of {first['treatment']} over {first['control']}")
    right.set_title("gain in the large model minus that in the small")
    for axis in (left, right):
        axis.set_xlabel(f"percentage points, {level:g} % interval, {first['n_seeds']} seeds")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=2, frameon=False)
    figure.tight_layout(rect=(0, 0.3 / figure.get_figheight(), 1, 1))
    return figure


def draw_power(rows: Sequence[Row]) -> Figure:
    """Power of H3a's rule by number of seeds, from power.tsv.

    Where no row has a power the figure says so.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.2, 3.2))
    labels = {
        "measured spread": "claimed points, measured spread",
        "claimed points and d": "claimed points and d",
        "claimed d alone": "claimed d alone (runs of equal spread)",
    }
    lines = {
        basis: [
            (int(r["n_seeds"]), 100 * _float(r["power"]))
            for r in rows
            if r["benchmark"] == "mean"
            and r["basis"].startswith(basis)
            and math.isfinite(_float(r["power"]))
        ]
        for basis in labels
    }
    for index, (basis, points) in enumerate(lines.items()):
        if points:
            axis.plot(
                *zip(*points, strict=True), color=COLOURS[index], marker=_MARKERS[index],
                markersize=3.5, linewidth=1.4, label=labels[basis],
            )  # fmt: skip
    if not any(lines.values()):
        axis.annotate("nothing was claimed, or one seed: no power", (0.5, 0.5),
                      xycoords="axes fraction", ha="center")  # fmt: skip
    axis.axhline(80, color="0.5", linewidth=0.8, linestyle="--")
    planned = next((int(r["n_seeds"]) for r in rows if r["is_planned"] == "true"), None)
    if planned is not None:
        axis.axvline(planned, color="0.5", linewidth=0.8, linestyle=":")
        axis.annotate(f"this study: {planned}", (planned, 2), xytext=(4, 0),
                      textcoords="offset points", color="0.35")  # fmt: skip
    axis.set(xlabel="seeds", ylabel="power, %", ylim=(0, 102), title="How many seeds")
    axis.grid(color="0.93")
    axis.set_axisbelow(True)
    if any(lines.values()):
        axis.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    return figure


def draw_ladder(rows: Sequence[Row]) -> Figure:
    """Gain by number of parameters with the fitted line, from ladder.tsv.

    Raises:
        UserError: no gain on the primary endpoint.
    """
    import matplotlib.pyplot as plt

    part = [r for r in rows if (r["benchmark"], r["scale"]) == ("mean", "pp")]
    gains = [r for r in part if r["term"] == "gain" and math.isfinite(_float(r["estimate"]))]
    if not gains:
        raise UserError("ladder.tsv has no gain on the mean", fix="run the workflow again")
    figure, axis = plt.subplots(figsize=(5.2, 3.2))
    for row in gains:
        x, low, high = (_float(row[c]) for c in ("parameters", "low", "high"))
        if math.isfinite(low) and math.isfinite(high):
            axis.plot([x, x], [low, high], color=COLOURS[0], linewidth=1.4)
        axis.plot([x], [_float(row["estimate"])], "o", color=COLOURS[0], markersize=5)
        axis.annotate(row["model"], (x, _float(row["estimate"])), xytext=(5, 4),
                      textcoords="offset points", fontsize=8)  # fmt: skip
    slope = next((r for r in part if r["term"] != "gain" and r["left_out"] == "NA"), None)
    if slope is not None and math.isfinite(_float(slope["intercept"])):
        ends = [min(_float(r["parameters"]) for r in gains),
                max(_float(r["parameters"]) for r in gains)]  # fmt: skip
        start, rise = _float(slope["intercept"]), _float(slope["estimate"])
        line = [start + rise * math.log10(x) for x in ends]
        axis.plot(ends, line, color="0.4", linestyle="--", linewidth=1.2)
        axis.set_title(
            f"{_float(slope['estimate']):+.2f} points for ten times the parameters "
            f"[{_float(slope['low']):+.2f}, {_float(slope['high']):+.2f}]"
        )
    axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axis.set_xscale("log")
    axis.set(xlabel="parameters", ylabel="gain, percentage points")
    axis.margins(x=0.15)
    axis.grid(color="0.93")
    axis.set_axisbelow(True)
    figure.tight_layout()
    return figure


def draw_expected(rows: Sequence[Row]) -> Figure:
    """What was claimed (diamonds) beside what was observed, a panel a quantity and scale.

    Where nothing was claimed the figure says so.
    """
    import matplotlib.pyplot as plt

    shown = [r for r in rows if math.isfinite(_float(r["observed"]))]
    panels = list(dict.fromkeys((r["quantity"], r["scale"]) for r in shown))
    if not panels:
        return nothing("nothing was claimed, or nothing observed")
    models = _distinct(shown, "model")
    parts = [[r for r in shown if (r["quantity"], r["scale"]) == p] for p in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(6.4, 0.9 * len(panels) + 0.3 * len(shown) + 0.4), squeeze=False,
        height_ratios=[len(p) + 1 for p in parts],
    )  # fmt: skip
    units = {"pp": "percentage points", "hedges_g": "Hedges' g", "percent": "per cent"}
    for axis, (quantity, scale), part in zip(axes[:, 0], panels, parts, strict=True):
        for place, row in enumerate(part):
            index = models.index(row["model"]) % len(COLOURS)
            values = {k: _float(row[k]) for k in ("observed", "low", "high", "expected")}
            top = _float(row["expected_high"])
            if math.isfinite(values["low"]) and math.isfinite(values["high"]):
                axis.plot([values["low"], values["high"]], [place] * 2, color=COLOURS[index])
            axis.plot([values["observed"]], [place], _MARKERS[index], color=COLOURS[index])
            claim = [values["expected"], top if math.isfinite(top) else values["expected"]]
            axis.plot(claim, [place + 0.25] * 2, color="0.35", linewidth=2.5)
            axis.plot(claim[:1], [place + 0.25], "D", color="0.35", markersize=4)
        axis.set_yticks(range(len(part)), [f"{r['benchmark']}, {r['model']}" for r in part])
        axis.set_ylim(len(part) - 0.4, -0.6)
        axis.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        axis.set_title(f"{quantity}, {units.get(scale, scale)}: claimed (diamond) and observed")
        axis.grid(axis="x", color="0.92")
        axis.set_axisbelow(True)
    figure.tight_layout()
    return figure


def draw_interaction(
    rows: Sequence[Row], languages: Mapping[str, str], treatment: str, control: str
) -> Figure:
    """Gain by the task's language, a line a model, a mark a seed (`gains.gains_by_language`).

    Where the study has one language only the figure says so.
    """
    import matplotlib.pyplot as plt

    found = gains_by_language(rows, languages, treatment, control)
    shown = sorted({language for model in found.values() for language in model})
    if len(shown) < 2:
        return nothing("no benchmarks in two languages")
    figure, axis = plt.subplots(figsize=(5.2, 3.2))
    for i, (model, by_language) in enumerate(found.items()):
        shift = (i - (len(found) - 1) / 2) * 0.08
        colour, marker = COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)]
        means = []
        for x, language in enumerate(shown):
            values = [g for _, g in by_language.get(language, [])]
            axis.plot([x + shift] * len(values), values, ".", color=colour, alpha=0.6)
            means.append(sum(values) / len(values) if values else math.nan)
        axis.plot(
            [x + shift for x in range(len(shown))], means, color=colour, marker=marker, label=model
        )
    axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axis.set_xticks(range(len(shown)), shown)
    axis.set(xlabel="language of the task", ylabel=f"gain of {treatment}, percentage points")
    axis.margins(x=0.25)
    axis.grid(axis="y", color="0.93")
    axis.set_axisbelow(True)
    axis.legend(frameon=False)
    figure.tight_layout()
    return figure


def nothing(why: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.2, 1.2))
    axis.annotate(why, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
    axis.set_axis_off()
    return figure


STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
}


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as SVG or PNG without time, program or random identifiers."""
    import matplotlib as mpl

    path = Path(path)
    kind = path.suffix.removeprefix(".")
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with (
        mpl.rc_context({"svg.hashsalt": "zpdbench", "svg.fonttype": "path"}),
        files.atomic_path(path) as temporary,
    ):
        figure.savefig(temporary, format=kind, metadata=metadata, dpi=144, bbox_inches="tight")


def by_name(outs: Sequence[str], known: Collection[str]) -> dict[str, list[Path]]:
    """Figure -> the files asked for, as their names say, in the order given.

    Raises:
        UserError: a name that is none of `known`, or neither .svg nor .png.
    """
    wanted: dict[str, list[Path]] = {}
    for out in map(Path, outs):
        if out.stem not in known or out.suffix not in (".svg", ".png"):
            raise UserError(
                f"no figure of this name ({', '.join(sorted(known))} as .svg or .png)",
                where=str(out),
                fix="give one of these names to --out",
            )
        wanted.setdefault(out.stem, []).append(out)
    return wanted


def write(draw: Callable[[], Figure], outs: Sequence[Path]) -> None:
    """Draw a figure once, in every figure's style, and write it to each of the files."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    with mpl.rc_context(STYLE):
        figure = draw()
        for out in outs:
            save(figure, out)
        plt.close(figure)


DRAW: dict[str, tuple[str, Callable[[Sequence[Row]], Figure]]] = {
    "curves": ("curves", draw_curves),
    "effects": ("h3a", draw_effects),
    "power": ("power", draw_power),
    "ladder": ("ladder", draw_ladder),
    "expected": ("expected", draw_expected),
}
INTERACTION = "interaction"
"""Drawn from scores.tsv with the study's languages."""


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.curves, args.h3a and so on (tables), args.study, args.out.

    What is drawn is said by the names in args.out: a key of DRAW, or `interaction`.
    """
    for stem, outs in sorted(by_name(args.out, {*DRAW, INTERACTION}).items()):
        table, draw = ("scores", _interaction(args)) if stem == INTERACTION else DRAW[stem]
        if not getattr(args, table, None):
            raise UserError(f"--{table} is missing", where=str(outs[0]), fix=f"give {table}.tsv")
        write(partial(draw, files.read_tsv(getattr(args, table))[1]), outs)


def _interaction(args: argparse.Namespace) -> Callable[[Sequence[Row]], Figure]:
    r1 = load(args.study).hypotheses.r1
    return partial(
        draw_interaction, languages=r1.languages, treatment=r1.treatment, control=r1.control
    )


def _curves_panel(axis: Axes, rows: list[Row], conditions: list[str]) -> None:
    start = next((r for r in rows if r["condition"] == "base"), None)
    for index, condition in enumerate(conditions):
        part = sorted(
            (r for r in rows if r["condition"] == condition), key=lambda r: int(r["step"])
        )
        if not part:
            continue
        colour = COLOURS[index % len(COLOURS)]
        steps = [int(r["step"]) for r in part]
        mean = [100 * _float(r["mean"]) for r in part]
        low, high = ([100 * _float(r[k]) for r in part] for k in ("low", "high"))
        if start is not None and steps[0] > 0:
            origin = 100 * _float(start["mean"])
            axis.plot([0, steps[0]], [origin, mean[0]], color=colour, linewidth=0.8, linestyle=":")
        axis.plot(
            steps,
            mean,
            color=colour,
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=3.5,
            linewidth=1.4,
            label=condition,
        )
        if all(math.isfinite(v) for v in (*low, *high)):
            axis.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
    if start is not None:
        origin = 100 * _float(start["mean"])
        axis.axhline(origin, color="0.5", linewidth=0.8, linestyle="--", label="untuned base")
    axis.grid(color="0.93")
    axis.set_axisbelow(True)


def _interval(
    axis: Axes, y: float, row: Row, name: str, colour: str, marker: str, label: str | None
) -> None:
    estimate, low, high = (_float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if not math.isfinite(estimate):
        return
    if math.isfinite(low) and math.isfinite(high):
        axis.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    size = 7 if row["benchmark"] == "mean" else 5
    axis.plot([estimate], [y], color=colour, marker=marker, markersize=size, linestyle="",
              label=label)  # fmt: skip


def _legend(axes: Any) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for row in axes:
        for axis in row:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                found.setdefault(label, handle)
    return list(found.values()), list(found)


def _distinct(rows: Sequence[Row], column: str) -> list[str]:
    return list(dict.fromkeys(r[column] for r in rows))


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
