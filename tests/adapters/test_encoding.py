from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.adapters import material
from zpdbench.adapters import batches, encoding
from zpdbench.errors import UserError


def test_tokens_and_labels_are_transformers_chat_template(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = material.checkpoint(tmp_path / "m")
    frame = material.examples(20)
    encoder = encoding.Encoder(folder)
    tokens = encoder.encode(frame["prompt"].to_list(), frame["response"].to_list(), 256)
    reference = AutoTokenizer.from_pretrained(folder)
    for i, (prompt, response) in enumerate(frame.select("prompt", "response").iter_rows()):
        user = {"role": "user", "content": prompt}
        answer = {"role": "assistant", "content": response}
        whole = reference.apply_chat_template([user, answer], return_dict=False)
        given = reference.apply_chat_template([user], add_generation_prompt=True, return_dict=False)
        assert tokens[i].tolist() == whole
        assert tokens.prompts[i] == len(given)
        assert whole[-1] == encoder.end
    assert tokens.fits.all() and not tokens.cut.any()


def test_without_a_chat_template(tmp_path: Path) -> None:
    encoder = encoding.Encoder(material.checkpoint(tmp_path / "m", chat=False))
    tokens = encoder.encode(["What is 1 + 2?"], ["3"], 64)
    text = encoder.tokenizer.decode(tokens[0].tolist(), skip_special_tokens=False)
    assert text == "### Instruction:\nWhat is 1 + 2?\n\n### Response:\n3<|end|>"
    labels = encoder.tokenizer.decode(tokens[0][tokens.prompts[0] :].tolist(), False)
    assert labels == "3<|end|>"


def test_what_follows_the_end_of_turn_is_not_learnt(tmp_path: Path) -> None:
    folder = material.checkpoint(tmp_path / "m")
    template = material.TEMPLATE.replace("'<|end|>'", "'<|end|>\\n'")
    (folder / "chat_template.jinja").write_text(template)
    encoder = encoding.Encoder(folder)
    tokens = encoder.encode(["q"], ["a"], 64)
    labels = tokens[0][tokens.prompts[0] :].tolist()
    assert encoder.tokenizer.decode(labels, skip_special_tokens=False) == "a<|end|>"


def test_the_limit_cuts_the_prompt_s_left_and_never_a_label(tmp_path: Path) -> None:
    encoder = encoding.Encoder(material.checkpoint(tmp_path / "m"))
    prompts, responses = ["1 2 3 4 5 6 7 8 9 ?", "1?"], ["6", "1 2 3 4 5 6 7 8 9"]
    full = encoder.encode(prompts, responses, 256)
    tight = encoder.encode(prompts, responses, 16)
    answer = int(full.lengths[0] - full.prompts[0])
    assert full.lengths[0] > 16
    assert tight.lengths[0] == 16 and tight.cut[0] == full.lengths[0] - 16
    assert tight[0].tolist() == full[0][-16:].tolist()
    assert tight.lengths[0] - tight.prompts[0] == answer
    assert tight.fits.tolist() == [True, False]


def test_the_cache_gives_the_same_and_survives_damage(tmp_path: Path) -> None:
    encoder = encoding.Encoder(material.checkpoint(tmp_path / "m"))
    frame = material.examples(10)
    prompts, responses = frame["prompt"].to_list(), frame["response"].to_list()
    arguments = (encoder, prompts, responses, 64, "corpus", tmp_path / "cache")
    first = encoding.load_or_encode(*arguments)
    (entry,) = (tmp_path / "cache/tokens").iterdir()
    again = encoding.load_or_encode(*arguments)
    assert isinstance(again.ids, np.memmap)
    assert np.array_equal(first.ids, again.ids) and np.array_equal(first.starts, again.starts)
    (entry / "ids.npy").write_bytes(b"rubbish")
    mended = encoding.load_or_encode(*arguments)
    assert np.array_equal(encoder.encode(prompts, responses, 64).ids, mended.ids)
    encoding.load_or_encode(*arguments[:3], 32, *arguments[4:])
    assert len(list((tmp_path / "cache/tokens").iterdir())) >= 1


def test_pack(tmp_path: Path) -> None:
    encoder = encoding.Encoder(material.checkpoint(tmp_path / "m"))
    frame = material.examples(10)
    tokens = encoder.encode(frame["prompt"].to_list(), frame["response"].to_list(), 256)
    rows = np.array([7, 2, 5])
    batch = batches.pack(tokens, rows)
    assert list(batch.lengths) == sorted(tokens.lengths[rows], reverse=True)
    for place in range(3):
        row = rows[place]
        mine = batch.owner == place
        assert batch.targets[mine].tolist() == tokens[row][tokens.prompts[row] :].tolist()
        # The token before each target is the one it is predicted from.
        before = batch.ids[batch.select[mine]].tolist()
        assert before == tokens[row][tokens.prompts[row] - 1 : -1].tolist()
    parts = list(batches.by_length(tokens, np.arange(10), budget=120))
    assert sorted(np.concatenate(parts).tolist()) == list(range(10))
    assert all(len(p) * tokens.lengths[p].max() <= 120 or len(p) == 1 for p in parts)


def test_bad_tokenizers(tmp_path: Path) -> None:
    folder = material.checkpoint(tmp_path / "m")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": None}))
    with pytest.raises(UserError, match="eos_token"):
        encoding.Encoder(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for template, message in (
        ("{% for %}", "does not compile"),
        ("{{ messages | length }}", "does not begin"),
        ("{{ messages[0].content }}{% if messages[1] %}!{% endif %}", "does not show an answer"),
        ("{{ messages.none.there }}", "refuses the messages"),
    ):
        (folder / "chat_template.jinja").write_text(template)
        with pytest.raises(UserError, match=message):
            encoding.Encoder(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"no readable tokenizer\.json"):
        encoding.Encoder(folder)


def test_three_runs_that_encode_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoding.Encoder(material.checkpoint(tmp_path / "m"))
    frame = material.examples(10)
    arguments = (encoder, frame["prompt"].to_list(), frame["response"].to_list(), 64, "corpus")
    original, meet = encoder.encode, threading.Barrier(3, timeout=60)

    def together(*given: Any) -> encoding.Tokens:
        found = original(*given)
        meet.wait()
        return found

    monkeypatch.setattr(encoder, "encode", together)
    kept: list[encoding.Tokens] = []

    def run() -> None:
        kept.append(encoding.load_or_encode(*arguments, tmp_path / "cache"))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 3, "each one got the tokens"
    # All read one folder, the first one's: nobody's was taken away.
    assert all(isinstance(tokens.ids, np.memmap) for tokens in kept)
    assert len({Path(str(tokens.ids.filename)).stat().st_ino for tokens in kept}) == 1
    assert [p.name[0] != "." for p in (tmp_path / "cache/tokens").iterdir()] == [True]
