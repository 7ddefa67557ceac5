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

ITEMS = 25
"""Items of a benchmark that one run is asked."""
ENOUGH = 1000
"""Answers after which no further run is started."""
TEXTS_MAY_DIFFER = 0.02
"""In float32 the texts are the same on one processor; another may turn a rare near-tie."""
NATS = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference of a log-likelihood that counts as the same."""
CLAIM = "the answers come out again"


def check(bundle: Bundle, workshop: Workshop, table: Table, *, seconds: float, seed: int) -> None:
    """Add level 3's rows: runs drawn with the reviewer's seed, until time or answers suffice."""
    end = time.monotonic() + seconds
    draw = random.Random(seed)
    total: Counter[str] = Counter()
    longest = 0.0
    order = shuffled_runs(bundle, draw)
    if not bundle.included.adapters:
        table.add(3, CLAIM, "adapters", NOT_CHECKED, why="the bundle was made without the adapters")
    with track("level 3", len(order), "runs") as progress:
        for number, run in enumerate(order):
            left = end - time.monotonic()
            if total["judged"] >= ENOUGH or (number and left < 1.5 * longest):
                break
            started = time.monotonic()
            chosen = choose_items(bundle, draw)
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
            progress.advance(1, name)
    add_score(table, 3, f"{total['judged']} verdicts, seed {seed}", total)


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


def choose_items(bundle: Bundle, draw: random.Random) -> dict[str, list[str]]:
    """Benchmark -> ids of randomly drawn items, half of them from those asked on the way."""
    chosen = {}
    for benchmark in bundle.study.benchmarks:
        path = level2.item_path(bundle, benchmark)
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
    found = rerun.counts(answers.frame)
    dtype = study.generations.dtype
    other = (
        ""
        if answers.engine == answers.engine_there
        else f"; there {answers.engine_there}, here {answers.engine}"
    )
    greedy = all(b.temperature == 0 for b in study.benchmarks.values())
    if found["texts"]:
        differing = found["texts"] - found["texts_equal"]
        _, high = agreement.binomial_bounds(differing, found["texts"])
        few = differing <= TEXTS_MAY_DIFFER * found["texts"]
        strict = dtype == "float32" and greedy
        verdict = REPRODUCED if few else DIFFERS if strict else NOT_CHECKED
        why = f"at most {100 * high:.1f} % of all its texts differ (95 %), {dtype}{other}"
        table.add(
            level, "its texts come out again", name, verdict, expected=f"{found['texts']} texts",
            got=f"{found['texts_equal']} equal", why=why,
        )  # fmt: skip
    if found["choices"]:
        allowed = NATS[dtype]
        verdict = REPRODUCED if found["largest"] <= allowed else DIFFERS
        if dtype != "float32" and verdict == DIFFERS:
            verdict = NOT_CHECKED
        table.add(
            level, "its log-likelihoods come out again", name, verdict,
            expected=f"within {allowed:g} nats", got=f"{found['largest']:.2g} nats at most",
            why=f"{found['choices']} items{other}",
        )  # fmt: skip
    return found


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
