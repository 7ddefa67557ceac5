"""`zpdbench show FILE.tsv`: a results table on the terminal, verdicts first."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zpdbench import files

_VERDICT_STYLE = {
    "supported": "bold green", "contradicted": "bold red", "smaller harm": "bold red",
    "difference only": "yellow", "inconclusive": "yellow",
}  # fmt: skip
_WIDTH = 100
# Columns that a generic table leaves out when there is no room: they are in the file.
_LONG = ("note", "preregistration", "registered")
# Which columns of a wide table have the first right to the room there is.
_FIRST = (
    "verdict", "model", "benchmark", "condition", "step", "quantity", "method", "term",
    "contrast", "scale", "unit", "n_seeds", "ratio", "estimate", "difference", "p_value", "power",
    "claimed_difference", "mde_80", "seeds_for_80",
    "value", "mean", "ece", "expected", "observed", "low", "high", "design", "test", "p_holm",
    "statistic",
)  # fmt: skip

# One end of an interval without the other says less than neither.
_PAIRS = ({"low", "high"}, {"sd_small", "sd_large"})

# Notes that the lines above the tables tell, and p values of single rows.
_TOLD = ("NA", "primary endpoint", "rule:", "meaning:", "on these ", "secondary:")

Row = dict[str, str]


def render(path: str | Path, *, console: Console) -> None:
    """Print a results table: h3a.tsv with its verdicts in words, any other as it is.

    Raises:
        UserError: as `files.read_tsv`.
    """
    columns, rows = files.read_tsv(path)
    if "verdict" in columns and "effect_small" in columns and "model_small" in columns:
        _render_h3a(rows, console)
    else:
        _render_any(Path(path).name, columns, rows, console)


def _render_h3a(rows: list[Row], console: Console) -> None:
    primary = next(
        (r for r in rows if r["benchmark"] == "mean" and r["scale"] == "pp"),
        rows[0] if rows else None,
    )
    if primary is None:
        console.print("no rows")
        return
    small, large = primary["model_small"], primary["model_large"]
    treatment, control = primary.get("treatment", "zpd"), primary.get("control", "random")
    is_smaller = primary.get("side") == "smaller"
    where, other = (small, large) if is_smaller else (large, small)
    console.print(
        f"[bold]H3a[/bold]  does {escape(treatment)} gain over {escape(control)} in "
        f"{escape(where)}, and more than in {escape(other)}?"
    )
    console.print(f"[bold]Verdict:[/bold] {_verdict(primary['verdict'])}", end="")
    said = _said(primary, "meaning: ")
    console.print(f"  {escape(said)}" if said else "")
    console.print(
        f"gain {_number(primary['effect_small'], sign=True)} pp in {escape(small)}, "
        f"{_number(primary['effect_large'], sign=True)} in {escape(large)}; difference "
        f"{_number(primary['difference'], sign=True)}, {_level(primary)} "
        f"{_interval(primary, 'difference')}; {primary['n_seeds']} seeds"
    )
    console.print(
        f"one-sided p: difference {_p(primary.get('p_difference', 'NA'))}, gain in "
        f"{escape(where)} {_p(primary.get('p_gain', 'NA'))}; the larger counts"
    )
    _render_reach(primary, console)
    level = _level(primary)
    for scale, title, digits in (
        ("pp", "Percentage points (mean is the primary endpoint)", 2),
        ("logit", "Log-odds", 3),
        ("hedges_g", "Hedges' g on the pooled SD", 2),
    ):
        part = [r for r in rows if r["scale"] == scale]
        if not part:
            continue
        table = Table(title=title, title_justify="left", pad_edge=False, box=None)
        table.add_column("benchmark")
        for name in ("gain small", "gain large", f"difference, {level}"):
            table.add_column(name, justify="right")
        for name in ("p", "MDE", "power"):
            table.add_column(name, justify="right")
        for row in part:
            is_mean = row["benchmark"] == "mean"
            p = row["p_value"] if is_mean else row["p_holm"]
            style = "bold" if is_mean and scale == "pp" else None
            table.add_row(
                escape(row["benchmark"]),
                _number(row["effect_small"], digits, sign=True),
                _number(row["effect_large"], digits, sign=True),
                f"{_number(row['difference'], digits, sign=True)} "
                f"{_interval(row, 'difference', digits)}",
                _p(p),
                _number(row["mde_80"], digits),
                _number(row["power_claimed"], 2),
                style=style,
            )
        console.print(table)
    console.print(
        "[dim]gain: per-seed "
        f"{escape(treatment)} - {escape(control)} at the final step. p: one-sided, of difference "
        "and gain the larger, Holm over the benchmarks but for mean. MDE: the true difference that "
        "this study would find four times in five. power: of the rule, for the claimed gains. Only "
        "mean in points has a verdict. NA: undefined, the file's note says why.[/dim]"
    )
    shown: list[str] = []
    for row in [primary, *rows]:
        for part_ in row.get("note", "").split("; "):
            if part_ and part_ not in shown and not part_.startswith(_TOLD):
                shown.append(part_)
    console.print("[dim]" + escape("Notes: " + "; ".join(shown)) + "[/dim]")


def _render_reach(row: Row, console: Console) -> None:
    """For new items too, and with each seed left out."""
    if row.get("new_items_p", "NA") != "NA":
        console.print(
            f"these {row['n_items']} items: {_interval(row, 'difference')}; new items of the kind: "
            f"{_interval(row, 'new_items')}, p {_p(row['new_items_p'])}"
            + (
                f": {_verdict(row['new_items_verdict'])}"
                if row["new_items_verdict"] != row["verdict"]
                else ""
            )
        )
    if row.get("left_out_p_low", "NA") != "NA":
        console.print(
            f"one seed left out: difference {_number(row['left_out_low'], sign=True)} to "
            f"{_number(row['left_out_high'], sign=True)}, p {_p(row['left_out_p_low'])} to "
            f"{_p(row['left_out_p_high'])} ({escape(row['left_out_verdicts'])})"
        )


def _said(row: Row, start: str) -> str:
    """What a row's note says after these words; "" if nothing."""
    parts = [p for p in row.get("note", "").split("; ") if p.startswith(start)]
    return parts[0].removeprefix(start) if parts else ""


def _render_any(name: str, columns: list[str], rows: list[Row], console: Console) -> None:
    varying = [
        c
        for c in columns
        if c not in _LONG and (len(rows) < 2 or len({r[c] for r in rows}) > 1 or c == "verdict")
    ]
    constant = [c for c in columns if c not in varying and c not in _LONG]
    widths = {c: max([len(c), *(len(_cell(r[c])) for r in rows[:2000])]) + 2 for c in varying}
    rank = {c: i for i, c in enumerate(_FIRST)}
    room, chosen = console.width, set()
    for column in sorted(varying, key=lambda c: (rank.get(c, len(rank)), columns.index(c))):
        if widths[column] <= room:
            chosen.add(column)
            room -= widths[column]
    for pair in _PAIRS:
        if len(chosen & pair) == 1:
            chosen -= pair
    kept = [c for c in varying if c in chosen]
    table = Table(title=escape(name), title_justify="left", pad_edge=False, box=None)
    for column in kept:
        numeric = rows and all(_is_number(r[column]) or r[column] == "NA" for r in rows)
        table.add_column(escape(column), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            *(_verdict(row[c]) if c == "verdict" else escape(_cell(row[c])) for c in kept)
        )
    console.print(table)
    facts = [f"{c} {_cell(rows[0][c])}" for c in constant if rows and rows[0][c] != "NA"]
    if facts:
        console.print("[dim]" + escape("In every row: " + ", ".join(facts)) + "[/dim]")
    hidden = [c for c in varying if c not in kept]
    if hidden:
        console.print("[dim]" + escape("Also in the file: " + ", ".join(hidden)) + "[/dim]")


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.table, one results file or several."""
    given = args.table
    paths = given if isinstance(given, list | tuple) else [given]
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    for path in paths:
        render(path, console=console)


def _verdict(text: str) -> str:
    style = _VERDICT_STYLE.get(text)
    return f"[{style}]{text}[/{style}]" if style else escape(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cell(text: str) -> str:
    if "." in text or "e" in text:
        try:
            return f"{float(text):.4g}"
        except ValueError:
            pass
    return text if len(text) <= 40 else text[:37] + "..."


def _number(text: str, digits: int = 2, *, sign: bool = False) -> str:
    try:
        value = float(text)
    except ValueError:
        return "NA"
    if not math.isfinite(value):
        return "NA"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def _interval(row: Row, name: str, digits: int = 2) -> str:
    low, high = (_number(row[f"{name}_{end}"], digits, sign=True) for end in ("low", "high"))
    return "NA" if "NA" in (low, high) else f"\\[{low}, {high}]"


def _p(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return "NA"
    return "<.0001" if value < 1e-4 else f"{value:.4f}"


def _level(row: Row) -> str:
    try:
        return f"{100 * float(row.get('level', '0.95')):g} %"
    except ValueError:
        return "interval"
