"""A loopback hub with one tiny, real checkpoint and one data set."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.hub import server
from zpdbench import study

MODEL, DATA = "some-owner/tiny", "some-owner/orca-ko"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A whole checkpoint of a few hundred kilobytes: path -> bytes."""
    from zpdbench.checkpoints import pretraining
    from zpdbench.embedded import tokenizer as bpe

    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = bpe.train(["two small words", "두 낱말"], 300)
    pretraining.build(
        "llama",
        vocabulary=tokenizer.get_vocab_size(),
        hidden_size=32,
        layers=3,
        eos=3,
        pad=0,
        seed=0,
    ).save_pretrained(folder)
    bpe.save(tokenizer, folder, 128)
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


@pytest.fixture
def dataset() -> bytes:
    """OpenOrca-KO's columns, in Parquet."""
    rows = range(40)
    frame = pl.DataFrame(
        {
            "id": [f"{('cot', 'flan', 'KoCoT', 'niv', 't0')[i % 5]}.{i}" for i in rows],
            "input": ["당신은 도움이 되는 조수입니다." if i % 2 else "" for i in rows],
            "instruction": [f"{i}에 {i + 1}을 더하면 얼마인지 차례로 설명해 주세요." for i in rows],
            "output": [f"{i} 다음의 수를 생각합니다. 답은 {2 * i + 1}입니다." for i in rows],
        }
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


@pytest.fixture
def hub(checkpoint: dict[str, bytes], dataset: bytes) -> Iterator[server.Hub]:
    """The hub; MODEL has a README and a pickle beside what is wanted."""
    with server.serving() as running:
        extra = {"README.md": b"# tiny", "pytorch_model.bin": b"pickle", "run.py": b"print(1)"}
        running.repos[f"models/{MODEL}"] = server.Repo({**checkpoint, **extra})
        running.repos[f"datasets/{DATA}"] = server.Repo({"data/train-0.parquet": dataset})
        yield running


@pytest.fixture
def config(tmp_path: Path, hub: server.Hub) -> Path:
    """A study that takes its model and its corpus from the hub."""
    path = tmp_path / "config" / "study.yaml"
    path.parent.mkdir()
    path.write_text(
        f"""
results: {tmp_path}/results
seeds: [0]
models:
  tiny: {{ source: hub, repo: {MODEL} }}
conditions:
  random: {{ order: random }}
corpus:
  name: c
  sources:
    orca:
      format: openorca_ko
      repo: {DATA}
      path: data/train-*.parquet
      language: ko
  probe: 4
training: {{ steps: 2, evaluate_every: 2, learning_rate: 1.0e-3 }}
benchmarks:
  gsm8k: {{ source: embedded, items: 5, num_fewshot: 0 }}
hypotheses: {{}}
hub:
  endpoint: {hub.url}
  cache: {tmp_path}/cache
""",
        "utf-8",
    )
    study.load(path)
    return path
