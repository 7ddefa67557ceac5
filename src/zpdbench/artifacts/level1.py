"""Level 1: the statistics follow from the verdicts."""

from __future__ import annotations

import base64
import re
import shutil
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from zpdbench import files, records
from zpdbench.artifacts import evidence, frames, layout, numbers
from zpdbench.artifacts.findings import DIFFERS, NOT_CHECKED, REPRODUCED, Table
from zpdbench.artifacts.level0 import Bundle
from zpdbench.artifacts.reading import BadFileError
from zpdbench.artifacts.workshop import NO_TIME, Outcome, Workshop
from zpdbench.progress import track

CLAIM = "it can be computed again"
_SHOWN = 8


@dataclass(frozen=True)
class Given:
    """What verbs read when they make a table again.

    Attributes:
        lock: the study.
        scores: the runs' score files of the bundle.
        adapters: the runs' folders of the bundle, for their traces and notes.
        corpus: the corpus of the bundle, if it was made with it.
        made: name -> where that table is made here.
        bundle: what the page of all results is made from: tables that were compared on their own.
        page: a folder with what the jobs recorded, as the page's verb looks for it.
    """

    lock: Path
    scores: Sequence[Path]
    adapters: Sequence[Path]
    corpus: Path
    made: Callable[[str], Path]
    bundle: Bundle
    page: Path


@dataclass(frozen=True)
class Replay:
    """A verb that makes tables or figures again.

    Attributes:
        verb: what is called.
        outputs: what it makes, names in the bundle.
        arguments: of the verb.
        needs: parts of a bundle that it reads, as `layout.Included` has them.
        wave: verbs of one wave read nothing that another of it makes.
    """

    verb: str
    outputs: tuple[str, ...]
    arguments: Callable[[Given], list[object]]
    needs: tuple[str, ...] = ()
    wave: int = 0


FIGURES = tuple(f"figures/{n}.{kind}" for n in layout.FIGURES_OF for kind in ("svg", "png"))
TRAINING_FIGURES = tuple(
    f"figures/{n}.{kind}" for n in layout.TRAINING_FIGURES for kind in ("svg", "png")
)


def _aggregate(g: Given) -> list[object]:
    outputs = ["--out-scores", g.made("scores.tsv"), "--out-curves", g.made("curves.tsv")]
    return ["--study", g.lock, *outputs, *g.scores, "--adapters", *g.adapters]


def _h3a(g: Given) -> list[object]:
    given = ["--configfile", g.lock, "--scores", *g.scores, "--adapters", *g.adapters]
    return [*given, "--out", g.made("h3a.tsv")]


def _from_scores(verb: str, table: str) -> Replay:
    """A verb that reads the runs' verdicts."""

    def arguments(g: Given) -> list[object]:
        given = ["--study", g.lock, "--scores", *g.scores, "--adapters", *g.adapters]
        return [*given, "--out", g.made(table)]

    return Replay(verb, (table,), arguments)


def _from_table(verb: str, table: str) -> Replay:
    """A verb that reads the table of all scores, as it was made again."""

    def arguments(g: Given) -> list[object]:
        given = ["--study", g.lock, "--scores", g.made("scores.tsv"), "--adapters", *g.adapters]
        return [*given, "--out", g.made(table)]

    return Replay(verb, (table,), arguments, wave=1)


def _efficiency(g: Given) -> list[object]:
    given = ["--study", g.lock, "--scores", g.made("scores.tsv"), "--adapters", *g.adapters]
    return [*given, "--out", g.made("efficiency.tsv")]


def _expected(g: Given) -> list[object]:
    given = ["--scores", g.made("scores.tsv"), "--efficiency", g.made("efficiency.tsv")]
    given += ["--adapters", *g.adapters]
    return ["--study", g.lock, *given, "--out", g.made("expected.tsv")]


def _table_of(figure: str) -> str:
    return layout.FIGURES_OF[PurePosixPath(figure).stem]


def _drawn_from_tables(figures: tuple[str, ...], *needs: str) -> Replay:
    """The verb that draws these figures of tables, from the tables as they were made again."""

    def arguments(g: Given) -> list[object]:
        # Not every study has two models, or a ladder.
        wanted = layout.figures(g.bundle.study)
        names = [n for n in figures if n in wanted]
        given = [
            w for t in dict.fromkeys(map(_table_of, names)) for w in (f"--{t}", g.made(f"{t}.tsv"))
        ]
        return ["--study", g.lock, *given, "--out", *(g.made(name) for name in names)]

    return Replay("draw-figures", figures, arguments, needs=needs, wave=3)


def _report(g: Given) -> list[object]:
    bundle, study, paths = g.bundle, g.bundle.study, layout.Paths("results")

    def there(path: str) -> Path:
        return bundle.path(path.removeprefix("results/"))

    tables = [t for t in layout.tables(study) if t not in ("scores.tsv", "curves.tsv")]
    return [
        *("--study", g.page / layout.STUDY, "--scores", *g.scores, "--adapters", *g.adapters),
        *("--tables", *(bundle.path(t) for t in [*tables, "scores.tsv", "curves.tsv"])),
        *("--generations", *(there(paths.generations(*chunk)) for chunk in study.chunks)),
        *("--items", *(there(paths.items(b)) for b in study.benchmarks)),
        *("--corpus", there(paths.corpus(study.corpus.name)), "--out", g.made(layout.REPORT)),
    ]


def _training_figures(g: Given) -> list[object]:
    outs = [g.made(name) for name in TRAINING_FIGURES]
    return ["--study", g.lock, "--adapters", *g.adapters, "--corpus", g.corpus, "--out", *outs]


REPLAYS: tuple[Replay, ...] = (
    Replay("aggregate-scores", ("scores.tsv", "curves.tsv"), _aggregate),
    Replay("h3a", ("h3a.tsv",), _h3a),
    _from_table("rq1", "anova.tsv"),
    _from_table("h3b", "h3b.tsv"),
    _from_table("r1", "r1.tsv"),
    _from_table("power", "power.tsv"),
    _from_table("ablations", "ablations.tsv"),
    _from_table("ladder", "ladder.tsv"),
    _from_scores("calibration", "calibration.tsv"),
    _from_scores("h3a-sensitivity", "h3a_sensitivity.tsv"),
    Replay("efficiency", ("efficiency.tsv",), _efficiency, needs=("traces",), wave=1),
    Replay("expected", ("expected.tsv",), _expected, needs=("traces",), wave=2),
    _drawn_from_tables(tuple(f for f in FIGURES if _table_of(f) != "expected")),
    _drawn_from_tables(tuple(f for f in FIGURES if _table_of(f) == "expected"), "traces"),
    Replay("draw-training", TRAINING_FIGURES, _training_figures, needs=("traces", "corpus")),
    Replay(
        "report",
        (layout.REPORT,),
        _report,
        needs=("traces", "corpus", "items", "generations"),
        wave=3,
    ),
)
"""What reads a table reads it as it was made again, never the bundle's; the page alone gives the
tables' hashes and so reads the bundle's, which are checked before it."""


def check(bundle: Bundle, workshop: Workshop, table: Table, *, workers: int) -> None:
    """Add level 1's rows.

    Args:
        workers: verbs run at once.
    """
    if not _check_scores(bundle, table):
        return
    paths, study = layout.Paths("results"), bundle.study
    given = Given(
        workshop.lock,
        [bundle.path(paths.scores(*run).removeprefix("results/")) for run in study.all_runs],
        [bundle.path(paths.adapter(*run).removeprefix("results/")) for run in study.runs],
        bundle.path(paths.corpus(study.corpus.name).removeprefix("results/")),
        workshop.path,
        bundle,
        _page_folder(bundle, workshop),
    )
    held = {n for n in bundle.hashes if layout.is_table(n) or layout.is_figure(n)}
    held |= {layout.REPORT} & set(bundle.hashes)
    covered = {name for replay in REPLAYS for name in replay.outputs}
    for name in sorted(held - covered):
        table.add(1, CLAIM, name, DIFFERS, why="no verb of this version makes it")
    wanted = [replay for replay in REPLAYS if held & set(replay.outputs)]
    outcomes: dict[Replay, Outcome] = {}
    with track("level 1", len(wanted), "verbs") as progress, ThreadPoolExecutor(workers) as pool:
        for wave in sorted({replay.wave for replay in wanted}):
            now = [r for r in wanted if r.wave == wave and _can_run(r, bundle)]
            calls = [(r.verb, r.arguments(given)) for r in now]
            for replay, outcome in zip(
                now, pool.map(lambda call: workshop.run(*call), calls), strict=True
            ):
                outcomes[replay] = outcome
                progress.advance(1, replay.verb)
    for replay in wanted:
        names = [name for name in replay.outputs if name in held]
        if replay in outcomes:
            _compare(bundle, workshop, replay.verb, outcomes[replay], names, table)
        else:
            lacking = ", ".join(n for n in replay.needs if not getattr(bundle.included, n))
            why = f"it is made from parts that the bundle was made without: {lacking}"
            for name in names:
                table.add(1, CLAIM, name, NOT_CHECKED, why=why, core=layout.is_table(name))


def _page_folder(bundle: Bundle, workshop: Workshop) -> Path:
    """A results folder of nothing but what the page tells of the jobs."""
    folder = workshop.path("page/x").parent
    shutil.copyfile(bundle.path(layout.STUDY), folder / layout.STUDY)
    for name, record in bundle.records.items():
        files.write_text(folder / name, evidence.dump(record))
        for output, digest in record["outputs"].items():
            if record["rule"] == "make_checkpoint" and layout.is_checkpoint(output):
                text = files.canonical_json({"digest": digest, "files": {}})
                files.write_text(folder / output / "MANIFEST.json", text)
    return folder


def _can_run(replay: Replay, bundle: Bundle) -> bool:
    return all(getattr(bundle.included, part) for part in replay.needs)


def _compare(
    bundle: Bundle,
    workshop: Workshop,
    verb: str,
    outcome: Outcome,
    names: Sequence[str],
    table: Table,
) -> None:
    for name in names:
        made = workshop.path(name)
        why = f"zpdbench {verb}: {outcome.message}"
        if outcome.code == NO_TIME:
            table.add(1, CLAIM, name, NOT_CHECKED, why=why, core=layout.is_table(name))
        elif outcome.code or not made.is_file():
            table.add(1, CLAIM, name, DIFFERS, why=why)
        elif name.endswith(".tsv"):
            _compare_table(bundle, name, made, table)
        elif name == layout.REPORT:
            _compare_page(bundle, made, table)
        else:
            _compare_figure(bundle, name, made, table)


def _check_scores(bundle: Bundle, table: Table) -> bool:
    """Each score file is its own run's: nothing else could tell two exchanged files apart."""
    import polars as pl

    claim, good = "a score file holds its own run", True
    paths = layout.Paths("results")
    for run in bundle.study.all_runs:
        name = paths.scores(*run).removeprefix("results/")
        try:
            frame = frames.scan(bundle.path(name), frames.SCORES)
            there = frames.collect(frame.select("model", "condition", "seed").unique()).rows()
            values = frames.collect(
                frame.select(
                    pl.col("correct").is_between(0, 1).all().alias("bounded"),
                    pl.col("correct").is_nan().any().alias("nan"),
                )
            ).row(0)
        except BadFileError as error:
            table.add(1, claim, name, DIFFERS, why=str(error))
            good = False
            continue
        if there != [tuple(run)] or values != (True, False):
            shown = ", ".join("/".join(map(str, r)) for r in there[:3])
            why = "" if there != [tuple(run)] else "a verdict outside [0, 1]"
            expected = "/".join(map(str, run))
            table.add(1, claim, name, DIFFERS, expected=expected, got=shown, why=why)
            good = False
    if good:
        table.add(1, claim, f"{len(bundle.study.all_runs)} runs", REPRODUCED)
    return good


def _compare_table(bundle: Bundle, name: str, made: Path, table: Table) -> None:
    result = numbers.compare(bundle.path(name), made)
    claim = "the table follows from the verdicts"
    for difference in result.differences[:_SHOWN]:
        where = f"{name} {difference.row} {difference.column}".strip()
        table.add(
            1, claim, where, DIFFERS, expected=difference.expected, got=difference.got,
            why=f"{len(result.differences)} rows differ",
        )  # fmt: skip
    if result.differences:
        return
    why = (
        "byte for byte"
        if result.bytes_equal
        else f"within {result.largest:.1g} relative; bytes differ"
    )
    table.add(1, claim, name, REPRODUCED, got=f"{result.rows} rows", why=why)
    if name == "h3a.tsv":
        for row in numbers.rows(bundle.path(name)):
            told = (
                f"difference {row.get('difference')} "
                f"[{row.get('difference_low')}, {row.get('difference_high')}], "
                f"p {row.get('p_value')}, gain {row.get('gain')}: {row.get('verdict')}"
            )
            table.add(
                1, f"H3a {row.get('benchmark')}/{row.get('scale')}", name, REPRODUCED,
                expected=told, got=told,
            )  # fmt: skip


def _compare_page(bundle: Bundle, made: Path, table: Table) -> None:
    claim = "the page tells what the tables, answers and traces say"
    given, own = bundle.path(layout.REPORT).read_bytes(), made.read_bytes()
    if given == own:
        table.add(1, claim, layout.REPORT, REPRODUCED, why="byte for byte")
    elif bundle.facts["code"]["package"] != records.code_digest():
        # The page gives the code's digest, and the words of its version.
        why = "it was made by another version of the code"
        table.add(1, claim, layout.REPORT, NOT_CHECKED, why=why)
    elif numbers.same_text(_words(given), _words(own), numbers.ITERATIVE):
        table.add(1, claim, layout.REPORT, REPRODUCED, why="but for the last digits of numbers")
    else:
        table.add(1, claim, layout.REPORT, DIFFERS, why="made anew it reads otherwise")


_PACKED = re.compile(rb"[A-Za-z0-9+/]{400,}={0,2}")


def _words(page: bytes) -> str:
    """A page's text, what is packed in it unpacked: packers' bytes depend on their version."""

    def unpack(match: re.Match[bytes]) -> bytes:
        try:
            data = base64.b64decode(match[0], validate=True)
            return zlib.decompressobj(31).decompress(data, 256 << 20)
        except (ValueError, zlib.error):
            return match[0]

    return _PACKED.sub(unpack, page).decode("utf-8", "replace")


def _compare_figure(bundle: Bundle, name: str, made: Path, table: Table) -> None:
    claim = "the figure shows the table's numbers"
    given = bundle.path(name)
    if given.read_bytes() == made.read_bytes():
        table.add(1, claim, name, REPRODUCED, why="byte for byte")
        return
    if name.endswith(".svg"):
        texts = [p.read_bytes().decode("utf-8", "replace") for p in (given, made)]
        if numbers.same_text(texts[0], texts[1], 1e-4):
            table.add(1, claim, name, REPRODUCED, why="but for the last digits of coordinates")
        else:
            table.add(1, claim, name, DIFFERS, why="drawn anew from the tables it looks otherwise")
        return
    share = _pixels_differing(given, made)
    if share is None:
        table.add(1, claim, name, DIFFERS, why="not an image of the same size")
    elif share == 0:
        table.add(1, claim, name, REPRODUCED, why="pixel for pixel")
    else:
        # Another version of the library draws letters otherwise; the same one draws the same.
        excusable = _drawn_otherwise(bundle, name) and share <= 0.01
        table.add(
            1, claim, name, NOT_CHECKED if excusable else DIFFERS,
            got=f"{100 * share:.2f} % of the pixels differ",
            why="drawn by another version of matplotlib" if excusable else "",
        )  # fmt: skip


def _drawn_otherwise(bundle: Bundle, name: str) -> bool:
    """Whether a figure was drawn by another version of the library than is here."""
    try:
        own = metadata.version("matplotlib")
    except metadata.PackageNotFoundError:
        return True
    return any(
        record["machine"]["packages"].get("matplotlib") != own
        for record in bundle.records.values()
        if name in record["outputs"]
    )


def _pixels_differing(given: Path, made: Path) -> float | None:
    """Share of pixels that differ visibly; None where the images cannot be compared."""
    import numpy as np
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = 50_000_000
    try:
        with Image.open(made, formats=["PNG"]) as one, Image.open(given, formats=["PNG"]) as two:
            if one.size != two.size:
                return None
            a, b = (np.asarray(i.convert("RGB"), dtype=np.int16) for i in (one, two))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return float((np.abs(a - b).max(axis=2) > 16).mean())
