"""Charts of the report as inline SVG: no script, colours by the page's style sheet.

Every mark carries its numbers as a tooltip and the row that they come from; a label is in both
languages and the style sheet shows one. Everything that comes from data is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

Label = dict[str, str]
"""Language -> text; `{"": text}` where it is the same in all."""

COLOURS = 7
_WIDTH, _HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 8, 40


@dataclass(frozen=True)
class Point:
    """A mark: its place, its interval (NaN if it has none), its tooltip and source row."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan
    tip: str = ""
    source: str = ""


@dataclass(frozen=True)
class Line:
    """Marks of one series, joined; `index` chooses colour and marker."""

    name: str
    index: int
    points: Sequence[Point]
    dashed: bool = False
    marks: bool = True
    joined: bool = True


@dataclass(frozen=True)
class ForestRow:
    """A row of a forest plot: label, and for each series (index, point whose x is the effect)."""

    label: Label
    marks: Sequence[tuple[int, Point]]
    strong: bool = False


@dataclass(frozen=True)
class Axis:
    """A linear scale from data to pixels."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...] = field(default=())

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return (low,) if math.isfinite(low) else ()
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(i * step, 12) + 0.0 for i in range(first, last + 1))


def tick_text(value: float) -> str:
    """A tick's label: short, with k, M for thousands and millions."""
    if abs(value) >= 1e6:
        text = f"{value / 1e6:g}M"
    else:
        text = f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"
    return text.replace("-", "\N{MINUS SIGN}")


def line_chart(
    lines: Sequence[Line],
    *,
    name: str,
    x_label: Label,
    y_label: Label,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    references: Sequence[tuple[float, Label]] = (),
    verticals: Sequence[tuple[float, Label]] = (),
    x_ticks: Sequence[tuple[float, str]] | None = None,
) -> Markup:
    """Lines with bands, a legend left to the page.

    Args:
        name: what the figure is, for who cannot see it.
        references: horizontal dashed lines, with a name at one end.
        verticals: vertical dashed lines.
        x_ticks: places and labels; None: round numbers.
    """
    xs = [p.x for line in lines for p in line.points] + [v for v, _ in verticals]
    ys = [v for line in lines for p in line.points for v in (p.y, p.low, p.high)]
    x = _axis(xs, x_range, _LEFT, _WIDTH - _RIGHT)
    y = _axis([*ys, *(v for v, _ in references)], y_range, _HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(x, y, x_label, y_label, x_ticks)]
    for i, (value, label) in enumerate(references):
        at = y(value)
        parts.append(_tag("line", klass="ref", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at, y2=at))
        # At the ends by turns: two of nearly one value stay legible.
        end, anchor = (_LEFT + 2, "start") if i % 2 else (_WIDTH - _RIGHT - 2, "end")
        parts.append(_texts(label, end, at - 4, anchor, "note"))
    for value, label in verticals:
        at = x(value)
        parts.append(_tag("line", klass="ref", x1=at, x2=at, y1=_TOP, y2=_HEIGHT - _BOTTOM))
        parts.append(_texts(label, at + 4, _HEIGHT - _BOTTOM - 6, "start", "note"))
    for line in lines:
        parts.append(_line(line, x, y))
    return _svg(parts, _WIDTH, _HEIGHT, name)


def forest(
    rows: Sequence[ForestRow],
    *,
    name: str,
    x_label: Label,
    verdicts: bool = False,
) -> Markup:
    """Effects with intervals around a line at zero, a row an endpoint."""
    step, left = 34, 96
    height = _TOP + step * len(rows) + _BOTTOM
    values = [v for r in rows for _, p in r.marks for v in (p.x, p.low, p.high)]
    x = _axis([*values, 0.0], None, left, _WIDTH - _RIGHT)
    bottom = height - _BOTTOM
    parts = [_x_axis(x, bottom, x_label, None, (left + _WIDTH - _RIGHT) / 2)]
    parts.append(_tag("line", klass="zero", x1=x(0), x2=x(0), y1=_TOP, y2=bottom))
    for i, row in enumerate(rows):
        middle = _TOP + step * (i + 0.5)
        label = {k: _short(v) for k, v in row.label.items()}
        parts.append(_texts(label, left - 8, middle + 4, "end", "strong" if row.strong else ""))
        spread = 11.0
        for j, (index, point) in enumerate(row.marks):
            at = middle + (j - (len(row.marks) - 1) / 2) * spread
            if not math.isfinite(point.x):
                continue
            inner = [Markup("<title>{}</title>").format(point.tip)]
            if math.isfinite(point.low) and math.isfinite(point.high):
                inner.append(
                    _tag("line", klass="bar", x1=x(point.low), x2=x(point.high), y1=at, y2=at)
                )
            inner.append(_marker(index, x(point.x), at, 5.0 if row.strong else 4.0))
            parts.append(_group(inner, f"s{index} mark", point.source))
    return _svg(parts, _WIDTH, height, name)


def histogram(
    series: Sequence[tuple[str, int, Sequence[float]]],
    *,
    edges: tuple[float, float],
    name: str,
    x_label: Label,
    y_label: Label,
) -> Markup:
    """Shares (per cent) by bins of equal width, one outline a series."""
    top = max([v for _, _, counts in series for v in counts] or [1.0]) or 1.0
    x = _axis([], edges, _LEFT, _WIDTH - _RIGHT)
    y = _axis([], (0.0, top * 1.08), _HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(x, y, x_label, y_label, None)]
    for label, index, counts in series:
        width = (edges[1] - edges[0]) / max(len(counts), 1)
        path = [f"M{_n(x(edges[0]))} {_n(y(0))}"]
        for i, value in enumerate(counts):
            path.append(f"V{_n(y(value))}H{_n(x(edges[0] + width * (i + 1)))}")
        path.append(f"V{_n(y(0))}")
        inner = [
            Markup("<title>{}</title>").format(label),
            _tag("path", klass="area", d="".join(path)),
            _tag("path", klass="line", d="".join(path)),
        ]
        parts.append(_group(inner, f"s{index}", ""))
    return _svg(parts, _WIDTH, _HEIGHT, name)


def legend(entries: Iterable[tuple[str, int]]) -> Markup:
    """The key of a figure: (name, index) in order."""
    items = Markup("").join(
        Markup('<li><svg viewBox="0 0 28 12" aria-hidden="true">{}</svg>{}</li>').format(
            _group(
                [
                    _tag("line", klass="bar", x1=2, x2=26, y1=6, y2=6),
                    _marker(index, 14, 6, 4.0),
                ],
                f"s{index}",
                "",
            ),
            name,
        )
        for name, index in entries
    )
    return Markup('<ul class="legend">{}</ul>').format(items)


def _axis(
    values: Sequence[float], given: tuple[float, float] | None, start: float, end: float
) -> Axis:
    if given:
        low, high = given
    else:
        finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        low, high = low - room, high + room
    if not high > low:
        high = low + 1.0
    return Axis(low, high, start, end, ticks(low, high, 5))


def _frame(
    x: Axis,
    y: Axis,
    x_label: Label,
    y_label: Label,
    x_ticks: Sequence[tuple[float, str]] | None,
) -> Markup:
    parts = []
    for value in y.ticks:
        at = y(value)
        parts.append(_tag("line", klass="grid", x1=x.start, x2=x.end, y1=at, y2=at))
        parts.append(_texts({"": tick_text(value)}, x.start - 5, at + 4, "end", "tick"))
    parts.append(_x_axis(x, y.start, x_label, x_ticks, (x.start + x.end) / 2))
    middle = (y.start + y.end) / 2
    for language, text in y_label.items():
        parts.append(
            Markup('<text class="label {}" text-anchor="middle" transform="{}">{}</text>').format(
                language, f"translate(11 {_n(middle)}) rotate(-90)", text
            )
        )
    return Markup("").join(parts)


def _x_axis(
    x: Axis,
    bottom: float,
    label: Label,
    places: Sequence[tuple[float, str]] | None,
    middle: float,
) -> Markup:
    shown = places if places is not None else [(v, tick_text(v)) for v in x.ticks]
    parts = [_tag("line", klass="axis", x1=x.start, x2=x.end, y1=bottom, y2=bottom)]
    for value, text in shown:
        at = x(value)
        parts.append(_tag("line", klass="axis", x1=at, x2=at, y1=bottom, y2=bottom + 4))
        parts.append(_texts({"": text}, at, bottom + 16, "middle", "tick"))
    parts.append(_texts(label, middle, bottom + 32, "middle", "label"))
    return Markup("").join(parts)


def _line(line: Line, x: Axis, y: Axis) -> Markup:
    points = [p for p in line.points if math.isfinite(p.x) and math.isfinite(p.y)]
    inner = []
    if len(points) > 1 and all(math.isfinite(v) for p in points for v in (p.low, p.high)):
        upper = [f"{_n(x(p.x))} {_n(_inside(y, p.high))}" for p in points]
        lower = [f"{_n(x(p.x))} {_n(_inside(y, p.low))}" for p in reversed(points)]
        inner.append(_tag("path", klass="area", d="M" + "L".join([*upper, *lower]) + "Z"))
    if line.joined and len(points) > 1:
        d = "M" + "L".join(f"{_n(x(p.x))} {_n(y(p.y))}" for p in points)
        inner.append(_tag("path", klass="line dashed" if line.dashed else "line", d=d))
    if line.marks:
        for p in points:
            shape = _marker(line.index, x(p.x), y(p.y), 3.2)
            tip = Markup("<title>{}</title>").format(p.tip)
            inner.append(_group([tip, shape], "mark", p.source))
    return _group(inner, f"s{line.index}", "")


def _inside(axis: Axis, value: float) -> float:
    return axis(min(max(value, axis.low), axis.high))


def _marker(index: int, x: float, y: float, r: float) -> Markup:
    """One of seven shapes, so that colour is never the only difference."""
    kind = index % COLOURS
    if kind == 0:
        return _tag("circle", klass="dot", cx=x, cy=y, r=r)
    shapes: dict[int, Sequence[tuple[float, float]]] = {
        1: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        2: ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
        3: ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        4: ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
        5: ((-1.2, 0), (0.8, -1.1), (0.8, 1.1)),
        6: ((1.2, 0), (-0.8, -1.1), (-0.8, 1.1)),
    }
    d = "M" + "L".join(f"{_n(x + r * a)} {_n(y + r * b)}" for a, b in shapes[kind]) + "Z"
    return _tag("path", klass="dot", d=d)


def _texts(label: Label, x: float, y: float, anchor: str, klass: str) -> Markup:
    return Markup("").join(
        Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
            f"{klass} {language}".strip(), _n(x), _n(y), anchor, text
        )
        for language, text in label.items()
    )


def _short(text: str, most: int = 14) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _group(inner: Sequence[Markup], klass: str, source: str) -> Markup:
    attribute = Markup(' data-row="{}"').format(source) if source else Markup("")
    return Markup('<g class="{}"{}>{}</g>').format(klass, attribute, Markup("").join(inner))


def _tag(kind: str, *, klass: str, **attributes: float | str) -> Markup:
    given = Markup("").join(
        Markup(' {}="{}"').format(k, v if isinstance(v, str) else _n(v))
        for k, v in attributes.items()
    )
    return Markup("<{} {}{}/>").format(kind, Markup('class="{}"').format(klass), given)


def _svg(parts: Sequence[Markup], width: float, height: float, name: str) -> Markup:
    frame = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return frame.format(_n(width), _n(height), name, Markup("").join(parts))


def _n(value: float) -> str:
    """A coordinate with two decimals: the same text wherever it was computed."""
    return f"{round(value, 2) + 0.0:g}"
