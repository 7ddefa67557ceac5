"""What jobs ask of a scheduler: more for more, none for nothing, and more again at a retry."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from zpdbench import resources, study
from zpdbench.study import Study


@pytest.fixture
def mini(root: Path) -> Study:
    return study.load(root / "config/mini.yaml")


def with_model(given: Study, parameters: int, **training: object) -> Study:
    """`given` with its small model of another size, and other training."""
    spec = study.HubModel(source="hub", repo="example/model", parameters=parameters)
    return given.model_copy(
        update={
            "models": {**given.models, "mini-qwen": spec},
            "training": given.training.model_copy(update=training),
        }
    )


def asked(given: Study, rule: str, name: str, attempt: int = 1, **wildcards: object) -> int:
    job = {"model": "mini-qwen", "condition": "random", "seed": "0", "chunk": "all", **wildcards}
    value = resources.for_rule(given, rule)[name]
    if name == "gpu":
        return value(SimpleNamespace(**job))
    return value(SimpleNamespace(**job), attempt)


@pytest.mark.parametrize("rule", ["train_adapter", "generate_chunk", "make_checkpoint"])
@pytest.mark.parametrize("name", ["mem_mb", "runtime"])
def test_a_larger_model_asks_for_more(mini: Study, rule: str, name: str) -> None:
    sizes = [10_000_000, 400_000_000]
    found = [asked(with_model(mini, size), rule, name) for size in sizes]
    assert found[0] < found[1] or (rule, name) == ("make_checkpoint", "runtime")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mem_mb", {"batch_size": 64}),
        ("mem_mb", {"max_tokens": 2048}),
        ("runtime", {"steps": 100_000}),
        ("runtime", {"batch_size": 640}),
    ],
)
def test_a_larger_training_asks_for_more(mini: Study, name: str, change: dict[str, object]) -> None:
    before = asked(with_model(mini, 100_000_000), "train_adapter", name)
    assert asked(with_model(mini, 100_000_000, **change), "train_adapter", name) > before


def test_zpd_is_charged_for_its_scoring(mini: Study) -> None:
    flop = {c: resources.train_flop(mini, "mini-qwen", c) for c in ("random", "zpd")}
    training = mini.training
    updates = training.steps // mini.conditions["zpd"].options["update_every"]
    scored = updates * (mini.conditions["zpd"].options["pool_size"] + mini.corpus.probe)
    size = resources.parameters(mini, "mini-qwen")
    assert flop["zpd"] - flop["random"] == 2.0 * size * scored * training.max_tokens


@pytest.mark.parametrize("attempt", [2, 3, 4])
def test_each_attempt_asks_for_as_much_again(mini: Study, attempt: int) -> None:
    for name in ("mem_mb", "runtime"):
        once = asked(mini, "train_adapter", name)
        assert asked(mini, "train_adapter", name, attempt) == attempt * once


def test_only_large_models_ask_for_gpus(mini: Study) -> None:
    sizes = {2_000_000: 0, 135_000_000: 0, 7_600_000_000: 1, 72_000_000_000: 3}
    for size, expected in sizes.items():
        given = with_model(mini, size, precision="bfloat16")
        assert asked(given, "train_adapter", "gpu") == expected
        assert asked(given, "generate_chunk", "gpu") == expected


def test_a_seven_billion_run_is_hours_and_fits_its_card(mini: Study) -> None:
    """The study that this is for: 10,000 steps of batch 8 at 1,024 tokens."""
    given = with_model(mini, 7_600_000_000, steps=10_000, max_tokens=1024, precision="bfloat16")
    assert 6 * 60 < asked(given, "train_adapter", "runtime") < 48 * 60
    assert 16_000 < asked(given, "train_adapter", "mem_mb") < 80_000


def test_every_rule_has_an_estimate(root: Path, mini: Study) -> None:
    import re

    text = "".join(p.read_text("utf-8") for p in sorted((root / "rules").glob("*.smk")))
    rules = set(re.findall(r"resources\.for_rule\(study, \"(\w+)\"\)", text))
    assert {"train_adapter", "generate_chunk", "score_run"} <= rules
    for rule in rules:
        assert asked(mini, rule, "mem_mb") >= 500
        assert asked(mini, rule, "runtime") >= 10


def test_the_larger_chunk_takes_longer(mini: Study) -> None:
    members = mini.chunks["mini-qwen", "all"]
    half = resources.generate_flop(mini, "mini-qwen", members[: len(members) // 2])
    assert 0 < half < resources.generate_flop(mini, "mini-qwen", members)
