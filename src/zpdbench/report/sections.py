"""The report's sections: from tables and evidence to what the template shows. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from zpdbench.curriculum.diagnosis import KEEP_EVERYTHING, LENGTH, MOSTLY, side
from zpdbench.report import charts
from zpdbench.report.charts import ForestRow, Line, Point
from zpdbench.report.evidence import Traces, Window
from zpdbench.report.gains import gains_by_language
from zpdbench.report.results import Cell, Table, between, number, p_said, p_value
from zpdbench.report.words import label, words
from zpdbench.statistics.baselines import Constant

VERDICTS = {
    "supported": "supported",
    "smaller harm": "smaller_harm",
    "difference only": "difference_only",
    "contradicted": "contradicted",
    "inconclusive": "inconclusive",
}
"""A table's verdict -> its name in the page's words and styles."""
_ORDER = ("mmlu", "humaneval", "gsm8k", "kobest")
_CONDITIONS = ("random", "easy_to_hard", "hard_to_easy", "zpd")
_METRICS = {
    "acc": "accuracy",
    "pass@1": "pass@1",
    "macro_f1": "macro-F1",
    "exact_match_strict": "exact match",
}
Tables = Mapping[str, Table]


@dataclass(frozen=True)
class Card:
    """A verdict: the question, what may be quoted, and the row it stands in."""

    question: Markup
    verdict: str
    sentence: Markup
    row: Cell
    more: Sequence[Markup] = ()
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """A chart with a heading."""

    title: Markup
    chart: Markup


@dataclass(frozen=True)
class Figure:
    """Panels with one key and one caption."""

    panels: Sequence[Panel]
    legend: Markup = field(default_factory=Markup)

    def __bool__(self) -> bool:
        return bool(self.panels)


def primary(tables: Tables) -> Cell | None:
    """H3a's primary row."""
    h3a = tables.get("h3a")
    return h3a.first(benchmark="mean", scale="pp") if h3a else None


def cards(tables: Tables) -> list[Card]:
    """All verdicts, H3a's first."""
    found: list[Card] = []
    row = primary(tables)
    if row is not None:
        found.append(_h3a_card(row))
    for name, where, unit in (
        ("h3b", {"scale": "pp"}, "pp_unit"),
        ("r1", {"scale": "pp"}, "pp_unit"),
        ("ladder", {"benchmark": "mean", "scale": "pp", "left_out": "NA"}, "slope_unit"),
    ):
        table = tables.get(name)
        rows = [
            r for r in (table.where(**where) if table else [])
            if (name == "ladder" and r["term"].startswith("slope"))
            or r["note"].split("; ")[0].startswith("primary") or "; primary" in r["note"]
        ]  # fmt: skip
        for r in rows[:1]:
            question = words(f"{name}_question", **r.values)
            found.append(_estimate_card(question, r, words(unit), more=_two_conditions(name, r)))
    found += _anova_cards(tables)
    for r in tables["efficiency"].rows if "efficiency" in tables else []:
        if (r["benchmark"], r["unit"]) == ("mean", "area"):
            control = row["control"] if row else "random"
            question = words("efficiency_question", model=r["model"], control=control)
            found.append(_estimate_card(question, r, words("area_unit"), estimate="difference"))
    return found


def _two_conditions(name: str, row: Cell) -> list[Markup]:
    """Where a contrast comes from: a gain, or a loss elsewhere."""
    p = row.link(p_value(row.number("p_gain")))
    if name == "h3b":
        parts = {g: row.show(g, sign=True) for g in ("reasoning", "generation")}
        return [words("h3b_parts", **parts, p=p)]
    if name == "ladder":
        gain = row.show("gain", sign=True)
        return [words("ladder_parts", gain=gain, interval=row.interval("gain"), p=p)]
    return []


def key(verdict: str) -> str:
    """A verdict's name in the page's words and styles; `none` of what is none."""
    return VERDICTS.get(verdict, "none")


def _h3a_card(row: Cell) -> Card:
    names = {k: row[k] for k in ("treatment", "control")}
    names |= {"small": row["model_small"], "large": row["model_large"]}
    roles = ("small", "large") if row["side"] == "smaller" else ("large", "small")
    names |= {"where": names[roles[0]], "other": names[roles[1]]}
    verdict = row["verdict"] if row["verdict"] in VERDICTS else "inconclusive"
    name, margin = f"h3a_{key(verdict)}", ""
    if verdict == "contradicted":
        of_gain = row.number("bound_gain") < row.number("margin_gain")
        name += "_gain" if of_gain else "_difference"
        margin = f"{row.number('margin_gain' if of_gain else 'margin'):g}"
    said = [
        words(name, **names, margin=margin),
        words(
            "h3a_gains",
            **names,
            gl=row.show("effect_large", sign=True),
            gs=row.show("effect_small", sign=True),
            d=row.show("difference", sign=True),
            level=row.level,
            interval=row.interval("difference"),
            pd=row.link(p_value(row.number("p_difference"))),
            pg=row.link(p_value(row.number("p_gain"))),
            p=row.link(p_value(row.number("p_value"))),
            n=row["n_seeds"],
        ),
    ]
    return Card(
        words("h3a_question", **names),
        verdict,
        Markup(" ").join(said),
        row,
        [*_reach(row, names, verdict), *_strength(row)],
        _note(row),
    )


def _reach(row: Cell, names: Mapping[str, str], verdict: str) -> list[Markup]:
    """How far H3a's verdict reaches: where it comes from, new items, the seeds one by one."""
    found = []
    parts = _told(row, "the difference comes from ")
    if parts:
        found.append(words("h3a_parts", **_pair(names), parts=parts))
    if math.isfinite(row.number("new_items_p")):
        found.append(
            words(
                "h3a_items",
                items=row["n_items"],
                interval=row.interval("difference"),
                new=row.interval("new_items"),
                p=row.link(p_said(row.number("new_items_p"))),
            )
        )
        other = row["new_items_verdict"]
        if other in VERDICTS and other != verdict:
            found.append(words("h3a_items_differ", verdict=words(key(other))))
    if math.isfinite(row.number("left_out_p_low")):
        found.append(
            words(
                "h3a_seeds",
                **_pair(names),
                s=row["per_seed_small"],
                l=row["per_seed_large"],
                low=row.show("left_out_low", sign=True),
                high=row.show("left_out_high", sign=True),
                plow=row.link(p_value(row.number("left_out_p_low"))),
                phigh=row.link(p_value(row.number("left_out_p_high"))),
                verdicts=_counted(row["left_out_verdicts"]),
            )
        )
    found.append(words("h3a_scope"))
    return found


def _pair(names: Mapping[str, str]) -> dict[str, str]:
    return {k: names[k] for k in ("small", "large")}


def _counted(text: str) -> Markup:
    """`supported 4, inconclusive 1` in both languages."""
    said = []
    for part in text.split(", "):
        verdict, _, count = part.rpartition(" ")
        said.append(Markup("{} {}").format(words(key(verdict)), count))
    return Markup(", ").join(said)


def _told(row: Cell, start: str) -> str:
    """What a row's note says after these words; "" if nothing."""
    parts = [p for p in row["note"].split("; ") if p.startswith(start)]
    return parts[0].removeprefix(start) if parts else ""


def _strength(row: Cell) -> list[Markup]:
    found = []
    if math.isfinite(row.number("mde_80")):
        ends = {e: row.show(f"mde_80_{e}") for e in ("low", "high")}
        found.append(words("h3a_mde", mde=row.show("mde_80"), **ends))
    if math.isfinite(row.number("power_claimed")):
        found.append(words("h3a_power", power=row.show("power_claimed", 0, scale=100)))
    return found


def _estimate_card(
    question: Markup,
    row: Cell,
    unit: Markup,
    *,
    estimate: str = "estimate",
    more: Sequence[Markup] = (),
) -> Card:
    verdict = row["verdict"] if row["verdict"] in VERDICTS else "none"
    p = row.number("p_holm")
    sentence = words(
        f"estimate_{key(verdict)}",
        estimate=row.show(estimate, sign=True),
        unit=unit,
        level=row.level,
        interval=row.interval(),
        p=row.link(p_said(row.number("p_value") if math.isnan(p) else p)),
        n=row["n_seeds"],
    )
    return Card(question, verdict, sentence, row, more, _note(row))


def _anova_cards(tables: Tables) -> list[Card]:
    if "anova" not in tables:
        return []
    found = []
    for row in tables["anova"].where(
        benchmark="mean", scale="pp", design="seeds as blocks", test="one-way ANOVA",
        term="condition",
    ):  # fmt: skip
        corrected = row.number("p_corrected")
        p = row.number("p_value") if math.isnan(corrected) else corrected
        sentence = words(
            "anova_none",
            df1=row["df1"],
            df2=row["df2"],
            f=row.show("statistic", 2),
            p=row.link(p_said(p)),
            holm=row.link(p_value(row.number("p_holm"))),
            omega=row.show("omega2", 2),
            n=row["n_seeds"],
        )
        question = words("rq1_question", model=row["model"])
        found.append(Card(question, "none", sentence, row, (), _note(row)))
    return found


_TOLD = ("NA", "primary", "rule:", "meaning:", "the difference comes from", "random over seeds",
         "on these ", "fragile:", "secondary:")  # fmt: skip
"""Notes that the card's own sentences tell."""


def _note(row: Cell) -> str:
    return "; ".join(p for p in row["note"].split("; ") if not p.startswith(_TOLD))


def reading(tables: Tables) -> list[Markup]:
    """What p, interval and verdict say, with this study's own numbers."""
    row = primary(tables)
    found = []
    if row is not None and math.isfinite(row.number("p_value")):
        p = row.number("p_value")
        percent = "fewer than 0.01" if p < 1e-4 else number(100 * p, 1 if p >= 0.01 else 2)
        found.append(words("reading_p", p=p_said(p), percent=percent))
    hits = 95.0 if row is None or math.isnan(row.number("level")) else 100 * row.number("level")
    found.append(words("reading_interval", hits=f"{hits:g}"))
    alpha = 0.025 if row is None or math.isnan(row.number("alpha")) else row.number("alpha")
    found.append(
        words(
            "reading_verdict",
            alpha=f"{alpha:g}",
            half=f"{alpha / 2:g}",
            level="95 %" if row is None else row.level,
        )
    )
    found.append(words("reading_one"))
    found += _helps(row) if row is not None else []
    found += [words("reading_unit"), words("reading_links")]
    return found


def _helps(row: Cell) -> list[Markup]:
    """Whether seeds or items would sharpen this study: from its own variance components."""
    share = row.number("noise_share")
    if math.isnan(share):
        return []
    name = "reading_helps_items" if share > 0.5 else "reading_helps_seeds"
    return [
        words(name, share=row.show("noise_share", 0, scale=100)),
        words("reading_errors", seeds=row.show("error_seeds"), items=row.show("error_items")),
    ]


def remarks(
    tables: Tables,
    traces: Traces,
    *,
    shortfalls: Sequence[str] = (),
    registered: str = "none",
    agreements: Sequence[tuple[str, str, int, int]] = (),
) -> list[Markup]:
    """What a reader should know before believing the verdicts."""
    found = []
    row = primary(tables)
    notes = [r["note"] for t in tables.values() for r in t if "note" in t.columns]
    if any(n.startswith("interim") for n in notes) or _interim_curves(tables):
        found.append(words("remark_interim"))
    if registered == "exploratory":
        found.append(words("remark_exploratory"))
    elif registered == "none":
        found.append(words("remark_unregistered"))
    else:
        found.append(words("remark_registered"))
    found += [words("remark_shortfall", text=s) for s in shortfalls]
    found += [
        words("remark_batch", model=model, chunk=chunk, asked=asked, differ=asked - equal)
        for model, chunk, asked, equal in agreements
        if equal < asked
    ]
    for model, counts in sorted(traces.lengths.items()):
        if any(counts.values()):
            found.append(words("remark_lengths", model=model, **counts))
    for w in traces.windows:
        fallback, inside = _mean(w.means["fallback"]), _mean(w.means["occupancy"])
        names = {"condition": w.condition, "model": w.model}
        if fallback > MOSTLY:
            said = words("remark_fallback", **names, percent=number(100 * fallback, 0))
            below = _mean(w.means["fallback_below"])
            if math.isfinite(below):
                where = side(fallback, below)
                share = below / fallback if where != "above" else 1.0 - below / fallback
                said += " " + words(_SIDES[where], percent=number(100 * share, 0))
            found.append(said)
        if inside >= KEEP_EVERYTHING:
            found.append(words("remark_everything", **names, percent=number(100 * inside, 0)))
        found += _length_remarks(w)
    if row is not None and row.number("power_claimed") < 0.8:
        needed = (
            tables["power"].first(
                benchmark="mean", scale="pp", is_planned="true", basis="measured spread"
            )
            if ("power" in tables)
            else None
        )
        if needed is not None and math.isfinite(needed.number("seeds_for_80")):
            found.append(
                words(
                    "remark_low_power",
                    n=row["n_seeds"],
                    power=row.show("power_claimed", 0, scale=100),
                    needed=needed.show("seeds_for_80", 0),
                    low=needed.show("seeds_for_80_low", 0),
                    high=needed.show("seeds_for_80_high", 0),
                )
            )
    if row is not None:
        lost = _told(row, "fragile: ").split(" ")[0]
        if lost:
            found.append(words("remark_fragile", lost=lost, n=row["n_seeds"]))
        if other := _told(row, "scales disagree in what the rule says "):
            found.append(words("remark_verdicts", text=other.strip("()")))
    if "h3a" in tables:
        for r in tables["h3a"].where(scale="pp"):
            if "scales disagree in sign" in r["note"]:
                found.append(words("remark_signs", benchmark=r.link(r["benchmark"])))
    return found


_SIDES = {
    "below": "remark_fallback_below",
    "above": "remark_fallback_above",
    None: "remark_fallback_both",
}


def _length_remarks(w: Window) -> list[Markup]:
    """Updates whose draws were much shorter or longer than the pool, the farthest one's figures."""
    pairs = list(zip(w.means["drawn_tokens"], w.means["pool_tokens"], strict=True))
    found = []
    for name, far in (
        ("remark_shorter", [(d / p, d, p) for d, p in pairs if d * LENGTH <= p]),
        ("remark_longer", [(p / d, d, p) for d, p in pairs if d >= p * LENGTH]),
    ):
        if far:
            _, drawn, pool = min(far)
            found.append(
                words(
                    name,
                    condition=w.condition,
                    model=w.model,
                    n=len(far),
                    all=len(pairs),
                    drawn=number(drawn),
                    pool=number(pool),
                )
            )
    return found


def _interim_curves(tables: Tables) -> bool:
    return "curves" in tables and any(r["interim"] == "true" for r in tables["curves"])


def effects(tables: Tables) -> Figure:
    """Forest plots of H3a in percentage points."""
    table = tables.get("h3a")
    rows = table.where(scale="pp") if table else []
    if not rows:
        return Figure([])
    first = rows[0]
    small, large = first["model_small"], first["model_large"]
    gains, differences = [], []
    for r in rows:
        strong = r["benchmark"] == "mean"
        name = label("mean") if strong else {"": r["benchmark"]}
        marks = [
            (i, _effect(r, f"effect_{role}", model))
            for i, (role, model) in enumerate((("small", small), ("large", large)))
        ]
        gains.append(ForestRow(name, marks, strong))
        differences.append(
            ForestRow(name, [(6, _effect(r, "difference", f"{large} − {small}"))], strong)
        )
    axis = label("effects_axis", level=first.level)
    names = {"treatment": first["treatment"], "control": first["control"]}
    panels = []
    for key, part, values in (
        ("effects_gain", gains, names),
        ("effects_difference", differences, {"small": small, "large": large}),
    ):
        title = label(key, **values)
        panels.append(
            Panel(words(key, **values), charts.forest(part, name=_spoken(title), x_label=axis))
        )
    return Figure(panels, charts.legend([(small, 0), (large, 1), (f"{large} − {small}", 6)]))


def _effect(row: Cell, name: str, who: str) -> Point:
    value, low, high = (row.number(f"{name}{end}") for end in ("", "_low", "_high"))
    tip = f"{row['benchmark']}, {who}: {number(value, 2, sign=True)} " + between(
        number(low, 2, sign=True), number(high, 2, sign=True)
    )
    return Point(value, 0.0, low, high, tip, row.anchor)


def effect_tables(tables: Tables) -> list[tuple[Markup, list[Cell], int]]:
    """H3a's rows by scale: title, rows, decimals."""
    table = tables.get("h3a")
    if not table:
        return []
    return [
        (words(f"scale_{scale}"), rows, digits)
        for scale, digits in (("pp", 1), ("logit", 2), ("hedges_g", 2))
        if (rows := table.where(scale=scale))
    ]


def curves(tables: Tables, constants: Sequence[Constant] = ()) -> Figure:
    """Learning curves: a panel a benchmark and model.

    Args:
        constants: what the best constant answers score, as a reference in each panel.
    """
    table = tables.get("curves")
    if not table:
        return Figure([])
    has_subset = {r["benchmark"] for r in table if r["items"] == "subset"}
    rows = [r for r in table if r["items"] == "subset" or r["benchmark"] not in has_subset]
    conditions = _ordered({r["condition"] for r in rows} - {"base"}, _CONDITIONS)
    panels = []
    for benchmark in _ordered({r["benchmark"] for r in rows}, _ORDER):
        part = [r for r in rows if r["benchmark"] == benchmark]
        values = [100 * r.number(c) for r in part for c in ("mean", "low", "high")]
        asked = "subset" if benchmark in has_subset else "full"
        floor = [
            (100 * c.value, label("constant"))
            for c in constants
            if (c.benchmark, c.task, c.items) == (benchmark, "all", asked)
            and math.isfinite(c.value)
        ]
        values += [v for v, _ in floor]
        finite = [v for v in values if math.isfinite(v)] or [0.0, 100.0]
        room = (min(max(0.0, min(finite) - 2), 95.0), max(min(100.0, max(finite) + 2), 5.0))
        for model in dict.fromkeys(r["model"] for r in rows):
            here = [r for r in part if r["model"] == model]
            base = next((r for r in here if r["condition"] == "base"), None)
            references = [] if base is None else [(100 * base.number("mean"), label("base"))]
            metric = here[0]["metric"] if here else ""
            panels.append(
                Panel(
                    Markup("<b>{}</b>, {}").format(benchmark, model),
                    charts.line_chart(
                        [_curve(here, c, i) for i, c in enumerate(conditions)],
                        name=f"{benchmark}, {model}",
                        x_label=label("step"),
                        y_label=label("score_axis", metric=_METRICS.get(metric, metric)),
                        y_range=room,
                        references=[*references, *floor],
                    ),
                )
            )
    return Figure(panels, charts.legend([(c, i) for i, c in enumerate(conditions)]))


def _curve(rows: Sequence[Cell], condition: str, index: int) -> Line:
    part = sorted((r for r in rows if r["condition"] == condition), key=lambda r: r.number("step"))
    points = []
    for r in part:
        mean, low, high = (100 * r.number(c) for c in ("mean", "low", "high"))
        tip = f"{condition}, {r['step']}: {number(mean)} {between(number(low), number(high))}"
        points.append(Point(r.number("step"), mean, low, high, tip, r.anchor))
    return Line(condition, index, points)


def power(tables: Tables) -> Figure:
    """Power by number of seeds for the primary endpoint."""
    table = tables.get("power")
    if not table:
        return Figure([])
    lines, names = [], []
    for index, (basis, name) in enumerate(
        (
            ("measured spread", "power_measured"),
            ("claimed points and d", "power_both"),
            ("claimed d alone", "power_claimed"),
        )
    ):
        rows = [
            r
            for r in table.where(benchmark="mean")
            if r["basis"].startswith(basis) and math.isfinite(r.number("power"))
        ]
        if not rows:
            continue
        points = [
            Point(
                r.number("n_seeds"),
                100 * r.number("power"),
                tip=f"{r['n_seeds']}: {number(100 * r.number('power'))} %",
                source=r.anchor,
            )
            for r in rows
        ]
        lines.append(Line(label(name)["en"], index, points))
        names.append((name, index))
    if not lines:
        return Figure([])
    planned = next((r for r in table if r["is_planned"] == "true"), None)
    chart = charts.line_chart(
        lines,
        name=_spoken(label("power")),
        x_label=label("seeds_axis"),
        y_label=label("power_axis"),
        y_range=(0.0, 100.0),
        x_range=(0.0, max(p.x for line in lines for p in line.points) * 1.02),
        references=[(80.0, {"": "80 %"})],
        verticals=[(planned.number("n_seeds"), label("planned"))] if planned else [],
    )
    key_ = charts.legend([(words(k), i) for k, i in names])
    return Figure([Panel(Markup(""), chart)], key_)


def window(traces: Traces) -> Figure:
    """The window and its occupancy over a run, two panels a model and condition; then lengths."""
    panels: list[Panel] = []
    lengths: list[Panel] = []
    for w in traces.windows:
        title = Markup("<b>{}</b>, {}").format(w.condition, w.model)
        middle = [(a + b) / 2 for a, b in zip(w.means["low"], w.means["high"], strict=True)]
        band = [
            Point(float(s), m, low, high, f"{s}: {between(number(low, 3), number(high, 3))}")
            for s, m, low, high in zip(
                w.steps, middle, w.means["low"], w.means["high"], strict=True
            )
        ]
        lines = [
            Line("window", 3, band, marks=False, joined=False),
            _series(w, "perplexity", 0),
            _series(w, "perplexity_smoothed", 1, dashed=True),
        ]
        panels.append(
            Panel(
                title,
                charts.line_chart(
                    lines,
                    name=f"{w.condition}, {w.model}: {_spoken(label('perplexity'))}",
                    x_label=label("step"),
                    y_label=label("perplexity"),
                ),
            )
        )
        panels.append(
            Panel(
                title,
                charts.line_chart(
                    [
                        _series(w, "occupancy", 2, 100),
                        _series(w, "fallback", 4, 100),
                        _series(w, "fallback_below", 4, 100, dashed=True),
                    ],
                    name=f"{w.condition}, {w.model}: {_spoken(label('share'))}",
                    x_label=label("step"),
                    y_label=label("share"),
                    y_range=(0.0, 100.0),
                ),
            )
        )
        if any(math.isfinite(v) for v in w.means["drawn_tokens"]):
            lengths.append(
                Panel(
                    title,
                    charts.line_chart(
                        [_series(w, "pool_tokens", 6, dashed=True), _series(w, "drawn_tokens", 5)],
                        name=f"{w.condition}, {w.model}: {_spoken(label('tokens_axis'))}",
                        x_label=label("step"),
                        y_label=label("tokens_axis"),
                    ),
                )
            )
    keys = (
        ("window_probe", 0), ("window_smoothed", 1), ("window_band", 3), ("occupancy", 2),
        ("fallback", 4), ("pool_tokens", 6), ("drawn_tokens", 5),
    )  # fmt: skip
    panels += lengths
    return Figure(panels, charts.legend([(words(k), i) for k, i in keys]) if panels else Markup(""))


def _series(w: Window, name: str, index: int, scale: float = 1.0, *, dashed: bool = False) -> Line:
    points = [
        Point(float(s), scale * v, tip=f"{s}: {number(scale * v, 3 if scale == 1 else 0)}")
        for s, v in zip(w.steps, w.means[name], strict=True)
    ]
    return Line(name, index, points, dashed=dashed)


def difficulty(shares: Sequence[tuple[str, list[float]]], traces: Traces) -> Figure:
    """Histograms of the corpus, and what each condition trained on."""
    panels = []
    names: list[tuple[Any, int]] = []
    conditions = _ordered({c for _, c in traces.trained}, _CONDITIONS)
    if shares:
        series = [(language, 5 + i % 2, counts) for i, (language, counts) in enumerate(shares)]
        panels.append(
            Panel(
                words("corpus_title"),
                charts.histogram(
                    series,
                    edges=(0.0, 1.0),
                    name=_spoken(label("difficulty")),
                    x_label=label("difficulty_axis"),
                    y_label=label("examples_axis"),
                ),
            )
        )
        names += [(language, index) for language, index, _ in series]
    for model in dict.fromkeys(m for m, _ in traces.trained):
        lines = []
        for i, c in enumerate(conditions):
            rows = traces.trained.get((model, c), [])
            points = [Point(s, d, tip=f"{c}, {number(s, 0)}: {number(d, 2)}") for s, d in rows]
            lines.append(Line(c, i, points))
        panels.append(
            Panel(
                Markup("<b>{}</b>").format(model),
                charts.line_chart(
                    lines,
                    name=f"{model}: {_spoken(label('trained_axis'))}",
                    x_label=label("step"),
                    y_label=label("trained_axis"),
                    y_range=(0.0, 1.0),
                ),
            )
        )
    names = [*((c, i) for i, c in enumerate(conditions)), *names]
    return Figure(panels, charts.legend(names) if panels else Markup(""))


def interaction(
    tables: Tables, languages: Mapping[str, str], treatment: str, control: str
) -> Figure:
    """Gain by task language, a line a model, a mark a seed; each leads to the model's row of r1."""
    table = tables.get("scores")
    found = gains_by_language(table, languages, treatment, control) if table else {}
    shown = sorted({language for model in found.values() for language in model})
    if len(shown) < 2:
        return Figure([])
    lines = []
    for i, (model, by_language) in enumerate(found.items()):
        r1 = tables["r1"].first(model=model, scale="pp") if "r1" in tables else None
        source = r1.anchor if r1 else ""
        shift = (i - (len(found) - 1) / 2) * 0.08
        dots, means = [], []
        for x, language in enumerate(shown):
            pairs = by_language.get(language, [])
            dots += [
                Point(
                    x + shift, g, tip=f"{model}, {language}, s{s}: {number(g, 1, sign=True)}",
                    source=source,
                )
                for s, g in pairs
            ]  # fmt: skip
            if pairs:
                mean = _mean([g for _, g in pairs])
                tip = f"{model}, {language}: {number(mean, 1, sign=True)}"
                means.append(Point(x + shift, mean, tip=tip, source=source))
        lines += [Line(model, i, dots, joined=False), Line(model, i, means)]
    chart = charts.line_chart(
        lines,
        name=_spoken(label("interaction")),
        x_label=label("language_axis"),
        y_label=label("gain_axis"),
        x_range=(-0.4, len(shown) - 0.6),
        x_ticks=[(float(x), language) for x, language in enumerate(shown)],
        references=[(0.0, {"": ""})],
    )
    return Figure([Panel(Markup(""), chart)], charts.legend([(m, i) for i, m in enumerate(found)]))


def expected(tables: Tables) -> Figure:
    """Claims (index 3) beside what was observed, a panel a scale."""
    table = tables.get("expected")
    if not table:
        return Figure([])
    panels = []
    models = table.distinct("model")
    groups = [("pp", "gain_axis", m) for m in models]
    groups += [("hedges_g", "scale_hedges_g", ""), ("percent", "efficiency_axis", "")]
    for scale, axis, model in groups:
        rows = [
            r
            for r in table
            if r["scale"] == scale
            and model in ("", r["model"])
            and math.isfinite(r.number("observed"))
        ]
        if rows:
            title = ", ".join(part for part in (rows[0]["quantity"], model) if part)
            chart = charts.forest(
                [_claim(r, models, by_model=not model) for r in rows],
                name=title,
                x_label=label(axis),
            )
            panels.append(Panel(Markup("{}").format(title), chart))
    names: list[tuple[Any, int]] = [(words("claim"), 3)]
    names += [(m, i % 2) for i, m in enumerate(models)]
    return Figure(panels, charts.legend(names) if panels else Markup(""))


def _claim(row: Cell, models: Sequence[str], *, by_model: bool) -> ForestRow:
    who = f"{row['model']}, {row['benchmark']}: "
    low, high = row.number("expected"), row.number("expected_high")
    claimed = low if math.isnan(high) else (low + high) / 2
    said = number(low, 1, sign=True) + ("" if math.isnan(high) else f" – {number(high)}")
    observed = row.number("observed")
    found = who + number(observed, 1, sign=True)
    return ForestRow(
        {"": row["model"] if by_model else row["benchmark"]},
        [
            (3, Point(claimed, 0.0, low, high, who + said, row.anchor)),
            (
                models.index(row["model"]) % 2,
                Point(observed, 0.0, row.number("low"), row.number("high"), found, row.anchor),
            ),
        ],
    )


def ladder(tables: Tables) -> Figure:
    """Gain by log10 parameters with the fitted line."""
    table = tables.get("ladder")
    if not table:
        return Figure([])
    rows = [
        r
        for r in table.where(term="gain", benchmark="mean", scale="pp")
        if math.isfinite(r.number("estimate"))
    ]
    slope = next(
        (
            r
            for r in table.where(benchmark="mean", scale="pp", left_out="NA")
            if r["term"].startswith("slope") and math.isfinite(r.number("estimate"))
        ),
        None,
    )
    if len(rows) < 2:
        return Figure([])
    points = [
        Point(
            math.log10(r.number("parameters")), r.number("estimate"), r.number("low"),
            r.number("high"),
            f"{r['model']}: {number(r.number('estimate'), 1, sign=True)}", r.anchor,
        )
        for r in rows
    ]  # fmt: skip
    lines = [Line("gain", 0, points)]
    if slope is not None and math.isfinite(slope.number("intercept")):
        ends = [points[0].x, points[-1].x]
        a, b = slope.number("intercept"), slope.number("estimate")
        lines.append(Line("line", 6, [Point(x, a + b * x) for x in ends], dashed=True, marks=False))
    chart = charts.line_chart(
        lines,
        name=_spoken(label("ladder")),
        x_label=label("ladder_axis"),
        y_label=label("gain_axis"),
        references=[(0.0, {"": ""})],
        x_ticks=[(p.x, _size(10**p.x)) for p in points],
    )
    return Figure([Panel(Markup(""), chart)])


def _size(parameters: float) -> str:
    for unit, power_ in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if parameters >= power_:
            return f"{parameters / power_:.3g}{unit}"
    return f"{parameters:.3g}"


def calibration(tables: Tables) -> Figure:
    """Calibration error by step, a panel a benchmark and model."""
    table = tables.get("calibration")
    if not table or table.rows[0]["model"] == "NA":
        return Figure([])
    conditions = _ordered(set(table.distinct("condition")) - {"base"}, _CONDITIONS)
    panels = []
    for benchmark in _ordered(set(table.distinct("benchmark")), _ORDER):
        for model in table.distinct("model"):
            here = [r for r in table if (r["benchmark"], r["model"]) == (benchmark, model)]
            # The same items at every step: the error is biased by their number.
            subset = [r for r in here if r["items"] == "subset"]
            here = subset or here
            lines = []
            for i, c in enumerate(conditions):
                part = [r for r in here if r["condition"] == c]
                points = []
                for r in sorted(part, key=lambda r: r.number("step")):
                    ece, low, high = (100 * r.number(k) for k in ("ece", "low", "high"))
                    tip = f"{c}, {r['step']}: {number(ece)} (n = {r['n_items']})"
                    points.append(Point(r.number("step"), ece, low, high, tip, r.anchor))
                lines.append(Line(c, i, points))
            base = next((r for r in here if r["condition"] == "base"), None)
            references = [(100 * base.number("ece"), label("base"))] if base else []
            last = max((r.number("step") for r in here), default=math.nan)
            chance = [
                100 * r.number("ece_if_calibrated")
                for r in here
                if r.number("step") == last and r["condition"] != "base"
            ]
            if chance and math.isfinite(_mean(chance)):
                references.append((_mean(chance), label("calibrated")))
            panels.append(
                Panel(
                    Markup("<b>{}</b>, {}").format(benchmark, model),
                    charts.line_chart(
                        lines,
                        name=f"{benchmark}, {model}: {_spoken(label('calibration'))}",
                        x_label=label("step"),
                        y_label=label("ece_axis"),
                        references=references,
                    ),
                )
            )
    return Figure(panels, charts.legend([(c, i) for i, c in enumerate(conditions)]))


def ablations(tables: Tables) -> list[Cell]:
    """Primary rows of the ablations."""
    table = tables.get("ablations")
    return table.where(benchmark="mean", scale="pp") if table else []


def _ordered(names: set[str], first: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda n: (first.index(n) if n in first else len(first), n))


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan


def _spoken(text: Mapping[str, str]) -> str:
    return " / ".join(text.values())
