"""Level 3: a random sample of the answers, generated again here."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from zpdbench import grid
from zpdbench.artifacts import agreement, frames, layout, level2, rerun
from zpdbench.artifacts.findings import DIFFERS, NOT_CHECKED, REPRODUCED, Table
from zpdbench.artifacts.level0 import Bundle
from zpdbench.artifacts.workshop import Workshop
from zpdbench.progress import track
from zpdbench.study import Study

ITEMS = 25
"""Items of a benchmark that one run is asked."""
ENOUGH = 1000
"""Answers after which no further run is started."""
TEXTS_MAY_DIFFER = 0.02
"""In float32 greedy texts are the same on one processor; another may turn a rare near-tie."""
TEXTS_EQUAL, TEXTS_OTHER = 0.5, 0.2
"""In bfloat16, or where texts are sampled, a near-tie turns sooner or later in a long text: half of
a benchmark's texts equal is agreement, surely less than a fifth (95 %) is none, between them only
the score tells. Of sampled texts even none may be equal."""
NATS = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference of a log-likelihood that counts as the same."""
NATS_OTHER = 1.0
"""In bfloat16: more than this at half of a benchmark's items is another model."""
CLAIM = "the answers come out again"


def check(bundle: Bundle, workshop: Workshop, table: Table, *, seconds: float, seed: int) -> None:
    """Add level 3's rows: runs drawn with the reviewer's seed, until time or answers suffice."""
    end = time.monotonic() + seconds
    draw = random.Random(seed)
    total: Counter[str] = Counter()
    longest = 0.0
    order = shuffled_runs(bundle, draw)
    if not bundle.included.adapters:
        why = "the bundle was made without the adapters"
        table.add(3, CLAIM, "adapters", NOT_CHECKED, why=why, core=True)
    asked: list[grid.Run] = []
    with track("level 3", len(order), "runs") as progress:
        for number, run in enumerate(order):
            left = end - time.monotonic()
            if total["judged"] >= ENOUGH or (number and left < 1.5 * longest):
                break
            started = time.monotonic()
            chosen = choose_items(bundle, workshop, draw)
            folder = None if run.condition == grid.BASE else rerun.adapter(bundle, workshop, run)
            answers = rerun.ask(
                bundle, workshop, run, chosen, folder, f"level3/{number}", seconds=max(left, 1.0)
            )
            longest = max(longest, time.monotonic() - started)
            name = "/".join(map(str, run))
            if isinstance(answers, str):
                table.add(3, CLAIM, name, NOT_CHECKED, why=answers)
            else:
                total.update(add_run(bundle, table, 3, name, answers))
                asked.append(run)
            progress.advance(1, name)
    add_score(table, 3, f"{total['judged']} verdicts, seed {seed}", total)
    _add_reach(bundle, table, asked, seed)


def _add_reach(bundle: Bundle, table: Table, asked: Sequence[grid.Run], seed: int) -> None:
    """What the sample reached, and what it cannot show; without one adapter it shows nothing."""
    tuned = [run for run in asked if run.condition != grid.BASE]
    n = len(bundle.study.runs)
    models = {run.model for run in tuned}
    hidden = agreement.most_hidden(len(tuned), n)
    why = (
        f"if none of these is otherwise, {hidden} of the {n} may still be (95 %); of "
        f"{n - len(bundle.included.adapters)} the bundle has no weights: none of them can be drawn"
    )
    table.add(
        3, "adapters were asked again", f"seed {seed}", REPRODUCED if tuned else NOT_CHECKED,
        expected=f"{n} runs of {len(bundle.study.models)} models",
        got=f"{len(tuned)} runs of {len(models)} models", why=why, core=True,
    )  # fmt: skip


def shuffled_runs(bundle: Bundle, draw: random.Random) -> list[grid.Run]:
    """Runs whose weights are there, and the bases, in random order, models in turn."""
    held = [
        run
        for run in bundle.study.runs
        if layout.Paths("results").adapter(*run).removeprefix("results/")
        in bundle.included.adapters
    ]
    by_model: list[list[grid.Run]] = []
    for model in bundle.study.models:
        tuned = [run for run in held if run.model == model]
        draw.shuffle(tuned)
        by_model.append([*tuned, grid.Run(model, grid.BASE, 0)])
    draw.shuffle(by_model)
    most = max(map(len, by_model))
    return [runs[i] for i in range(most) for runs in by_model if i < len(runs)]


def choose_items(bundle: Bundle, workshop: Workshop, draw: random.Random) -> dict[str, list[str]]:
    """Benchmark -> ids of randomly drawn items, half of them from those asked on the way."""
    chosen = {}
    for benchmark in bundle.study.benchmarks:
        path = level2.item_path(bundle, workshop, benchmark)
        frame = frames.collect(frames.scan(path, frames.ITEMS).select("item_id", "interim"))
        interim = frame.filter(frame["interim"])["item_id"].to_list()
        first = draw.sample(interim, min(len(interim), (ITEMS + 1) // 2))
        others = sorted(set(frame["item_id"].to_list()) - set(first))
        chosen[benchmark] = [*first, *draw.sample(others, min(len(others), ITEMS - len(first)))]
    return chosen


def add_run(
    bundle: Bundle, table: Table, level: int, name: str, answers: rerun.Answers
) -> dict[str, Any]:
    """Rows of one run: its texts and its likelihoods; returns the counts."""
    study = bundle.study
    other = (
        ""
        if answers.engine == answers.engine_there
        else f"; there {answers.engine_there}, here {answers.engine}"
    )
    for (benchmark,), part in answers.frame.group_by(["benchmark"], maintain_order=True):
        section = study.benchmarks[str(benchmark)]
        found = rerun.counts(part)
        where = f"{name} {benchmark}"
        if found["texts"]:
            _add_texts(table, level, where, found, study, section.temperature == 0, other)
        if found["choices"]:
            _add_choices(table, level, where, found, study.generations.dtype, other)
    return rerun.counts(answers.frame)


def _add_texts(
    table: Table, level: int, where: str, found: dict[str, Any], study: Study, greedy: bool,
    other: str,
) -> None:  # fmt: skip
    n, equal, dtype = found["texts"], found["texts_equal"], study.generations.dtype
    low, high = agreement.binomial_bounds(equal, n)
    if dtype == "float32" and greedy:
        verdict = REPRODUCED if n - equal <= TEXTS_MAY_DIFFER * n else DIFFERS
        bar = f"{100 * TEXTS_MAY_DIFFER:g} % may differ"
    else:
        agree, none = equal >= TEXTS_EQUAL * n, greedy and high < TEXTS_OTHER
        verdict = REPRODUCED if agree else DIFFERS if none else NOT_CHECKED
        bar = f"{100 * TEXTS_EQUAL:g} % equal is agreement, "
        bar += (
            f"less than {100 * TEXTS_OTHER:g} % is none"
            if greedy
            else "sampled: less tells nothing"
        )
    why = f"of all its texts {100 * low:.1f} to {100 * high:.1f} % are equal (95 %); {dtype}: {bar}"
    table.add(
        level, "its texts come out again", where, verdict, expected=f"{n} texts",
        got=f"{equal} equal", why=why + other,
    )  # fmt: skip


def _add_choices(
    table: Table, level: int, where: str, found: dict[str, Any], dtype: str, other: str
) -> None:
    allowed, strict = NATS[dtype], dtype == "float32"
    if found["largest"] <= allowed:
        verdict = REPRODUCED
    else:
        verdict = DIFFERS if strict or found["median"] > NATS_OTHER else NOT_CHECKED
    bar = "" if strict else f"; more than {NATS_OTHER:g} at half of them is another model"
    table.add(
        level, "its log-likelihoods come out again", where, verdict,
        expected=f"within {allowed:g} nats",
        got=f"{found['largest']:.2g} nats at most, {found['median']:.2g} at half",
        why=f"{found['choices']} items, {dtype}{bar}{other}",
    )  # fmt: skip


def add_score(table: Table, level: int, what: str, total: dict[str, int]) -> None:
    """The row on the score of all that was asked again."""
    claim = f"the score is the same within {100 * agreement.MARGIN:g} pp"
    if not total["judged"]:
        table.add(level, claim, what, NOT_CHECKED, why="nothing could be asked again")
        return
    result = agreement.equivalence(total["up"], total["down"], total["judged"])
    why = "" if result.same else "a larger sample would tell (--minutes)"
    verdict = DIFFERS if result.other else REPRODUCED if result.same else NOT_CHECKED
    table.add(level, claim, what, verdict, got=result.words(), why=why)


def pick(values: Sequence[grid.Run], draw: random.Random) -> grid.Run | None:
    """A random run of some, None of none."""
    return draw.choice(list(values)) if values else None
