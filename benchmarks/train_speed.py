"""Training speed against TRL's SFTTrainer and transformers' Trainer: same batches, same order.

    python benchmarks/train_speed.py --checkpoint DIR --data FILE.json [--steps 12] [--rounds 5]
        [--peer-python PYTHON_WITH_TRL] [--threads 2] [--bf16]
    python benchmarks/train_speed.py --big-vocabulary [--peer-python PYTHON_WITH_TRL] ...

Each trainer runs in a process of its own, the trainers alternate, and the median of the rounds is
printed: supervised examples a second (without the first two steps), peak memory, loss of each step.
Exit code 1: a bar of `BARS` is missed. Other data than theirs have none.

The data is a JSON array in Alpaca's format. TRL is not part of ZPD-Bench's environments: make one
that has trl==1.16.0 and the versions of envs/train.txt, and name its interpreter.

--big-vocabulary makes its own model and data: Qwen2's form with random weights, 151,936 tokens,
hidden size 896, 4 layers; examples of 512 random tokens, half of them supervised.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TRAINERS = ("ours", "trainer", "trl")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
VOCABULARY = 151_936
WARM_UP = 2
BATCH = 8
RATE = 3e-4
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
LOSS = 1e-3
"""How far a peer's loss may be from ours at any step, where both compute in float32."""
GEMM = 0.7
"""In bfloat16 this share of the machine's own rate of matrix products will do as well."""


class Bar(NamedTuple):
    """Ours over a peer's: at least so fast, at most so much memory."""

    peer: str
    speed: float
    memory: float | None = None


# By the data's name; with --bf16 one bar whatever the data.
BARS = {
    "rasbt_instruction_1100": (Bar("trl", 1.5, 0.85), Bar("trainer", 1.25)),
    "alpaca_random_9229": (Bar("trl", 1.9, 0.85), Bar("trainer", 1.5)),
    "bf16": (Bar("trl", 1.35, 0.85),),
    "big vocabulary": (Bar("trl", 1.8, 0.4),),
}


def mode_of(args: argparse.Namespace) -> str:
    """The name of a run's bars."""
    if args.big_vocabulary:
        return "big vocabulary"
    return "bf16" if args.bf16 else str(args.data.stem)


def missed(mode: str, found: dict[str, dict[str, float]]) -> list[str]:
    """What is below its bar, in words.

    Args:
        mode: a key of `BARS`; another one has no bar but the loss curve's.
        found: by trainer `rate` (examples a second), `peak` (MiB), `loss` (largest difference from
            ours); of `ours` in bfloat16 also `gemm` (share of the machine's rate).
    """
    mine = found["ours"]
    said = []
    for bar in BARS.get(mode, ()):
        ratio = mine["rate"] / found[bar.peer]["rate"]
        enough = mode == "bf16" and mine["gemm"] >= GEMM
        if ratio < bar.speed and not enough:
            said.append(f"{ratio:.2f} times as fast as {bar.peer}, bar {bar.speed:g}")
        share = mine["peak"] / found[bar.peer]["peak"]
        if bar.memory is not None and share > bar.memory:
            said.append(f"{share:.2f} of {bar.peer}'s memory, bar {bar.memory:g}")
    if mode != "bf16":
        for peer in ("trl", "trainer"):
            if not found[peer]["loss"] <= LOSS:
                said.append(f"loss {found[peer]['loss']:.2g} from {peer}'s, bar {LOSS:g}")
    return said


def examples(path: Path, n: int) -> tuple[list[str], list[str]]:
    """The first n records with an answer: prompts and responses."""
    rows = [r for r in json.loads(path.read_text("utf-8")) if r["output"].strip()]
    prompts = [r["instruction"] + (f"\n\n{r['input']}" if r.get("input") else "") for r in rows[:n]]
    return prompts, [r["output"] for r in rows[:n]]


def big_vocabulary(folder: Path) -> None:
    """Write the random checkpoint of --big-vocabulary: config.json and weights."""
    import torch
    from safetensors.torch import save_file

    from zpdbench.adapters import decoder

    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": VOCABULARY,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 4,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    shape = decoder.read_shape(folder)
    assert shape is not None
    model = decoder.Decoder(shape)
    torch.manual_seed(0)
    for name, value in model.named_parameters():
        value.data.normal_(0.0, 0.02) if "norm" not in name else value.data.fill_(1.0)
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def tokenizer_of(args: argparse.Namespace) -> Any:
    """The peers' tokenizer: only its padding is used."""
    if not args.big_vocabulary:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(args.checkpoint)
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")


def encode(args: argparse.Namespace) -> Any:
    """The same tokens for all trainers."""
    from zpdbench.adapters.encoding import Encoder, Tokens

    if args.big_vocabulary:
        import numpy as np

        n, length = args.steps * BATCH, 512
        return Tokens(
            np.random.default_rng(0).integers(2, VOCABULARY, n * length).astype(np.int32),
            np.arange(n) * length,
            np.full(n, length),
            np.full(n, length // 2),
            np.zeros(n, np.int64),
            np.ones(n, np.bool_),
        )
    prompts, responses = examples(args.data, args.steps * BATCH)
    return Encoder(args.checkpoint).encode(prompts, responses, args.max_tokens)


def gemm_rate(tokens: int, hidden: int, inner: int, bf16: bool, seconds: float = 2.0) -> float:
    """FLOP/s of (tokens, hidden) x (hidden, inner), the best of what fits into `seconds`."""
    import torch

    dtype = torch.bfloat16 if bf16 else torch.float32
    left, right = torch.randn(tokens, hidden).to(dtype), torch.randn(inner, hidden).to(dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.nn.functional.linear(left, right)
        best = min(best, time.perf_counter() - start)
    return 2 * tokens * hidden * inner / best


def operations(shape: Any, tokens: Any, steps: int) -> list[int]:
    """Floating-point operations of each step, with the adapters of `TARGETS`."""
    from zpdbench.adapters import flops

    inner, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    adapted = shape.layers * (2 * (shape.hidden_size + inner) + 2 * (shape.hidden_size + kv))
    found = []
    for start in range(0, steps * BATCH, BATCH):
        part = slice(start, start + BATCH)
        lengths = tokens.lengths[part]
        targets = int((lengths - tokens.prompts[part]).sum())
        found.append(flops.training(shape, lengths.tolist(), targets, 8, adapted, False))
    return found


def largest_product(shape: Any, tokens: Any, steps: int) -> tuple[int, int, int]:
    """(tokens, in, out) of the model's largest layer product in a mean step."""
    return int(tokens.lengths.sum()) // steps, shape.hidden_size, shape.intermediate_size


def ours(args: argparse.Namespace, tokens: Any) -> tuple[list[float], list[float]]:
    """(loss, seconds) of each step with ZPD-Bench's own loop."""
    import numpy as np
    import torch

    from zpdbench.adapters import decoder, lora
    from zpdbench.adapters.learner import ModelLearner
    from zpdbench.adapters.loop import Run, Settings
    from zpdbench.adapters.optimiser import AdamW
    from zpdbench.adapters.state import Store
    from zpdbench.curriculum.conditions import Options, Random, Told

    n = len(tokens.lengths)
    model = decoder.load(args.checkpoint, torch.bfloat16 if args.bf16 else torch.float32)
    layers = lora.apply(model, TARGETS, 8, 16, 0.0, seed=0)
    parameters = [p for layer in layers.values() for p in (layer.lora_a, layer.lora_b)]
    told = Told(
        [str(i) for i in range(n)], np.zeros(n), ["en"] * n, np.arange(n), args.steps, BATCH, 0
    )
    settings = Settings(args.steps, BATCH, BATCH, RATE, 0.0, [args.steps], [args.steps], 0)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            model,
            AdamW(parameters, 0.0, 1.0),
            Random(told, Options()),
            ModelLearner(model, tokens, np.arange(1)),
            tokens,
            settings,
            Store("speed", Path(folder)),
            dict,
        )
        run.train(lambda note: None)
    return [s["loss"] for s in run.progress.steps], [s["seconds"] for s in run.progress.steps]


def peer(args: argparse.Namespace, tokens: Any) -> tuple[list[float], list[float]]:
    """(loss, seconds) of each step with transformers' Trainer or TRL's SFTTrainer."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from torch.utils.data import SequentialSampler
    from transformers import (
        AutoModelForCausalLM,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(args.checkpoint, dtype=torch.float32)
    tokenizer = tokenizer_of(args)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    config = LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM"
    )
    rows = range(len(tokens.lengths))
    common: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": BATCH,
        "max_steps": args.steps,
        "learning_rate": RATE,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": args.bf16,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "seed": 0,
    }
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.start)

    if args.trainer == "trl":
        from trl import SFTConfig, SFTTrainer

        data = Dataset.from_dict(
            {
                "input_ids": [tokens[i].tolist() for i in rows],
                "completion_mask": [
                    [0] * int(tokens.prompts[i]) + [1] * int(tokens.lengths[i] - tokens.prompts[i])
                    for i in rows
                ],
            }
        )

        class Ordered(SFTTrainer):
            def _get_train_sampler(self, *_: Any) -> Any:
                return SequentialSampler(self.train_dataset)

        trainer: Any = Ordered(
            model=model,
            args=SFTConfig(
                **common,
                max_length=args.max_tokens,
                packing=False,
                completion_only_loss=True,  # else its loss is over the prompts too
            ),
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=config,
            callbacks=[Clock()],
        )
    else:
        from transformers import DataCollatorForSeq2Seq

        data = Dataset.from_dict(
            {
                "input_ids": [tokens[i].tolist() for i in rows],
                "labels": [
                    [-100] * int(tokens.prompts[i]) + tokens[i][tokens.prompts[i] :].tolist()
                    for i in rows
                ],
            }
        )

        class OrderedTrainer(Trainer):
            def _get_train_sampler(self, *_: Any) -> Any:
                return SequentialSampler(self.train_dataset)

        trainer = OrderedTrainer(
            model=get_peft_model(model, config),
            args=TrainingArguments(**common),
            train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            callbacks=[Clock()],
        )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, seconds


def one(args: argparse.Namespace) -> None:
    """One trainer in this process; prints a JSON line."""
    import torch

    torch.set_num_threads(args.threads)
    tokens = encode(args)
    losses, seconds = (ours if args.trainer == "ours" else peer)(args, tokens)
    warm = min(WARM_UP, args.steps - 1)
    timed = seconds[warm:]
    found: dict[str, Any] = {
        "rate": BATCH * len(timed) / sum(timed),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": losses,
    }
    if args.trainer == "ours" and args.bf16:
        from zpdbench.adapters import decoder

        shape = decoder.read_shape(args.checkpoint)
        machine = gemm_rate(*largest_product(shape, tokens, args.steps), bf16=True)
        found["gemm"] = sum(operations(shape, tokens, args.steps)[warm:]) / sum(timed) / machine
    print(json.dumps(found))


def main() -> int:
    """Alternate the trainers and print the table; exit code 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--big-vocabulary", action="store_true")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--trainer", choices=TRAINERS, help="just this one, in this process")
    args = parser.parse_args()
    if args.checkpoint is None and args.big_vocabulary:
        with tempfile.TemporaryDirectory() as folder:
            big_vocabulary(Path(folder))
            command = [sys.executable, __file__, *sys.argv[1:], "--checkpoint", folder]
            command += ["--max-tokens", "512"]
            return subprocess.run(command, env=ENVIRONMENT, check=False).returncode
    if args.checkpoint is None or (args.data is None and not args.big_vocabulary):
        parser.error("give --checkpoint and --data, or --big-vocabulary")
    if args.trainer:
        one(args)
        return 0
    found: dict[str, list[dict[str, Any]]] = {t: [] for t in TRAINERS}
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": str(args.threads)}
    for _ in range(args.rounds):
        for trainer in TRAINERS:
            python = sys.executable if trainer == "ours" else args.peer_python
            command = [python, __file__, *sys.argv[1:], "--trainer", trainer]
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            found[trainer].append(json.loads(done.stdout.splitlines()[-1]))
    print("trainer\texamples_per_second\tpeak_mib\tratio_of_ours\tmax_loss_difference")
    result: dict[str, dict[str, float]] = {}
    for trainer, runs in found.items():
        medians = {
            key: statistics.median(r[key] for r in runs)
            for key in ("rate", "peak", "gemm")
            if key in runs[0]
        }
        pairs = zip(runs[0]["loss"], found["ours"][0]["loss"], strict=True)
        result[trainer] = {**medians, "loss": max(abs(a - b) for a, b in pairs)}
    for trainer, row in result.items():
        ratio = result["ours"]["rate"] / row["rate"]
        print(f"{trainer}\t{row['rate']:.3f}\t{row['peak']:.0f}\t{ratio:.3f}\t{row['loss']:.2g}")
    if "gemm" in result["ours"]:
        print(f"ours at {result['ours']['gemm']:.0%} of the machine's rate of matrix products")
    mode = mode_of(args)
    said = missed(mode, result)
    for line in said:
        print(f"missed: {line}")
    if not said:
        print("bars held" if mode in BARS else f"no bar for {mode}")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
