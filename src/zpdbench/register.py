"""`zpdbench register`: write down what is to be tested, before anything was run.

The registration is a configuration file of its own, to be given beside the study's: it holds the
digest and, for each benchmark, what its items are. Results under it are marked as registered, all
others as exploratory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.hypotheses import FAILED_RUNS
from zpdbench.study import Study, load

CANNOT_SHOW = (
    "This file cannot show when it was written: a digest can be put in after the runs. Publish it "
    "(a registry, a commit that others hold, a signed letter) before they begin; who has it from "
    "there compares by: zpdbench verify BUNDLE --registration DIGEST"
)


def with_items(study: Study) -> tuple[Study, list[str]]:
    """The study with its items' digests, and why a benchmark has none."""
    from zpdbench.benchmarks import items
    from zpdbench.corpora.make_items import items_of

    found, lacking = {}, []
    for name, section in study.benchmarks.items():
        try:
            digest = items.digest_of(items_of(study, name))
        except UserError as error:
            lacking.append(f"{name}: {error.what}")
            digest = None
        found[name] = section.model_copy(update={"items_digest": digest})
    return study.model_copy(update={"benchmarks": found}), lacking


def covers(study: Study) -> list[str]:
    """What the digest covers, in words, a line each."""
    h = study.hypotheses.h3a
    lines = [f"seeds, in order: {', '.join(map(str, study.seeds))}"]
    if h is not None:
        names = ", ".join(h.benchmarks or study.benchmarks)
        lines += [
            f"primary: {h.treatment} gains over {h.control} in "
            f"{h.small if h.side == 'smaller' else h.large} (margin {h.margin_gain:g}), and more "
            f"than in the other of {h.small} and {h.large} (margin {h.margin:g}), each at "
            f"{h.alpha:g} one-sided; endpoint: mean over {names}, percentage points, last step",
        ]
    lines += [
        "then, each only if those before it are supported: h3b, ladder; everything else has no "
        "verdict",
        f"training: {study.training.method}, {study.training.steps} steps, and every key that "
        "changes a result; models, conditions, corpus",
        "decoding: " + ", ".join(
            f"{name} temperature {b.temperature:g}, {b.samples} samples"
            for name, b in study.benchmarks.items()
        ) + f"; seed {study.generations.seed}",
        "items: " + "; ".join(
            f"{name} {b.items or 'all'}, {b.interim_items or 'none'} on the way, "
            + ("the first" if b.draw == "first" else f"drawn by seed {b.draw_seed}")
            for name, b in study.benchmarks.items()
        ),
        f"failed runs: {FAILED_RUNS}",
    ]  # fmt: skip
    return lines


def render(study: Study, lacking: list[str]) -> str:
    """The registration's text: comments, and a configuration that goes with the study's."""
    digest = study.resolved_hypotheses.digest()
    lines = [
        f"# Registration of {' '.join((study.study or 'a study without a name').split())}",
        "# Give it beside the study's configuration: --configfile STUDY.yaml THIS.yaml",
        "# The digest covers:",
        *(f"#   {line}" for line in covers(study)),
        *(f"# NOT covered, its items could not be made here: {line}" for line in lacking),
        f"# {CANNOT_SHOW}",
        f"hypotheses: {{ registered: {digest} }}",
        "benchmarks:",
        *(
            f"  {name}: {{ items_digest: {b.items_digest} }}"
            for name, b in study.benchmarks.items()
            if b.items_digest
        ),
    ]
    if len(lacking) == len(study.benchmarks):
        lines.remove("benchmarks:")
    return "\n".join(lines) + "\n"


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.configfile, args.out (else beside the last file).

    Raises:
        UserError: a mistake in the configuration, or a registration of another study in the way.
    """
    study, lacking = with_items(load(*args.configfile))
    first = Path(args.configfile[0])
    out = Path(args.out) if args.out else first.with_suffix(".registration.yaml")
    text = render(study, lacking)
    if out.exists() and out.read_text("utf-8", errors="replace") != text:
        raise UserError(
            "is there already, and another registration",
            where=str(out),
            fix="keep it: a study is registered once; or give another --out",
        )
    files.write_text(out, text)
    print(text, end="")
    print(f"\nwritten to {out}")
