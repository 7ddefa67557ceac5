from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zpdbench import study
from zpdbench.curriculum import registry
from zpdbench.curriculum.competence import Measures, Probe, competence, effective_perplexity
from zpdbench.curriculum.conditions import Block, Condition, Options, Rows, Told, multiset
from zpdbench.errors import UserError


def told(n: int = 300, steps: int = 60, batch: int = 4, seed: int = 0) -> Told:
    generator = np.random.default_rng(7)
    return Told(
        ids=[f"x{i}" for i in range(n)],
        difficulty=generator.random(n).round(2),
        languages=["en", "ko"] * (n // 2),
        drawn=multiset(n, steps, batch, seed),
        steps=steps,
        batch_size=batch,
        seed=seed,
    )


class Model:
    """A learner by formula: an example's loss falls with training, faster if it is easy."""

    def __init__(self, n: int) -> None:
        self.hardness = np.random.default_rng(3).random(n) * 3 + 0.2
        self.skill = 0.0
        self.scored: list[Rows] = []

    def probe(self) -> Probe:
        loss = max(1.5 - self.skill, 0.1)
        top = float(np.exp(-loss))
        means, medians = (0.8 * loss, top, 0.3), (0.5 * loss, top, 0.2)
        return Probe(loss, top, 0.3, 0.5, 0.1, by_example=means, median=medians)

    def score(self, rows: Rows) -> Measures:
        self.scored.append(rows)
        loss = np.maximum(self.hardness[rows] - self.skill, 0.05)
        return Measures(loss, np.exp(-loss), np.full(len(rows), 0.3), rows % 7 + 1)


def run(condition: Condition, model: Any) -> tuple[Rows, list[Block]]:
    blocks: list[Block] = []
    step = 0
    while step < condition.told.steps:
        blocks.append(condition.block(step, model))
        step += len(blocks[-1].rows) // condition.told.batch_size
        model.skill = step / condition.told.steps
    return np.concatenate([b.rows for b in blocks]), blocks


def make(order: str, told_: Told, **options: Any) -> Condition:
    return registry.make(order, order, options, told_)


def test_multiset_uses_the_corpus_up_before_it_repeats() -> None:
    rows = multiset(10, 5, 5, seed=1)
    assert sorted(rows[:10]) == list(range(10))
    assert sorted(rows[10:20]) == list(range(10))
    assert len(set(rows[20:])) == 5
    assert not np.array_equal(rows[:10], rows[10:20])
    assert not np.array_equal(multiset(10, 5, 5, 1), multiset(10, 5, 5, 2))
    with pytest.raises(ValueError, match="no training example"):
        multiset(0, 1, 1, 0)


FIXED = ("random", "easy_to_hard", "hard_to_easy")


@pytest.mark.parametrize("n", [300, 100])  # 240 examples: once, and more than twice round
def test_fixed_orders_are_permutations_of_one_multiset(n: int) -> None:
    t = told(n=n)
    orders = {o: run(make(o, t), Model(n))[0] for o in FIXED}
    random = Counter(orders["random"].tolist())
    assert random == Counter(t.drawn.tolist())
    for order in ("easy_to_hard", "hard_to_easy"):
        assert Counter(orders[order].tolist()) == random
    assert (np.diff(t.difficulty[orders["easy_to_hard"]]) >= 0).all()
    assert (np.diff(t.difficulty[orders["hard_to_easy"]]) <= 0).all()
    assert (np.diff(t.difficulty[orders["random"]]) < 0).any()


def test_zpd_draws_from_the_window_out_of_the_seed_s_examples() -> None:
    t = told(n=400)
    model = Model(400)
    condition = make("zpd", t, update_every=15, pool_size=80, max_repeats=3)
    rows, blocks = run(condition, model)
    assert set(rows.tolist()) <= set(t.drawn.tolist())
    assert len(blocks) == 4
    for k, block in enumerate(blocks):
        facts = block.facts
        assert facts is not None
        model.skill = 15 * k / t.steps
        seen = model.scored[k]
        assert len(set(seen.tolist())) == 80
        scored = model.score(seen)
        model.scored.pop()
        perplexity = effective_perplexity(
            competence(scored.loss, scored.confidence, scored.entropy)
        )
        inside = set(seen[(perplexity >= facts["low"]) & (perplexity <= facts["high"])].tolist())
        assert facts["inside"] == len(inside)
        counts = Counter(block.rows.tolist())
        assert set(counts) <= set(seen.tolist())
        assert max(counts.values()) == facts["repeats_max"] <= 3
        outside = sum(c for row, c in counts.items() if row not in inside)
        assert facts["fallback"] == pytest.approx(outside / len(block.rows))
        assert facts["low"] == pytest.approx(facts["alpha"] * facts["perplexity_smoothed"])
        assert facts["high"] == pytest.approx(facts["beta"] * facts["perplexity_smoothed"])
    # With this model the window has candidates: most of what is trained on comes from it.
    assert np.mean([b.facts["fallback"] for b in blocks if b.facts]) < 0.4


def test_zpd_smooths_from_the_first_probe() -> None:
    t = told()
    _, blocks = run(make("zpd", t, update_every=15, pool_size=100), Model(300))
    raw = [b.facts["perplexity"] for b in blocks if b.facts]
    expected = raw[0]
    for b, p in zip(blocks, raw, strict=True):
        expected = 0.9 * expected + 0.1 * p if p != raw[0] else expected
        assert b.facts is not None
        assert b.facts["perplexity_smoothed"] == pytest.approx(expected)


def test_level_of_examples_or_of_tokens() -> None:
    by_tokens = run(make("zpd", told(), update_every=15, pool_size=100), Model(300))[1][0].facts
    options = {"update_every": 15, "pool_size": 100, "level": "examples"}
    by_examples = run(make("zpd", told(), **options), Model(300))[1][0].facts
    assert by_tokens is not None and by_examples is not None
    probe = Model(300).probe()
    assert by_tokens["competence"] == pytest.approx(
        float(competence(probe.loss, probe.confidence, probe.entropy))
    )
    assert by_examples["competence"] == pytest.approx(float(competence(*probe.by_example)))
    options["level"] = "median"
    by_median = run(make("zpd", told(), **options), Model(300))[1][0].facts
    assert by_median is not None
    assert by_median["competence"] == pytest.approx(float(competence(*probe.median)))
    assert by_median["probe_loss"] == probe.median[0]


def test_zpd_records_where_the_pool_lies_and_how_long_its_answers_are() -> None:
    t = told(n=400)
    model = Model(400)
    _, blocks = run(make("zpd", t, update_every=15, pool_size=80, max_repeats=3), model)
    for k, block in enumerate(blocks):
        facts, seen = block.facts, model.scored[k]
        assert facts is not None
        assert facts["pool_tokens"] == pytest.approx((seen % 7 + 1).mean())
        assert facts["drawn_tokens"] == pytest.approx((block.rows % 7 + 1).mean())
        assert facts["pool_tokens"] != facts["drawn_tokens"]
        assert "fallback_random" not in facts
        model.skill = 15 * k / t.steps
        scored = model.score(seen)
        perplexity = effective_perplexity(
            competence(scored.loss, scored.confidence, scored.entropy)
        )
        model.scored.pop()
        assert facts["pool_below"] == pytest.approx((perplexity < facts["low"]).mean())
        assert facts["pool_below"] + facts["occupancy"] <= 1.0


def test_keep_gain_and_stretch_may_be_meant_for_steps() -> None:
    """A run's average then remembers as many steps, however often the window is moved."""
    weights = {}
    for every in (5, 15, 30):
        options: dict[str, Any] = {"update_every": every, "pool_size": 100, "per_steps": 15}
        condition = make("zpd", told(), **options)
        weights[every] = condition.options.carried ** (60 / every)
        _, blocks = run(condition, Model(300))
        raw = [b.facts["perplexity"] for b in blocks if b.facts]
        smoothed = raw[0]
        for b, p in zip(blocks[1:], raw[1:], strict=True):
            smoothed = 0.9 ** (every / 15) * smoothed + (1 - 0.9 ** (every / 15)) * p
            assert b.facts is not None
            assert b.facts["perplexity_smoothed"] == pytest.approx(smoothed)
    assert list(weights.values()) == pytest.approx([0.9**4] * 3)
    plain = make("zpd", told(), update_every=5, pool_size=100)
    assert (plain.options.updates, plain.options.carried) == (1.0, 0.9)


def test_a_null_control_draws_otherwise_from_the_same_corpus() -> None:
    t = told(n=300)
    shared, _ = run(make("random", t), Model(300))
    one, blocks = run(make("random", t, draw=1), Model(300))
    again, _ = run(make("random", t, draw=1), Model(300))
    two, _ = run(make("random", t, draw=2), Model(300))
    other, _ = run(make("random", told(n=300, seed=1), draw=1), Model(300))
    assert len(one) == len(shared) == 240
    assert np.array_equal(one, again)
    assert [b.facts for b in blocks] == [{"draw": 1}]
    # A multiset of its own, as far from the seed's as another seed's is: 240 of 300 in each.
    sets = [set(rows.tolist()) for rows in (shared, one, two, other)]
    assert all(len(s) == 240 for s in sets)
    for i in range(4):
        for j in range(i):
            assert 170 < len(sets[i] & sets[j]) < 214
    assert len(set(run(make("random", told(n=100), draw=1), Model(100))[0].tolist())) == 100


def test_beyond_the_fallback_s_limit_the_draw_is_random() -> None:
    t = told(n=400)
    options: dict[str, Any] = {"update_every": 15, "pool_size": 80, "alpha": 1.1, "beta": 1.15}
    options["adaptive"] = False
    nearest = run(make("zpd", t, **options), Model(400))[1][0].facts
    limited = run(make("zpd", t, **options, fallback_limit=0.02), Model(400))[1][0].facts
    assert nearest is not None
    assert limited is not None
    assert limited["fallback"] == nearest["fallback"] > 0.5
    assert 0 < limited["fallback_random"] < limited["fallback"]
    wide, _ = run(make("zpd", t, **options, fallback_limit=50.0), Model(400))
    assert np.array_equal(wide, run(make("zpd", t, **options), Model(400))[0])


ABLATIONS: dict[str, dict[str, Any]] = {
    "A1": {"weights": [1, 0, 0]},
    "A2": {"weights": [0, 1, 0]},
    "A3": {"weights": [0, 0, 1]},
    "A4": {"upper": False},
    "A5": {"lower": False},
    "A6": {"adaptive": False},
    "A7": {"update_every": 5},
    "A8": {"update_every": 30},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_ablation_changes_what_it_says(name: str) -> None:
    t = told()
    options: dict[str, Any] = {"update_every": 15, "pool_size": 100}
    full, full_blocks = run(make("zpd", t, **options), Model(300))
    rows, blocks = run(make("zpd", t, **{**options, **ABLATIONS[name]}), Model(300))
    facts = [b.facts for b in blocks if b.facts]
    assert len(rows) == len(full) == 240
    if name in ("A1", "A2", "A3"):
        probe = Model(300).probe()
        value = {
            "A1": np.exp(-probe.loss),
            "A2": probe.confidence,
            "A3": 1 - probe.entropy,
        }[name]
        assert facts[0]["competence"] == pytest.approx(value)
        assert not np.array_equal(rows, full) or name == "A3"
    if name == "A4":
        assert all(f["high"] is None for f in facts)
    if name == "A5":
        assert all(f["low"] == 0 for f in facts)
    if name == "A6":
        assert {(f["alpha"], f["beta"]) for f in facts} == {(1.1, 1.3)}
        assert {b.facts["alpha"] for b in full_blocks if b.facts} != {1.1}
    if name in ("A7", "A8"):
        assert len(facts) == {"A7": 12, "A8": 2}[name]


def test_competence_pacing_follows_the_square_root_schedule() -> None:
    t = told(n=400)
    condition: Any = make("competence_pacing", t, initial=0.1, duration=0.5)
    assert condition.competence(0) == pytest.approx(0.1)
    assert condition.competence(15) == pytest.approx(np.sqrt(0.5 * (1 - 0.01) + 0.01))
    assert condition.competence(30) == condition.competence(60) == 1.0
    rows, _ = run(condition, Model(400))
    order = np.sort(t.difficulty[t.distinct])
    for step in range(60):
        batch = rows[4 * step : 4 * step + 4]
        allowed = max(int(np.ceil(condition.competence(step) * len(order))), 4)
        assert t.difficulty[batch].max() <= order[min(allowed, len(order)) - 1]
        assert len(set(batch.tolist())) == 4
    assert set(rows.tolist()) <= set(t.drawn.tolist())


def test_success_probability_prefers_even_odds() -> None:
    t = told(n=400)
    model = Model(400)
    rows, blocks = run(make("success_probability", t, update_every=15, pool_size=120), model)
    assert max(Counter(rows[:60].tolist()).values()) <= 4
    model.skill = 0.0
    success = np.exp(-model.score(t.distinct).loss)
    first = np.exp(-model.score(rows[:60]).loss)
    assert np.mean(first * (1 - first)) > np.mean(success * (1 - success))
    assert all(b.facts and "success_drawn" in b.facts for b in blocks)


@pytest.mark.parametrize("order", registry.names())
def test_state_goes_through_json_and_a_resumed_condition_goes_on_alike(order: str) -> None:
    t = told()
    options = {"update_every": 15, "pool_size": 100}
    uses = registry.find(order).uses_model
    model = Model(300)
    one = make(order, t, **(options if uses else {}))
    whole, blocks = run(one, model)
    model = Model(300)
    condition = make(order, t, **(options if uses else {}))
    rows: list[Rows] = []
    step = 0
    while step < t.steps:
        fresh = make(order, t, **(options if uses else {}))
        fresh.restore(json.loads(json.dumps(condition.state())))
        condition = fresh
        block = condition.block(step, model)
        rows.append(block.rows)
        step += len(block.rows) // t.batch_size
        model.skill = step / t.steps
    assert np.array_equal(np.concatenate(rows), whole)
    assert len(rows) == len(blocks)


def test_seeds_differ_and_repeat() -> None:
    for order in registry.names():
        options = {"update_every": 15, "pool_size": 100} if registry.find(order).uses_model else {}
        first = run(make(order, told(seed=1), **options), Model(300))[0]
        assert np.array_equal(first, run(make(order, told(seed=1), **options), Model(300))[0])
        assert not np.array_equal(first, run(make(order, told(seed=2), **options), Model(300))[0])


def test_unknown_names_and_options_are_the_user_s_mistakes() -> None:
    with pytest.raises(UserError, match="no order is called 'zdp'"):
        registry.find("zdp")
    with pytest.raises(UserError, match="pool: unknown option"):
        registry.options("mine", "zpd", {"pool": 3})
    with pytest.raises(UserError, match="must not be larger than beta"):
        registry.options("mine", "zpd", {"alpha": 1.5})
    with pytest.raises(UserError, match="update_every"):
        registry.options("mine", "zpd", {"update_every": 0})
    with pytest.raises(UserError, match="unknown option"):
        registry.options("mine", "random", {"seed": 3})
    with pytest.raises(UserError, match="cannot be drawn from a pool of 10"):
        make("zpd", told(), update_every=60, pool_size=10)
    for order, option, value in (
        ("random", "draw", -1),
        ("easy_to_hard", "draw", 1),
        ("zpd", "fallback_limit", -0.1),
        ("zpd", "fallback_limit", float("nan")),
        ("zpd", "per_steps", 0),
        ("zpd", "level", "mode"),
    ):
        with pytest.raises(UserError, match=option):
            registry.options("mine", order, {option: value})


class _TakeFirstOptions(Options):
    """For the test below."""


class TakeFirst(Condition):
    """A condition that another package might bring."""

    Options = _TakeFirstOptions

    def block(self, step: int, learner: Any) -> Block:
        return Block(np.sort(self.told.drawn))


def test_another_package_brings_a_condition_by_entry_point(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[zpdbench.conditions]\ntake_first = {__name__}:TakeFirst\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "take_first" in registry.names()
    rows, _ = run(make("take_first", told()), Model(300))
    assert (np.diff(rows) >= 0).all()


def test_a_block_that_no_pool_gives_is_refused_before_any_job(root: Path) -> None:
    given = study.load(root / "config/mini.yaml")
    registry.check(given)

    def with_zpd(**options: Any) -> study.Study:
        condition = study.Condition(order="zpd", options=options)
        return given.model_copy(update={"conditions": {"zpd": condition}})

    steps, batch = given.training.steps, given.training.batch_size
    with pytest.raises(UserError, match=r"conditions\.zpd\.options.*cannot be drawn from a pool"):
        registry.check(with_zpd(update_every=steps, pool_size=steps * batch // 4 - 1))
    # The pool is no larger than the corpus, where the configuration tells its size.
    registry.check(with_zpd(update_every=steps, pool_size=10_000))
    sources = {"e": study.CorpusSource(format="embedded", examples=steps * batch // 8)}
    corpus = given.corpus.model_copy(update={"sources": sources, "probe": 8})
    small = with_zpd(update_every=steps, pool_size=10_000).model_copy(update={"corpus": corpus})
    with pytest.raises(UserError, match="cannot be drawn from a pool"):
        registry.check(small)


def test_streams_of_a_seed_are_apart() -> None:
    """Entropy padded with zeros would make (1,), (1, 0) and (1, 0, 0) one stream."""
    t = told()
    streams = [(), (0,), (1,), (1, 0), (1, 0, 0), (2,), (0, 1)]
    draws = [t.generator(*s).integers(0, 2**63, 4).tolist() for s in streams]
    multisets = np.random.default_rng([t.seed, 0x5A9D, 0]).integers(0, 2**63, 4).tolist()
    assert len({tuple(d) for d in [*draws, multisets]}) == len(streams) + 1
    assert draws[3] == t.generator(1, 0).integers(0, 2**63, 4).tolist()


def test_pacing_tells_its_competence_block_by_block() -> None:
    t = told(n=400, steps=60, batch=4)
    condition: Any = make("competence_pacing", t, initial=0.05, duration=0.5)
    rows, blocks = run(condition, Model(400))
    assert len(blocks) == 20
    easiest = np.sort(t.difficulty[t.distinct])
    for k, block in enumerate(blocks):
        assert block.facts is not None
        assert block.facts["pacing"] == pytest.approx(condition.competence(3 * k))
        assert block.facts["allowed"] == condition.allowed(3 * k, len(easiest))
    for step, batch in enumerate(rows.reshape(60, 4)):
        limit = easiest[condition.allowed(step, len(easiest)) - 1]
        assert (t.difficulty[batch] <= limit).all()
