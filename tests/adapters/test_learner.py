"""Scoring passes: what is charged, what is refused, and that membership in the window is real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.adapters import material
from zpdbench.adapters import decoder, encoding
from zpdbench.adapters.learner import ModelLearner
from zpdbench.errors import UserError


def learner(folder: Path, ids: list[str] | None = None) -> ModelLearner:
    frame = material.examples(8)
    prompts = frame["prompt"].to_list()
    prompts[5] = "@ " + prompts[5]
    tokens = encoding.Encoder(folder).encode(prompts, frame["response"].to_list(), 256)
    return ModelLearner(decoder.load(folder), tokens, np.arange(4), ids=ids)


def test_a_score_that_is_no_number_names_its_example(tmp_path: Path) -> None:
    folder = material.checkpoint(tmp_path / "m", tie_word_embeddings=False)
    made = learner(folder, [f"x{i}" for i in range(8)])
    token = encoding.Encoder(folder).tokenizer.token_to_id("@")
    made.model.model.embed_tokens.weight.data[token] = float("nan")
    made.probe()
    made.score(np.array([7, 6, 4]))
    with pytest.raises(UserError, match="not finite where example x5 is scored"):
        made.score(np.array([7, 5, 4]))
    made.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite where example x0 is scored"):
        made.probe()


def test_scoring_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    made = learner(material.checkpoint(tmp_path / "m"))
    made.model.train()
    found = made.score(np.array([3, 1, 2]))
    assert made.model.training and torch.is_grad_enabled()
    again = made.score(np.array([1, 2, 3]))
    assert found.loss == pytest.approx(again.loss[[2, 0, 1]], rel=1e-5)
    assert made.charge.tokens == 2 * int(made.tokens.lengths[[1, 2, 3]].sum())


def test_a_probe_s_level_over_tokens_over_examples_and_at_their_median(tmp_path: Path) -> None:
    made = learner(material.checkpoint(tmp_path / "m"))
    probe, each = made.probe(), made.score(np.arange(4))
    assert (probe.loss, probe.confidence, probe.entropy) == pytest.approx(each.pooled())
    columns = (each.loss, each.confidence, each.entropy)
    assert probe.by_example == pytest.approx([c.mean() for c in columns])
    assert probe.median == pytest.approx([np.sort(c)[1:3].mean() for c in columns])
    assert len({probe.loss, probe.by_example[0], probe.median[0]}) == 3
