"""What a job records of itself: its command, settings, inputs, outputs and the machine it ran on.

The command line writes one record a job beside the results, when the verb has succeeded and before
Snakemake sees the job's end. A bundle holds these records; nothing about a job is guessed later.
No record names a folder of this machine, a user or a time.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

from zpdbench import arithmetic, files, grid
from zpdbench.errors import UserError
from zpdbench.images.facts import read_facts
from zpdbench.study import Study, load, parse

WILDCARDS = ("model", "condition", "seed", "chunk", "benchmark", "corpus")
_RESULTS = "results"
_PLACEHOLDER_URL = "http://localhost/v1"
_MODULES = (
    "numpy", "polars", "torch", "transformers", "peft", "vllm", "tokenizers", "safetensors",
    "scipy", "statsmodels", "matplotlib", "kiwipiepy", "textstat",
)  # fmt: skip
_IMAGE_DIGESTS = ("sif_sha256", "rootfs_sha256", "oci_manifest")
_CPU_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile")


def portable(study: Study) -> Study:
    """The study as it may leave this machine: no absolute path, no server's address.

    The results folder becomes `results`, data_dir none, any other absolute path its last part.
    """
    value = _strip(study.model_dump(mode="json"))
    value["results"], value["data_dir"] = _RESULTS, None
    url = value["generations"]["base_url"]
    if isinstance(url, dict):
        value["generations"]["base_url"] = {m: _PLACEHOLDER_URL + f"/{m}" for m in url}
    elif url:
        value["generations"]["base_url"] = _PLACEHOLDER_URL
    return parse(value)


def _strip(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _strip(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_strip(v) for v in value]
    if isinstance(value, str) and is_outside(value):
        return PureWindowsPath(value).name or "outside"
    return value


def is_outside(text: str) -> bool:
    """Whether a string is a path that leads out of the folder that it is relative to."""
    return (
        text.startswith(("/", "~", "\\\\", "file:"))
        or PureWindowsPath(text).is_absolute()
        or ".." in PurePosixPath(text).parts
    )


def rule_of(verb: str) -> str:
    """The rule that calls a verb."""
    return verb.replace("-", "_")


def settings(study: Study, verb: str, wildcards: Mapping[str, Any]) -> str | None:
    """Digest (hex) of the keys that a job's output depends on, of the portable study."""
    try:
        return portable(study).digest(rule_of(verb), SimpleNamespace(**wildcards))
    except KeyError:
        return None


def identify(path: str | Path) -> str:
    """What a file or folder holds: a file's SHA-256, a folder's digest as in its manifest."""
    path = Path(path)
    if path.is_file():
        return files.sha256_file(path)
    if (path / "MANIFEST.json").is_file():
        return str(files.read_manifest(path)["digest"])
    return files.digest(files.hash_tree(path))


def write(verb: str, arguments: Mapping[str, Any], argv: Sequence[str]) -> Path | None:
    """Record a job of the workflow, beside its results.

    Args:
        verb: the verb that succeeded.
        arguments: its parsed arguments.
        argv: its command line as given.

    Returns:
        The record's file; None if this was no job of a workflow (no study.lock.yaml was given).
    """
    lock = _lock_of(arguments)
    if lock is None:
        return None
    study = load(lock)
    root = lock.parent
    outputs = [
        Path(value)
        for name, values in arguments.items()
        if name == "out" or name.startswith("out_")
        for value in _listed(values)
    ]
    if not outputs or not all(_inside(p, root) for p in outputs):
        return None
    # A verb's --corpus may be a file, a rule's wildcard is a name.
    wildcards = {
        w: arguments[w]
        for w in WILDCARDS
        if arguments.get(w) is not None and re.fullmatch(grid.NAME, str(arguments[w]))
    }
    if verb != "make-corpus":
        wildcards.pop("corpus", None)
    inputs: dict[str, str] = {}
    for values in arguments.values():
        for value in _listed(values):
            path = Path(value)
            # Everything below the results folder that was named and is no output was an input.
            if path in (*outputs, lock) or not path.exists() or not _inside(path, root):
                continue
            if path.resolve() != root.resolve():
                inputs[_name(path, root)] = identify(path)
    record = {
        "rule": rule_of(verb),
        "wildcards": {k: str(v) for k, v in sorted(wildcards.items())},
        "command": ["zpdbench", *(_word(w, root) for w in argv)],
        "settings": settings(study, verb, wildcards),
        "inputs": dict(sorted(inputs.items())),
        "outputs": {_name(p, root): identify(p) for p in outputs if p.exists()},
        "code": code_digest(),
        "machine": machine(),
    }
    target = Path(grid.Paths(str(root)).record(_name(outputs[0], root)))
    files.write_text(
        target, json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    )
    return target


def _lock_of(arguments: Mapping[str, Any]) -> Path | None:
    given = _listed(arguments.get("study")) or _listed(arguments.get("configfile"))
    lock = grid.Paths("x").study_lock.rsplit("/", 1)[1]
    if len(given) == 1 and Path(given[0]).name == lock and Path(given[0]).is_file():
        return Path(given[0])
    return None


def _listed(value: Any) -> list[str]:
    if value is None or isinstance(value, bool | int):
        return []
    return [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _name(path: Path, root: Path) -> str:
    if _inside(path, root):
        return path.resolve().relative_to(root.resolve()).as_posix()
    return f"outside/{path.name}"


def _word(word: str, root: Path) -> str:
    if "/" in word or word.endswith((".yaml", ".parquet", ".tsv")):
        return _name(Path(word), root)
    return word


def code_digest() -> str:
    """Digest (hex) of this package's own files, whatever folder or archive they came from."""
    return files.digest(code_files(Path(__file__).parent))


def code_files(package: str | Path) -> dict[str, str]:
    """Relative path -> SHA-256 of a package folder's sources; what Python compiled is left out."""
    package = Path(package)
    found = (p for p in package.rglob("*") if p.is_file())
    return {
        p.relative_to(package).as_posix(): files.sha256_file(p)
        for p in sorted(found)
        if "__pycache__" not in p.parts and p.suffix != ".pyc"
    }


def machine() -> dict[str, Any]:
    """Facts that may change a result's last bits: processor, threads, versions, image."""
    cpu = arithmetic.processor()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    image = os.environ.get("APPTAINER_CONTAINER", "")
    torch = sys.modules.get("torch")
    # Inside an image the project is its wheel, unpacked, with the wheel's digest beside it.
    wheel = Path(__file__).parents[1] / "WHEEL.sha256"
    gpus: list[str] = []
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    versions = {
        name: str(getattr(sys.modules[name], "__version__", "unknown"))
        for name in _MODULES
        if name in sys.modules
    }
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu": cpu.model,
        "cpu_flags": [f for f in _CPU_FLAGS if f in cpu.flags],
        "portable_class": arithmetic.portable_class(),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": int(threads) if threads.isdigit() else None,
        "gpus": gpus,
        "image": Path(image).name or None,
        "image_digests": _image_digests(Path(image)) if image else None,
        "wheel": wheel.read_text("utf-8").split()[0] if wheel.is_file() else None,
        "packages": versions,
    }


def _image_digests(image: Path) -> dict[str, str] | None:
    """What was recorded beside an image when it was built; None if nothing was."""
    facts = read_facts(image)
    if not facts.keys() >= set(_IMAGE_DIGESTS):
        return None
    return {name: str(facts[name]) for name in _IMAGE_DIGESTS}


def read(path: Path) -> dict[str, Any]:
    """A job's record.

    Raises:
        UserError: missing or not of the form that `write` gives.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        if not isinstance(record["outputs"], dict) or not isinstance(record["inputs"], dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            "no record of this job",
            where=str(path),
            fix="delete the output it belongs to and run the workflow again",
        ) from error
    return record
