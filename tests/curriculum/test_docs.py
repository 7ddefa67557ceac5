"""The example in docs/conditions.md is run, and the configured ablations are checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from tests.curriculum.test_conditions import Model, run, told
from zpdbench import study
from zpdbench.curriculum import conditions, registry


def test_the_documented_example_works(root: Path) -> None:
    text = (root / "docs/conditions.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    cls = namespace["Spaced"]
    condition = cls(told(n=700, steps=60), cls.Options(update_every=15))
    rows, blocks = run(condition, Model(700))
    assert len(blocks) == 4 and len(rows) == 240
    assert set(rows.tolist()) <= set(condition.told.distinct.tolist())
    assert blocks[0].facts is not None and blocks[0].facts["mean_loss"] > 0


def test_documented_options_are_the_options(root: Path) -> None:
    text = (root / "docs/conditions.md").read_text("utf-8")
    for order in registry.names():
        assert order in text
        for option in registry.find(order).Options.model_fields:
            assert f"`{option}`" in text, f"{order}: {option}"


def test_every_fact_of_an_update_is_documented(root: Path) -> None:
    text = (root / "docs/methods/curriculum.md").read_text("utf-8")
    for fact in conditions.UPDATE_FACTS:
        assert re.search(rf"\b{fact}\b", text), fact


def test_ablations_are_eight_and_differ_from_zpd_in_one_option(root: Path) -> None:
    settings = study.load(root / "config/ablations.yaml")
    registry.check(settings)
    full = registry.options("zpd", "zpd", settings.conditions["zpd"].options)
    changed = {}
    for name, condition in settings.conditions.items():
        if name.startswith("zpd_"):
            options = registry.options(name, condition.order, condition.options)
            (key,) = [k for k in type(full).model_fields if getattr(full, k) != getattr(options, k)]
            changed[name] = (key, getattr(options, key))
    assert len(changed) == 8
    assert changed["zpd_a4_no_upper"] == ("upper", False)
    assert changed["zpd_a5_no_lower"] == ("lower", False)
    assert changed["zpd_a6_fixed"] == ("adaptive", False)
    # The study's 100 and 1000 steps in proportion to its 500.
    assert changed["zpd_a7_update_often"][1] * 5 == full.update_every
    assert changed["zpd_a8_update_rarely"][1] == 2 * full.update_every
    assert np.sum([changed[n][0] == "weights" for n in changed]) == 3
