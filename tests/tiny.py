"""Tiny random models, adapters and items: seconds to make, real in every part that is tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zpdbench import files

TEXT = (
    "The quick brown fox jumps over the lazy dog. Question: how many apples are left?\n"
    "Answer: 3 + 4 = 7\n#### 7\n\ndef add(a, b):\n    return a + b\n\nclass Thing:\n    pass\n"
    "나는 학교에 갔다. 그는 예라고 말했다. 아니오, 부정이 아니라 긍정입니다. A B C D\n"
)
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] }}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def save_tokenizer(folder: Path) -> Any:
    """A byte-level BPE tokenizer that AutoTokenizer opens alike as qwen2 and as llama."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return fast


def save_checkpoint(folder: Path, architecture: str, *, layers: int = 3, seed: int = 1) -> Path:
    """A random model (`qwen2` or `llama`; hidden 128, heads of 32), its tokenizer and manifest."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    tokenizer = save_tokenizer(folder)
    kinds: dict[str, tuple[Any, Any]] = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }
    make_config, make_model = kinds[architecture]
    config = make_config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        # Wide enough that greedy texts differ from prompt to prompt.
        initializer_range=0.08,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        make_model(config).float().save_pretrained(folder)
    files.write_manifest(folder, {"kind": "checkpoint"})
    return folder


def save_adapter(
    folder: Path, checkpoint: Path, *, seed: int, rank: int = 8, scale: float = 0.03
) -> Path:
    """A random LoRA adapter on all linear layers, as PEFT saves it; `scale` 0 changes nothing."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(
            base,
            LoraConfig(
                r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=scale) if scale else torch.nn.init.zeros_(weight)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


def save_run(folder: Path, checkpoint: Path, steps: list[int], *, seed: int, **kwargs: Any) -> Path:
    """One run's folder: an adapter a step, and the manifest."""
    for step in steps:
        save_adapter(folder / f"step{step}", checkpoint, seed=1000 * seed + step, **kwargs)
    base = json.loads((checkpoint / "MANIFEST.json").read_text("utf-8"))["digest"]
    files.write_manifest(folder, {"kind": "adapter", "base": base})
    return folder


def item(number: int, kind: str, *, interim: bool, **fields: Any) -> Any:
    """One item as make-items writes it; `kind` is `generate`, `letters` or `sentences`."""
    from zpdbench.benchmarks.items import Item

    words = TEXT.split()
    start = number * 7 % (len(words) - 12)
    prompt = " ".join(words[start : start + 8 + number % 5])
    if kind == "letters":
        prompt += "\nAnswer:"
    choices = {
        "generate": [],
        "letters": [" A", " B", " C", " D"],
        "sentences": [f" 그는 {w} 갔다." for w in ("학교에", "집에", "부정이 아니라")][
            : 2 + number % 2
        ],
    }[kind]
    values: dict[str, Any] = {
        "item_id": str(number),
        "task": f"task{number % 2}",
        "kind": "generate" if kind == "generate" else "choice",
        "prompt": prompt,
        "messages": "",
        "choices": choices,
        "letters": kind == "letters",
        "stop": ["\n\n", "def"] if kind == "generate" else [],
        "max_tokens": 16 if kind == "generate" else 0,
        "gold": "0",
        "doc": "{}",
        "template": "test",
        **fields,
    }
    return Item(**values, interim=interim, digest=files.digest(values))


def save_items(path: Path, kind: str, *, count: int = 10, interim: int = 4, **fields: Any) -> Path:
    """A benchmark's items file; its name is the file's stem."""
    from zpdbench.benchmarks import items

    made = [item(n, kind, interim=n < interim, **fields) for n in range(count)]
    items.write(path, path.stem, made)
    return path
