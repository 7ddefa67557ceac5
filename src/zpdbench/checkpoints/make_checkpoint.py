"""make-checkpoint: one base model as a folder in Hugging Face's layout, with MANIFEST.json."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import arithmetic, files, startup, study
from zpdbench.checkpoints import (
    folders,
    gguf_header,
    gguf_model,
    gguf_tokenizer,
    sources,
    upscaling,
)
from zpdbench.errors import UserError
from zpdbench.hub import fetch
from zpdbench.hub.fetch import Repository
from zpdbench.study import EmbeddedModel, GgufModel, Hub, HubModel, LocalModel
from zpdbench.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def main(args: argparse.Namespace) -> None:
    """The verb. See `make`."""
    settings = study.load(args.study)
    spec = settings.models.get(args.model)
    if spec is None:
        raise UserError(
            f"no model {args.model!r} under models:",
            where=str(args.study),
            fix="name one of the configuration's models",
        )
    arithmetic.choose(settings.computes)
    chats = settings.chats
    made = make(
        args.model, spec, Path(args.out), threads=args.threads, hub=settings.hub, chats=chats
    )
    if made["chat_template"] and (plain := [b for b in settings.benchmarks if b not in chats]):
        print(
            f"{args.model} is trained in its chat template and asked {', '.join(plain)} without it "
            "(docs/benchmarks.md, Three forms)"
        )


def make(
    name: str,
    spec: EmbeddedModel | GgufModel | LocalModel | HubModel,
    out: Path,
    *,
    threads: int = 1,
    hub: Hub | None = None,
    chats: Mapping[str, bool] | None = None,
) -> dict[str, Any]:
    """Make a base model's folder `out` and return its manifest.

    Args:
        hub: where a hub's files are had; by default where huggingface_hub has them.
        chats: as `Study.chats`.

    Raises:
        UserError: the source is missing, damaged or not supported.
    """
    start = time.monotonic()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    with files.atomic_directory(out) as folder:
        if isinstance(spec, EmbeddedModel):
            facts = _embedded(name, spec, folder)
        elif isinstance(spec, GgufModel):
            facts = _package(spec, folder, threads)
        elif isinstance(spec, HubModel):
            facts = _hub(spec, folder, threads, hub or Hub())
        else:
            facts = _local(spec, folder, threads)
        config = folders.check(folder)
        folders.check_template(folder, chats or {})
        facts |= {
            "model": name,
            "source": spec.source,
            "architecture": config["model_type"],
            "layers": config["num_hidden_layers"],
            "hidden_size": config["hidden_size"],
            "vocabulary": config["vocab_size"],
            "eos": config.get("eos_token_id"),
            "chat_template": Tokenizer(folder).template is not None,
        }
        facts["parameters"] = _count_parameters(folder)
        manifest = files.write_manifest(folder, facts)
        files.write_text(
            folder / "make.timing.json",
            json.dumps({"seconds": round(time.monotonic() - start, 3)}) + "\n",
        )
    print(f"{name}: {facts['parameters']:,} parameters, {facts['layers']} layers, in {out}")
    return manifest


def _embedded(name: str, spec: EmbeddedModel, folder: Path) -> dict[str, Any]:
    with startup.uncollected():
        import torch

        from zpdbench import embedded
        from zpdbench.checkpoints import pretraining
        from zpdbench.embedded import tokenizer as bpe

    # One thread whatever is offered: sums in another order would give other weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tokenizer = bpe.train(embedded.tokenizer_texts())
    vocabulary = tokenizer.get_vocab()
    model = pretraining.build(
        spec.architecture,
        vocabulary=tokenizer.get_vocab_size(),
        hidden_size=spec.hidden_size,
        layers=spec.layers,
        eos=vocabulary[bpe.END],
        pad=vocabulary[bpe.PAD],
        seed=spec.seed,
    )
    shares = spec.pretraining.model_dump() if spec.pretraining else embedded.PRETRAINING
    loss = pretraining.pretrain(
        model, tokenizer, steps=spec.steps, seed=spec.seed, shares=shares, title=name
    )
    if spec.upscale is not None:
        model = upscaling.upscale(model, spec.upscale.drop)
        if spec.upscale.steps:
            loss = pretraining.pretrain(
                model,
                tokenizer,
                steps=spec.upscale.steps,
                seed=spec.seed + 1,
                shares=shares,
                title=f"{name}, deeper",
            )
    _save(model, folder)
    bpe.save(tokenizer, folder, pretraining.CONTEXT)
    return {"steps": spec.steps, "loss": float(f"{loss:.6g}")}


def _package(spec: GgufModel, folder: Path, threads: int) -> dict[str, Any]:
    _gguf(sources.locate(spec), spec, folder, threads)
    return {"origin": f"{spec.package}/{spec.file}", "origin_sha256": spec.sha256}


def _gguf(path: Path, spec: GgufModel | LocalModel, folder: Path, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    header = gguf_header.check(path)
    model = gguf_model.load(header)
    if spec.upscale is not None:
        model = _deeper(model, spec)
    _save(model, folder)
    for file_name, text in gguf_tokenizer.texts(header).items():
        files.write_text(folder / file_name, text)


def _local(spec: LocalModel, folder: Path, threads: int) -> dict[str, Any]:
    source = sources.local_folder(spec)
    if spec.is_gguf:
        if not source.is_file():
            raise UserError("no such file", where=str(source), fix="correct path:")
        _gguf(source, spec, folder, threads)
        return {"origin": source.name, "origin_sha256": files.sha256_file(source)}
    _take(source, spec, folder, threads)
    return {"origin": source.name}


def _hub(spec: HubModel, folder: Path, threads: int, hub: Hub) -> dict[str, Any]:
    wanted = Repository("models", spec.repo, spec.revision, spec.files)
    if spec.upscale is None:
        fetch.fetch(wanted, folder, hub)
    else:
        with tempfile.TemporaryDirectory(prefix=".hub-", dir=folder.parent) as name:
            fetch.fetch(wanted, Path(name), hub)
            _take(Path(name), spec, folder, threads)
    return {"origin": f"{spec.repo}@{spec.revision}"}


def _take(source: Path, spec: LocalModel | HubModel, folder: Path, threads: int) -> None:
    """Fill `folder` with a checked checkpoint folder's files, or with a deeper model of it."""
    folders.check(source)
    if spec.upscale is None:
        sources.copy_folder(source, folder)
        return
    import torch

    torch.set_num_threads(threads)
    _save(_deeper(sources.load_folder(source), spec), folder)
    for path in folders.kept_files(source):
        if not (folder / path.name).exists() and "safetensors" not in path.name:
            files.write_bytes(folder / path.name, path.read_bytes())


def _deeper(model: PreTrainedModel, spec: GgufModel | LocalModel | HubModel) -> PreTrainedModel:
    assert spec.upscale is not None
    return upscaling.upscale(model, spec.upscale.drop)


def _save(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder, safe_serialization=True)


def _count_parameters(folder: Path) -> int:
    """Parameters as stored; a tied output table is stored once, and counts once."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        for tensor in folders.read_header(path).values():
            count = 1
            for extent in tensor["shape"]:
                count *= extent
            total += count
    return total
