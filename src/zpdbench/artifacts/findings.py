"""The verification table: one row a check, as TSV, as a page and as an exit code."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

from zpdbench import files

REPRODUCED, DIFFERS, NOT_CHECKED = "reproduced", "differs", "not checked"
COLUMNS = ("level", "claim", "artefact", "expected", "got", "verdict", "why")
EXIT_HOLDS, EXIT_DIFFERS, EXIT_UNCHECKED = 0, 1, 3
_LONGEST = 300
_LONGEST_WHY = 700


@dataclass(frozen=True)
class Row:
    """One check of a claim against what is in the bundle."""

    level: int
    claim: str
    artefact: str
    expected: str
    got: str
    verdict: str
    why: str = ""
    core: bool = False
    """Whether its level is not done without it: a verification that leaves it open did not pass."""

    def cells(self) -> tuple[object, ...]:
        """The row as it is shown."""
        return astuple(self)[: len(COLUMNS)]


@dataclass
class Table:
    """All checks so far.

    Attributes:
        asked: the highest level that was asked for.
        context: what stands beside a difference: another version of the code (level 0 and up),
            what the authors' machine had otherwise (level 1 and up).
    """

    asked: int
    rows: list[Row] = field(default_factory=list)
    context: dict[int, str] = field(default_factory=dict)

    def add(
        self,
        level: int,
        claim: str,
        artefact: str,
        verdict: str,
        *,
        expected: object = "",
        got: object = "",
        why: str = "",
        core: bool = False,
    ) -> None:
        """Add a check; long values are cut."""
        one, two, three, four = (cut(str(v)) for v in (claim, artefact, expected, got))
        if verdict == DIFFERS:
            beside = [text for first, text in sorted(self.context.items()) if first <= level]
            why = "; ".join(filter(None, (cut(why), *beside)))
        self.rows.append(
            Row(level, one, two, three, four, verdict, cut(why, _LONGEST_WHY), core=core)
        )

    def count(self, verdict: str, level: int | None = None) -> int:
        """Rows with a verdict, of one level or of all."""
        return sum(
            row.verdict == verdict and (level is None or row.level == level) for row in self.rows
        )

    def unchecked_levels(self) -> list[int]:
        """Levels that were asked for at which nothing at all could be checked."""
        return [
            level
            for level in range(self.asked + 1)
            if not self.count(REPRODUCED, level) and not self.count(DIFFERS, level)
        ]

    def open_core(self) -> list[Row]:
        """Rows that their level is not done without, and that could not be checked."""
        return [row for row in self.rows if row.core and row.verdict == NOT_CHECKED]

    def exit_code(self) -> int:
        """0: all was checked and holds; 1: something differs; 3: what matters is still open."""
        if self.count(DIFFERS):
            return EXIT_DIFFERS
        return EXIT_UNCHECKED if self.open_core() or self.unchecked_levels() else EXIT_HOLDS

    def summary(self) -> list[str]:
        """A line a level, for the terminal."""
        lines = []
        for level in range(self.asked + 1):
            counts = [
                f"{self.count(v, level)} {v}"
                for v in (REPRODUCED, DIFFERS, NOT_CHECKED)
                if self.count(v, level)
            ]
            lines.append(f"level {level}: {', '.join(counts) or 'nothing was checked'}")
        return lines


def plain(text: str) -> str:
    """Text that is safe to print: one line, nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def cut(text: str, longest: int = _LONGEST) -> str:
    """Text fit for a cell: printable, one line, not endless."""
    text = plain(text[: longest + 1])
    return text if len(text) <= longest else text[: longest - 1] + "…"


def write_tsv(path: str | Path, rows: Sequence[Row]) -> None:
    """The table as tab-separated text."""
    files.write_tsv(path, COLUMNS, (row.cells() for row in rows))


def write_page(
    path: str | Path,
    title: str,
    table: Table,
    facts: Iterable[tuple[str, str]],
    machines: Mapping[str, tuple[str, str]],
) -> None:
    """The table as a page that loads nothing and runs nothing.

    Args:
        facts: what is checked, name and value.
        machines: fact -> (authors' machine, this machine).
    """

    def cell(text: object, kind: str = "td") -> str:
        return f"<{kind}>{html.escape(str(text))}</{kind}>"

    def section(rows: Sequence[Row]) -> str:
        body = "".join(
            f'<tr class="{row.verdict.replace(" ", "-")}">'
            + "".join(cell(v) for v in row.cells())
            + "</tr>"
            for row in rows
        )
        head = "".join(cell(c, "th") for c in COLUMNS)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    differing = [r for r in table.rows if r.verdict == DIFFERS]
    # What keeps the verification from passing comes first.
    unchecked = [r for r in table.rows if r.verdict == NOT_CHECKED]
    unchecked.sort(key=lambda row: not row.core)
    holding = [r for r in table.rows if r.verdict == REPRODUCED]
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="verdict {_word(table)}">{html.escape(_sentence(table))}</p>',
        "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in table.summary()) + "</ul>",
        "<h2>What was checked</h2><table><tbody>"
        + "".join(f"<tr>{cell(k, 'th')}{cell(v)}</tr>" for k, v in facts)
        + "</tbody></table>",
    ]
    if differing:
        parts += [f"<h2>Differs ({len(differing)})</h2>", section(differing)]
    if unchecked:
        parts += [f"<h2>Not checked ({len(unchecked)})</h2>", section(unchecked)]
    if machines:
        parts.append(
            "<h2>Machines</h2><table><thead><tr><th></th><th>authors</th><th>here</th></tr>"
            "</thead><tbody>"
            + "".join(
                f"<tr>{cell(k, 'th')}{cell(a)}{cell(b)}</tr>" for k, (a, b) in machines.items()
            )
            + "</tbody></table>"
        )
    parts += [
        f"<h2>Reproduced ({len(holding)})</h2>",
        f"<details><summary>{len(holding)} checks</summary>{section(holding)}</details>",
        "</main></body></html>\n",
    ]
    files.write_text(path, "\n".join(parts))


def _word(table: Table) -> str:
    return {EXIT_HOLDS: "holds", EXIT_DIFFERS: "differs"}.get(table.exit_code(), "open")


def _sentence(table: Table) -> str:
    code = table.exit_code()
    if code == EXIT_DIFFERS:
        return f"{table.count(DIFFERS)} checks differ: do not rely on this bundle as it is."
    if code == EXIT_UNCHECKED:
        levels = {row.level for row in table.open_core()} | set(table.unchecked_levels())
        shown = ", ".join(map(str, sorted(levels)))
        return f"Nothing differs, but what matters at level {shown} could not be checked."
    left = table.count(NOT_CHECKED)
    things = "1 thing was" if left == 1 else f"{left} things were"
    return "All that was checked holds" + (f"; {things} not checked." if left else ".")


_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-size: .87rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem; overflow-wrap: anywhere;
  border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
th { overflow-wrap: normal; }
.verdict { font-size: 1.15rem; padding: .7rem 1rem; border-left: .35rem solid #888; }
.holds { border-color: #1a7f37; } .differs { border-color: #cf222e; }
tr.differs td:nth-child(6) { color: #cf222e; font-weight: 600; }
.open, tr.not-checked td:nth-child(6) { border-color: #9a6700; color: #9a6700; }
"""
