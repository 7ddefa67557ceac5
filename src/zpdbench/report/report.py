"""`zpdbench report`: one self-contained page with everything that the study found.

The same inputs give the same bytes: the page holds no times. What differs from run to run, seconds
and memory, goes to a page beside it (`report.timing.html`).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from zpdbench import __version__, datasheet, files, records
from zpdbench.report import evidence, explorer, results, sections
from zpdbench.report.words import both, words
from zpdbench.statistics import baselines
from zpdbench.study import Study, load

_STAGES = ("checkpoints", "corpora", "items", "adapters", "generations", "scores")


def render(
    study: Study,
    tables: Mapping[str, results.Table],
    *,
    traces: evidence.Traces | None = None,
    corpus: pl.DataFrame | None = None,
    costs: Sequence[evidence.Cost] = (),
    explored: explorer.Explorer | None = None,
    agreements: Sequence[tuple[str, str, int, int]] = (),
    provenance: Sequence[tuple[Markup, Sequence[str]]] = (),
    card: Mapping[str, Any] | None = None,
    constants: Sequence[baselines.Constant] = (),
    configuration: str = "",
    timing_name: str = "report.timing.html",
) -> str:
    """The page's text.

    Args:
        study: the study that the tables are of.
        tables: by name; a section whose table is missing is left out.
        traces, corpus, costs, explored: as `evidence` and `explorer` give them.
        agreements: model, chunk, prompts asked again alone, and how many answers were equal.
        provenance: headings and lines.
        constants: what the best constant answers score on the items asked.
        card: the corpus's notes and its data card's tables, as `_card` gives them.
        configuration: the whole configuration as text.
        timing_name: file beside the page that holds the times.
    """
    traces = traces or evidence.Traces()
    h3a, r1 = study.hypotheses.h3a, study.hypotheses.r1
    treatment, control = (h3a.treatment, h3a.control) if h3a else ("zpd", "random")
    first = sections.primary(tables)
    registered = first["registered"] if first else "none"
    shares = evidence.difficulty_shares(corpus) if corpus is not None else []
    return _page(
        "page.html.jinja",
        study=study,
        r1=r1,
        treatment=treatment,
        control=control,
        first=first,
        cards=sections.cards(tables),
        reading=sections.reading(tables),
        remarks=sections.remarks(
            tables,
            traces,
            shortfalls=shortfalls(study, corpus),
            registered=registered,
            agreements=agreements,
        ),
        diagnoses=traces.diagnoses,
        effects=sections.effects(tables),
        effect_tables=sections.effect_tables(tables),
        curves=sections.curves(tables, constants),
        constants=constants,
        power=sections.power(tables),
        window=sections.window(traces),
        difficulty=sections.difficulty(shares, traces),
        interaction=sections.interaction(tables, dict(r1.languages), r1.treatment, r1.control),
        expected=sections.expected(tables),
        expected_rows=tables["expected"].rows if "expected" in tables else [],
        ladder=sections.ladder(tables),
        ablations=sections.ablations(tables),
        calibration=sections.calibration(tables),
        card=card,
        costs=costs,
        explored=explored,
        provenance=provenance,
        configuration=configuration,
        timing_name=timing_name,
        tables=[t for n, t in sorted(tables.items()) if n != "scores"],
        shown_rows=results.SHOWN_ROWS,
    )


def render_times(costs: Sequence[evidence.Cost]) -> str:
    """The page of seconds and memory."""
    return _page("times.html.jinja", costs=costs, explored=None)


def shortfalls(study: Study, corpus: pl.DataFrame | None) -> list[str]:
    """Sources of which fewer examples came in than the configuration asks for."""
    if corpus is None:
        return []
    counts = Counter(corpus["source"].to_list())
    return [
        f"{name}: {counts[name]:,} of {source.examples:,}"
        for name, source in sorted(study.corpus.sources.items())
        if source.examples and 0 < counts[name] < source.examples
    ]


def _card(study: Study, path: str | Path) -> dict[str, Any]:
    """The data card: where the corpus comes from, its licences, what was left out, its lengths."""
    frame, notes = datasheet.read(Path(path))
    found = {
        "sources": datasheet.sources(study, frame),
        "done": datasheet.done(study),
        "lengths": datasheet.lengths(frame),
    }
    tables = {
        name: [{k: datasheet.cell(v) for k, v in row.items()} for row in rows]
        for name, rows in found.items()
    }
    return {"tables": tables, "notes": notes, "not_checked": datasheet.NOT_CHECKED}


def provenance_of(
    study: Study,
    table_paths: Sequence[Path],
    found: Sequence[Mapping[str, Any]],
    checkpoints: Mapping[str, str],
    registered: str,
    agreements: Sequence[tuple[str, str, int, int]] = (),
) -> list[tuple[Markup, list[str]]]:
    """Digests and versions: of the code, the hypotheses, the models, the machines, the tables.

    Args:
        found: the jobs' records.
        checkpoints: model -> digest of its base.
    """
    packages = sorted(
        {f"{k} {v}" for r in found for k, v in dict(r["machine"].get("packages") or {}).items()}
        | {f"Python {r['machine'].get('python')}" for r in found}
    )
    machines = Counter(
        ", ".join(
            str(part)
            for part in (
                r["machine"].get("cpu"),
                *(r["machine"].get("gpus") or []),
                r["machine"].get("image"),
            )
            if part
        )
        for r in found
    )
    code = sorted({str(r.get("code", ""))[:16] for r in found} | {records.code_digest()[:16]})
    portable = _settings(study)
    rows: list[tuple[Markup, list[str]]] = [
        (words("prov_code"), [f"{__version__}, {c}" for c in code]),
        (words("prov_hypotheses"), [study.resolved_hypotheses.digest()]),
        (words("prov_registered"), [registered]),
        (words("prov_study"), [files.digest(portable)]),
    ]
    for name, spec in study.models.items():
        source = getattr(spec, "repo", None) or getattr(spec, "path", None) or spec.source
        revision = getattr(spec, "revision", None)
        about = [str(source), *([str(revision)] if revision else [])]
        rows.append((words("prov_models", name=name), [*about, checkpoints.get(name, "")]))
    rows.append((words("prov_packages"), packages))
    classes = sorted({str(r["machine"].get("portable_class", "")) for r in found} - {""})
    same_on = classes if study.computes == "portable" else []
    rows.append((words("prov_arithmetic"), [", ".join([study.computes, *same_on])]))
    rows.append((words("prov_machines"), [f"{m}: {n}" for m, n in sorted(machines.items())]))
    alone = [f"{model} {chunk}: {equal} of {asked}" for model, chunk, asked, equal in agreements]
    rows.append((words("prov_alone"), alone))
    hashes = [f"{p.name} {files.sha256_file(p)}" for p in sorted(table_paths)]
    rows.append((words("prov_tables"), hashes))
    told = [(head, [line for line in lines if line]) for head, lines in rows]
    return [(head, lines) for head, lines in told if lines or head != words("prov_alone")]


def _settings(study: Study) -> dict[str, Any]:
    """What changes a result: no folder of this machine, nor where files are fetched from."""
    return records.portable(study).model_dump(mode="json", exclude={"hub"})


def main(args: argparse.Namespace) -> None:
    """Entry of the verb.

    args.study, args.tables (TSVs), args.scores, args.generations, args.items, args.adapters,
    args.corpus (all optional but the first two), args.out.
    """
    study = load(args.study)
    results_folder = Path(args.study).parent
    table_paths = [Path(p) for p in args.tables]
    tables = results.read(table_paths)
    corpus = evidence.read_corpus(args.corpus) if args.corpus else None
    traces = evidence.read_traces(args.adapters, corpus)
    h3a = study.hypotheses.h3a
    explored = None
    items = evidence.read_items(args.items)
    if h3a is not None and args.scores and args.generations:
        pairs = explorer.pair(
            args.scores, args.generations, treatment=h3a.treatment, control=h3a.control
        )
        explored = explorer.pack(pairs, items, dict(study.hypotheses.r1.languages))
    found = evidence.read_records(results_folder, _STAGES)
    checkpoints = {
        m: evidence.checkpoint_digest(results_folder / "checkpoints" / m) for m in study.models
    }
    first = sections.primary(tables)
    agreements = evidence.agreements(args.generations)
    out = Path(args.out)
    timing = files.beside(out, ".timing.html")
    files.write_text(
        out,
        render(
            study,
            tables,
            traces=traces,
            corpus=corpus,
            costs=[*traces.costs, *evidence.generation_costs(args.generations)],
            explored=explored,
            agreements=agreements,
            provenance=provenance_of(
                study,
                table_paths,
                found,
                checkpoints,
                first["registered"] if first else "none",
                agreements,
            ),
            card=_card(study, args.corpus) if args.corpus else None,
            constants=baselines.constants(items),
            configuration=yaml.safe_dump(_settings(study), sort_keys=True, allow_unicode=True),
            timing_name=out.with_suffix(".timing.html").name,
        ),
    )
    times = evidence.seconds(args.adapters, args.generations, results_folder / "checkpoints")
    files.write_text(timing, render_times(times))


def _page(template: str, **context: Any) -> str:
    environment = Environment(
        loader=PackageLoader("zpdbench.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "w": words,
        "both": both,
        "key": sections.key,
        "number": results.number,
        "large": results.large,
        "p_value": results.p_value,
        "timing_link": lambda name: Markup('<a href="{0}">{0}</a>').format(name),
    }
    folder = Path(__file__).parent / "templates"
    style, script = (Markup((folder / name).read_text("utf-8")) for name in ("page.css", "page.js"))
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return environment.get_template(template).render(
        style=style, script=script, policy=policy, **context
    )


def _hash(text: str) -> str:
    """A content security policy's name of an inline script or style sheet."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
