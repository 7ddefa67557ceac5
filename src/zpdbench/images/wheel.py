"""The project's own wheel, unpacked: what is bound into an image, so that a commit changes none."""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.images.names import SOURCE_DATE_EPOCH

_PARTS = ("pyproject.toml", "README.md", "LICENSE")


def source_digest(root: Path) -> str:
    """Digest (16 hex digits) of all that the wheel is made of."""
    package = root / "src/zpdbench"
    sources = {
        str(p.relative_to(package)): files.sha256_file(p)
        for p in sorted(package.rglob("*"))
        if p.is_file() and p.suffix != ".pyc"
    }
    parts = {n: files.sha256_file(root / n) for n in _PARTS if (root / n).is_file()}
    return files.digest([sources, parts])[:16]


def unpacked(root: Path, cache: Path) -> Path:
    """Folder `cache`/wheel-DIGEST with the wheel, unpacked and compiled, made if it is missing.

    Beside `zpdbench/` it holds the wheel itself and `WHEEL.sha256`, its digest.

    Raises:
        UserError: the wheel cannot be built.
    """
    target = cache / f"wheel-{source_digest(root)}"
    if (target / "WHEEL.sha256").is_file():
        return target
    with files.atomic_directory(target.with_name(f".{target.name}.{os.getpid()}")) as fresh:
        wheel = _build(root, fresh)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(fresh)
        # Bound read-only, so what is not compiled here is compiled again by every job.
        compileall.compile_dir(
            fresh / "zpdbench",
            quiet=2,
            stripdir=str(fresh),
            prependdir="/opt/zpdbench",
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        digest = files.sha256_file(wheel)
        files.write_text(fresh / "WHEEL.sha256", f"{digest}  {wheel.name}\n")
        made = fresh
    made = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        made.rename(target)
    except OSError:  # Another run was faster; its jobs may be using it already.
        shutil.rmtree(made)
    return target


def _build(root: Path, folder: Path) -> Path:
    """Build the wheel from a copy: setuptools writes beside the sources."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        shutil.copytree(
            root / "src/zpdbench",
            copy / "src/zpdbench",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        for part in _PARTS:
            if (root / part).is_file():
                shutil.copy(root / part, copy)
        code = (
            "import sys; from setuptools import build_meta;"
            "print(build_meta.build_wheel(sys.argv[1]), file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder.resolve())],
            cwd=copy,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH), "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
    wheels = list(folder.glob("zpdbench-*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise UserError(f"the project's wheel cannot be built: {reason}", fix="make venv")
    return wheels[0]
