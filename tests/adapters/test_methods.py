"""Full fine-tuning, several processes, gradient checkpointing: against what they must equal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from tests.adapters import material
from tests.adapters.test_train_adapter import BATCH, STEPS, configuration, contents
from zpdbench import files, study
from zpdbench.adapters import batches, decoder, encoding, loop, memory, parallel, train_adapter
from zpdbench.adapters.loss import cross_entropy
from zpdbench.adapters.optimiser import schedule
from zpdbench.errors import UserError

FULL = {"method": "full", "learning_rate": 1e-3, "weight_decay": 0.01}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("methods")
    material.checkpoint(root / "m")
    material.checkpoint(root / "untied", tie_word_embeddings=False)
    material.examples(150).write_parquet(root / "c.parquet")
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))


Train = Callable[..., Path]


@pytest.fixture
def train(world: Path, tmp_path: Path) -> Train:
    def run(condition: str = "random", out: str = "out", base: str = "m", **training: Any) -> Path:
        train_adapter.train(
            study.parse(configuration(**training)),
            model="m",
            condition=condition,
            seed=0,
            checkpoint=world / base,
            corpus=world / "c.parquet",
            out=tmp_path / out,
        )
        return tmp_path / out

    return run


@pytest.fixture
def command(world: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The verb's command line; several processes are its own children."""

    def make(condition: str = "random", out: str = "out", **training: Any) -> list[str]:
        config = tmp_path / f"{out}.yaml"
        config.write_text(study.lock_text(study.parse(configuration(**training))))
        made = [sys.executable, "-m", "zpdbench.cli", "train-adapter", "--study", str(config)]
        made += ["--checkpoint", str(world / "m"), "--corpus", str(world / "c.parquet")]
        made += ["--model", "m", "--condition", condition, "--seed", "0"]
        return [*made, "--out", str(tmp_path / out)]

    return make


def losses(folder: Path) -> list[float]:
    return steps(folder)["loss"].to_list()


def steps(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "trace.parquet").filter(pl.col("kind") == "step")


# -- full fine-tuning ---------------------------------------------------------------------------


def reference(checkpoint: Path, corpus: Path, order: list[str]) -> tuple[list[float], Any]:
    """(loss of each step, model) of transformers with torch's AdamW on these examples."""
    from transformers import AutoModelForCausalLM

    frame = pl.read_parquet(corpus)
    encoder = encoding.Encoder(checkpoint)
    tokens = encoder.encode(frame["prompt"].to_list(), frame["response"].to_list(), 128)
    at = {name: row for row, name in enumerate(frame["id"])}
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.01)
    found = []
    for step in range(STEPS):
        rows = [at[name] for name in order[step * BATCH : (step + 1) * BATCH]]
        width = max(int(tokens.lengths[r]) for r in rows)
        ids = torch.zeros(BATCH, width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for line, row in enumerate(rows):
            n, prompt = int(tokens.lengths[row]), int(tokens.prompts[row])
            ids[line, :n] = torch.from_numpy(tokens[row].astype(np.int64))
            mask[line, :n] = 1
            labels[line, prompt:n] = ids[line, prompt:n]
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.param_groups[0]["lr"] = 1e-3 * schedule(step, STEPS, 0.03)
        optimiser.step()
        optimiser.zero_grad()
        found.append(float(loss))
    return found, model


@pytest.mark.parametrize("base", ["m", "untied"])
def test_full_is_transformers_with_adamw(train: Train, world: Path, base: str) -> None:
    out = train("easy_to_hard", base=base, **FULL)
    order = [i for batch in steps(out)["examples"].to_list() for i in batch]
    expected, model = reference(world / base, world / "c.parquet", order)
    assert losses(out) == pytest.approx(expected, abs=1e-4)
    assert expected[-1] < expected[0] - 0.5

    assert [p.name for p in out.iterdir() if p.is_dir()] == ["step24"], "the last step alone"
    manifest = files.check_manifest(out)
    assert (manifest["kind"], manifest["steps"]) == ("full", [STEPS])
    assert manifest["trained_parameters"] == sum(p.numel() for p in model.parameters())
    served = {p.name for p in (out / "step24").iterdir()}
    assert served == {p.name for p in (world / base).iterdir()} - {"MANIFEST.json"}

    from transformers import AutoModelForCausalLM

    ours = AutoModelForCausalLM.from_pretrained(out / "step24", dtype="auto").state_dict()
    assert {v.dtype for v in ours.values()} == {torch.float32}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=1e-2, atol=1e-4)
    tied = "lm_head.weight" not in load_file(out / "step24/model.safetensors")
    assert tied == (base == "m")


def test_full_in_bfloat16_trains_float32_weights(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    resume = loop.Run.resume

    def look(self: loop.Run) -> int:
        seen.append(self.optimiser.state()["values"])
        return resume(self)

    monkeypatch.setattr(loop.Run, "resume", look)
    half = train(out="half", precision="bfloat16", **FULL)
    whole = train(out="whole", **FULL)
    assert seen[0].dtype == torch.float32
    assert losses(half) == pytest.approx(losses(whole), abs=0.05)
    assert losses(half) != losses(whole)
    kept = load_file(half / "step24/model.safetensors")
    assert {v.dtype for v in kept.values()} == {torch.bfloat16}
    assert json.loads((half / "step24/config.json").read_text())["dtype"] == "bfloat16"


class KilledError(Exception):
    """Stands for a kill."""


def test_a_killed_full_run_ends_in_the_same_bytes(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(train("zpd", out="undisturbed", **FULL))
    original = loop.Run._step
    done: list[int] = []
    kill_at = 0

    def step(self: loop.Run, rows: Any) -> float:
        if self.progress.step == kill_at:
            raise KilledError
        done.append(self.progress.step)
        return original(self, rows)

    monkeypatch.setattr(loop.Run, "_step", step)
    for kill in (3, 13, 21):
        kill_at = kill
        with pytest.raises(KilledError):
            train("zpd", out="killed", **FULL)
    kill_at, done[:] = -1, []
    assert contents(train("zpd", out="killed", **FULL)) == expected
    assert done[0] == 16, "the state is saved at every evaluate_every all the same"
    assert not list((tmp_path / "cache/training").iterdir())


def test_accumulated_gradients_of_all_weights_are_the_large_batch_s(train: Train) -> None:
    whole = train(out="whole", **FULL)
    parts = train(out="parts", micro_batch=1, **FULL)
    assert losses(parts) == pytest.approx(losses(whole), abs=1e-4)


# -- gradient checkpointing ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full"])
def test_gradient_checkpointing_changes_no_byte(train: Train, method: str) -> None:
    made = [
        train(out=str(on), method=method, gradient_checkpointing=on, lora={"dropout": 0.1})
        for on in (False, True)
    ]
    assert contents(made[0]) == contents(made[1])
    recorded = [
        json.loads((f / "train.timing.json").read_text())["gradient_checkpointing"] for f in made
    ]
    assert recorded == [False, True]


def test_checkpointing_is_chosen_where_the_estimate_exceeds_the_device(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for size in (1 << 40, 1 << 20):
        monkeypatch.setattr(memory, "device_bytes", lambda device, size=size: size)
        out = train(out=f"{size}", steps=1, evaluate_every=1)
        timing = json.loads((out / "train.timing.json").read_text())
        found.append(timing["gradient_checkpointing"])
    assert found == [False, True]


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_of_activations(world: Path, method: str, dtype: torch.dtype) -> None:
    from zpdbench.adapters import lora

    frame = material.examples(16)
    encoder = encoding.Encoder(world / "m")
    tokens = encoder.encode(frame["prompt"].to_list(), frame["response"].to_list(), 128)
    model = decoder.load(world / "m", dtype, trained=method == "full")
    if method == "lora":
        lora.apply(model, "all-linear", 8, 16, 0.0, seed=0)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    batch = batches.pack(tokens, np.full(16, int(tokens.lengths.argmax())))
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # no storage is freed and its address given again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        # A layer's tensors only: of as many rows as there are tokens, padded or not.
        if storage.data_ptr() not in weights and tensor.numel() >= sum(batch.lengths) * 8:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        cross_entropy(model(batch), model.head, batch.targets)
    rank = 8 if method == "lora" else 0
    estimate = memory.activations(
        model.shape, sum(batch.lengths), rank, 2 if dtype == torch.bfloat16 else 4
    )
    assert 0.8 < sum(kept.values()) / estimate < 1.3
    assert memory.parameters(decoder.load(world / "m").shape) == pytest.approx(
        sum(p.numel() for p in decoder.load(world / "m").parameters()), rel=0.01
    )


# -- several processes --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_are_one(
    train: Train, command: Callable[..., list[str]], tmp_path: Path, method: str
) -> None:
    settings: dict[str, Any] = {"method": method, "micro_batch": 1}
    alone = train("zpd", out="alone", **settings)
    subprocess.run(command("zpd", out="two", processes=2, **settings), check=True, timeout=900)
    two = tmp_path / "two"
    assert losses(two) == pytest.approx(losses(alone), abs=1e-4)
    same = ["step", "examples", "tokens", "targets", "flops"]
    assert steps(two).select(same).equals(steps(alone).select(same)), "one order, one charge"
    updates = [
        pl.read_parquet(f / "trace.parquet").filter(pl.col("kind") == "update")
        for f in (alone, two)
    ]
    assert updates[0]["tokens_scored"].equals(updates[1]["tokens_scored"])
    # Before the first step the weights are the same, so the measures are, to the last bit.
    assert updates[0]["probe_loss"][0] == updates[1]["probe_loss"][0]
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    one, other = (load_file(f / "step24" / name) for f in (alone, two))
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-3, atol=5e-4)
    timing = json.loads((two / "train.timing.json").read_text())
    assert timing["processes"] == 2
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in alone.iterdir())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_stop_and_go_on_together(
    command: Callable[..., list[str]], tmp_path: Path, method: str
) -> None:
    settings: dict[str, Any] = {"method": method, "processes": 2, "steps": 120}
    settings["evaluate_every"] = 20
    subprocess.run(command(out="undisturbed", **settings), check=True, timeout=900)
    shutil.rmtree(tmp_path / "cache/training", ignore_errors=True)
    process = subprocess.Popen(command(**settings), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 900
    while not list((tmp_path / "cache/training").glob("*/state.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "out").exists()
    subprocess.run(command(**settings), check=True, timeout=900)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")
    timing = json.loads((tmp_path / "out/train.timing.json").read_text())
    assert timing["resumed"] == 1


def test_what_is_wrong_is_said_once(
    command: Callable[..., list[str]], world: Path, tmp_path: Path
) -> None:
    made = command("random", processes=2)
    made[made.index("--corpus") + 1] = str(tmp_path / "none.parquet")
    result = subprocess.run(made, capture_output=True, text=True, timeout=900)
    assert result.returncode == 2
    assert result.stderr.count("no readable Parquet file") == 1
    assert "Traceback" not in result.stderr


def test_processes_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="3 cannot share a batch of 4 equally"):
        study.parse(configuration(processes=3))
    with pytest.raises(UserError, match="4 processes were launched, the configuration says 2"):
        parallel.started(2, {"WORLD_SIZE": "4"})
    assert parallel.started(2, {"WORLD_SIZE": "2"})
    assert not parallel.started(2, {}) and not parallel.started(1, {"WORLD_SIZE": "4"})


def test_a_killed_launcher_leaves_no_process(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    settings = {"processes": 2, "steps": 100_000, "evaluate_every": 100_000}
    process = subprocess.Popen(command(**settings), stderr=subprocess.PIPE)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 900
    while len(found := children.read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # Once the interpreter is up; before, nothing could tell.
    time.sleep(5)
    process.kill()
    process.communicate()
    while any(Path(f"/proc/{pid}").exists() for pid in found):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (tmp_path / "out").exists()


def test_a_process_that_dies_takes_the_run_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parallel, "GRACE_SECONDS", 0.5)
    script = (
        "import os, sys, time\n"
        "if os.environ['RANK'] == '1': sys.exit('out of memory')\n"
        "time.sleep(100)\n"
    )
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{script}"\n')
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    begun = time.monotonic()
    assert parallel.launch(2, {}) == 1
    assert time.monotonic() - begun < 30
    assert "process 1 failed first:\nout of memory" in capfd.readouterr().err
    assert os.environ.get("RANK") is None


# -- what comes after ---------------------------------------------------------------------------


def test_a_full_run_answers_as_trained(train: Train, world: Path, tmp_path: Path) -> None:
    """Trained by the verb, served by an engine of its own, compared with the base."""
    from argparse import Namespace

    from tests import tiny
    from zpdbench.engines import Request, Settings
    from zpdbench.engines.transformers_engine import TransformersEngine
    from zpdbench.generations import generate_chunk

    out = train(out="random/s0", **FULL)
    config = configuration(**FULL)
    config["conditions"] = {"random": {"order": "random"}}
    config["seeds"] = [0]
    config["generations"] = {"engine": "transformers", "max_model_len": 256}
    (tmp_path / "study.yaml").write_text(study.lock_text(study.parse(config)))
    items = tiny.save_items(tmp_path / "items/gsm8k.parquet", "generate", count=4, interim=0)
    generate_chunk.main(
        Namespace(
            study=str(tmp_path / "study.yaml"),
            model="m",
            chunk="all",
            checkpoint=str(world / "m"),
            adapters=[str(out)],
            items=[str(items)],
            out=str(tmp_path / "all.parquet"),
        )
    )
    frame = pl.read_parquet(tmp_path / "all.parquet")
    assert frame.group_by("condition", "step").len().sort("condition").rows() == [
        ("base", 0, 4), ("random", STEPS, 4)
    ]  # fmt: skip
    # The engine's model is the trained one: its likelihoods are the trainer's own.
    tokens = encoding.Encoder(world / "m").encode(["What is 2 + 3?"], ["2 + 3 = 5. #### 5"], 128)
    whole, prompt = tuple(int(t) for t in tokens[0]), int(tokens.prompts[0])
    network = decoder.load(out / "step24")
    batch = batches.pack(tokens, np.arange(1))
    with torch.no_grad():
        loss, _ = cross_entropy(network(batch), network.head, batch.targets)
    engine = TransformersEngine(out / "step24", Settings())
    ((_, answer),) = engine.ask([(0, Request(whole[:prompt], choices=(whole[prompt:],)))])
    assert answer.logprobs[0] == pytest.approx(-float(loss), abs=1e-3)
