"""Packing, and what a packed text sees."""

from __future__ import annotations

import pytest

from zpdbench import embedded
from zpdbench.checkpoints import pretraining
from zpdbench.embedded import tokenizer as bpe


def test_packing_keeps_every_document_once_and_in_its_row() -> None:
    lengths = [5, 9, 3, 8, 2, 7, 4, 10, 1, 6]
    packed = list(pretraining.pack(lengths, rows=2, width=12))
    assert sorted(i for batch in packed for row in batch for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 12 for batch in packed for row in batch)


def test_a_document_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="13 tokens in rows of 12"):
        list(pretraining.pack([3, 13], rows=2, width=12))


def test_encoding_marks_where_the_answer_begins() -> None:
    tokenizer = bpe.train(embedded.tokenizer_texts(), 600)
    texts = embedded.pretraining_texts(50)
    for text, (ids, given) in zip(texts, pretraining.encode(tokenizer, texts), strict=True):
        learnt = tokenizer.decode(ids[given:], skip_special_tokens=False)
        assert learnt == text.learnt + bpe.END


def test_a_packed_text_sees_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hidden states that pretraining computes for a text are those of the text by itself."""
    import torch

    tokenizer = bpe.train(embedded.tokenizer_texts(), 600)
    model = pretraining.build(
        "qwen2", vocabulary=600, hidden_size=32, layers=2, eos=3, pad=0, seed=0
    )
    calls: list[dict] = []
    forward = model.model.forward

    def record(**given):
        calls.append(given)
        return forward(**given)

    monkeypatch.setattr(model.model, "forward", record)
    pretraining.pretrain(
        model, tokenizer, steps=1, seed=0, shares=embedded.PRETRAINING, title="test"
    )
    given = calls[0]
    with torch.no_grad():
        packed = forward(**given).last_hidden_state
        starts = (given["position_ids"][0] == 0).nonzero().flatten().tolist()
        assert len(starts) > 2
        begin, end = starts[1], starts[2]
        alone = forward(input_ids=given["input_ids"][:1, begin:end], use_cache=False)
    torch.testing.assert_close(
        packed[0, begin:end], alone.last_hidden_state[0], atol=1e-4, rtol=1e-4
    )
