"""What can be known to be wrong before the first job starts, beyond the configuration's form."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from zpdbench import arithmetic, devices, files, resources
from zpdbench.checkpoints import folders, gguf_header
from zpdbench.corpora import make_items, sources
from zpdbench.errors import UserError
from zpdbench.hub import fetch
from zpdbench.hub.fetch import Repository
from zpdbench.study import EmbeddedModel, GgufModel, LocalModel, Study

READ_AT_START = 64 << 20
"""Corpus files larger than this (bytes) are read by their job alone: that takes too long here."""

TRAINED = ("llama", "qwen2")
"""Architectures of GGUF files that `zpdbench.adapters.decoder` trains."""

_UNPINNED = {"models": "the model's files", "datasets": "the data set's files"}


def check_names(study: Study) -> None:
    """Check the names that mean nothing anywhere if they are wrong: orders, options, benchmarks.

    Raises:
        UserError: the first one that is not known.
    """
    from zpdbench.curriculum import registry

    registry.check(study)
    _note_last_step_only(study)
    for source in study.hub_sources:
        if not source.is_pinned:
            print(
                f"note: {source.name}: {_UNPINNED[source.kind]} are not pinned yet",
                file=sys.stderr,
            )
    for name in study.benchmarks:
        if said := make_items.check_form(study, name):
            print(f"note: {said}", file=sys.stderr)


def check_tables(study: Study, rules: Collection[str]) -> None:
    """Check that the study says what the asked-for tables are about.

    Args:
        rules: names of the rules that would run.

    Raises:
        UserError: a table about two models, and no hypotheses.h3a that names them.
    """
    for rule in ("h3a", "h3a_sensitivity", "power", "expected"):
        if rule in rules and rule not in study.tables:
            raise UserError(
                f"{rule}.tsv is about two models, and the study names none",
                where="hypotheses.h3a",
                fix="give hypotheses: {h3a: {small: MODEL, large: MODEL}}, or ask for `all`",
            )


def _note_last_step_only(study: Study) -> None:
    asked = [name for name, b in study.benchmarks.items() if b.interim_items]
    if study.training.method == "full" and asked:
        print(
            "note: training.method full keeps its last step only: interim_items of "
            f"{', '.join(asked)} are not asked, evaluate_every says when the state is saved",
            file=sys.stderr,
        )


def check_machine(study: Study) -> None:
    """Check that the packages, checkpoints and files that a study names are on this machine.

    Raises:
        UserError: the first one that is not there.
    """
    if study.computes == "portable":
        arithmetic.check()
    for source in study.hub_sources:
        fetch.check_pinned(Repository(source.kind, source.repo, source.revision, source.files))
    for name, model in study.models.items():
        if isinstance(model, GgufModel) and find_spec(model.package) is None:
            raise UserError(
                f"package {model.package!r} is not installed",
                where=f"models.{name}",
                fix="make venv",
            )
        if isinstance(model, LocalModel):
            _check_local(name, model, study.chats)
        _check_cache(study, name)
    for name, own in study.corpus.sources.items():
        if own.path is None or own.repo is not None:
            continue
        folder = study.data_folder
        paths = sorted(folder.glob(own.path)) if "*" in own.path else [folder / own.path]
        if not paths or not paths[0].is_file():
            raise UserError(
                f"no file {own.path} below {folder}",
                where=f"corpus.sources.{name}",
                fix="correct path: or data_dir:",
            )
        if sum(path.stat().st_size for path in paths) <= READ_AT_START:
            sources.read(name, own, study.corpus, paths)
    for name, benchmark in study.benchmarks.items():
        if benchmark.source == "files":
            make_items.documents_of(study, name)
    _check_writable(files.cache_folder())


def _check_local(name: str, model: LocalModel, chats: Mapping[str, bool]) -> None:
    """Check that a local model is a whole folder, or a GGUF file that can be converted.

    Args:
        chats: as `Study.chats`.
    """
    path = Path(model.path).expanduser()
    if model.is_gguf:
        if not path.is_file():
            raise UserError(
                f"no file {model.path}",
                where=f"models.{name}",
                fix="put it there, or correct path:",
            )
        gguf_header.check(path)
    elif not (path / "config.json").is_file():
        raise UserError(
            f"no checkpoint at {model.path} (no config.json)",
            where=f"models.{name}",
            fix="give a folder in Hugging Face's layout, or a GGUF file",
        )
    else:
        folders.check(path)
        folders.check_template(path, chats)


def check_trained(study: Study, models: Iterable[str]) -> None:
    """Check that GGUF files of models that are to be trained are of an architecture that is.

    Raises:
        UserError: the first that is only served.
    """
    for name in sorted(set(models)):
        model = study.models[name]
        if not isinstance(model, LocalModel) or not model.is_gguf:
            continue
        architecture = gguf_header.read(Path(model.path).expanduser()).architecture
        if architecture not in TRAINED:
            raise UserError(
                f"{architecture} models are served and scored, not trained "
                f"({' and '.join(TRAINED)} are)",
                where=f"models.{name}",
                fix="take another model",
            )


def _check_writable(folder: Path) -> None:
    """Check that the cache can be written, by a file that is at once taken away again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cannot be written ({error.strerror})",
            where=str(folder),
            fix="set ZPDBENCH_CACHE to a folder of yours",
        ) from error


def check_gpu(study: Study, models: Iterable[str], *, contained: bool = False) -> None:
    """Check that models that need a GPU can have one of this machine, where their jobs run here.

    Args:
        models: those that jobs train or serve.
        contained: whether the jobs run in containers.

    Raises:
        UserError: there is no GPU, or the containers are not given it.
    """
    for name in sorted(set(models)):
        why = resources.why_gpu(study, name)
        if why is None or os.environ.get(devices.VARIABLE):
            continue
        if contained and not study.images.nv:
            raise UserError(
                f"{name} wants a GPU, and containers are given none ({why})",
                where="images.nv",
                fix=f"images: {{flavour: cuda, nv: true}}, or {devices.VARIABLE}=cpu",
            )
        if devices.gpu_here() is None:
            raise UserError(
                f"{name} wants a GPU, and this machine has none ({why})",
                where=f"models.{name}",
                fix="run on a cluster (--workflow-profile profiles/slurm), take a smaller model, "
                f"or {devices.VARIABLE}=cpu, if the CPU is meant",
            )


def note_size(study: Study, models: Iterable[str]) -> None:
    """Say on standard error which models' training does not fit the one GPU that it gets."""
    for name in sorted(set(models)):
        if said := resources.too_large_to_train(study, name):
            print(f"note: {said}", file=sys.stderr)


def _check_cache(study: Study, name: str) -> None:
    """Check that the KV cache holds one request of full length, where the model's shape is known.

    Keys and values, each layers x key-value heads x head size.
    """
    model, settings = study.models[name], study.generations
    if settings.engine != "vllm":
        return
    if isinstance(model, EmbeddedModel):
        layers, width = model.layers, model.hidden_size
    elif isinstance(model, LocalModel) and Path(model.path).expanduser().is_dir():
        config = folders.read_config(Path(model.path).expanduser())
        layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
        size = config.get("head_dim") or config["hidden_size"] // heads
        width = (config.get("num_key_value_heads") or heads) * size
    elif isinstance(model, LocalModel):
        header = gguf_header.read(Path(model.path).expanduser())
        layers, width = header.of_model("block_count"), header.kv_width
    else:
        return
    if model.upscale is not None:
        layers = 2 * (layers - model.upscale.drop)
    item = 4 if settings.dtype == "float32" else 2
    needed = 2 * layers * width * item * settings.max_model_len / 2**30
    if needed > settings.kv_cache_gib:
        raise UserError(
            f"{settings.kv_cache_gib:g} GiB hold no request of {settings.max_model_len} tokens "
            f"to {name}, which takes {needed:.3g}",
            where="generations.kv_cache_gib",
            fix="raise it, or lower generations.max_model_len",
        )
