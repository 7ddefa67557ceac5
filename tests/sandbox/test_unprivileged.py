"""The same tests as another user: root starts them as `nobody`, who has an interpreter to use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")


def readable_by_all(path: Path) -> bool:
    """Whether any user can reach and read `path`."""
    parents = all(p.stat().st_mode & 0o001 for p in path.parents)
    return parents and bool(path.stat().st_mode & 0o004)


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """A folder that any user can reach (pytest's own are closed to others again and again)."""
    with tempfile.TemporaryDirectory(prefix="as-nobody-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def interpreter(public: Path) -> Path:
    """An interpreter that nobody may run: this one's base, copied where it lies in root's home."""
    executable = Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]
    if readable_by_all(executable):
        return executable
    target = public / "python"
    target.mkdir(mode=0o755)
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix}))
    (target / "bin").mkdir()
    shutil.copy2(executable, target / "bin" / executable.name)
    leave = shutil.ignore_patterns("site-packages", "test", "__pycache__", "idlelib", "config-*")
    shutil.copytree(library, target / "lib" / library.name, ignore=leave)
    for shared in Path(sys.base_prefix, "lib").glob("libpython*.so*"):
        shutil.copy2(shared, target / "lib" / shared.name)
    return target / "bin" / executable.name


def run_as_nobody(
    interpreter: Path, arguments: list[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run this repository's Python with `arguments` as user nobody."""
    paths = [str(ROOT), str(ROOT / "src"), *(p for p in sys.path if p.endswith("-packages"))]
    environment = {
        "HOME": "/nonexistent",
        "LD_LIBRARY_PATH": str(interpreter.parent.parent / "lib"),
        "PATH": os.defpath,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "TMPDIR": str(folder),
    }
    if "ZPDBENCH_DATA" in os.environ:
        environment["ZPDBENCH_DATA"] = os.environ["ZPDBENCH_DATA"]
    return subprocess.run(
        [str(interpreter), *arguments],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )


@pytest.fixture
def scratch(public: Path) -> Path:
    """A folder of nobody's own."""
    folder = public / "nobody"
    folder.mkdir(exist_ok=True)
    os.chown(folder, NOBODY, NOBODY)
    return folder


@root_only
def test_all_layers_stand_for_nobody(interpreter: Path, scratch: Path) -> None:
    code = (
        "import os; from zpdbench.sandbox import layers; assert os.getuid() == 65534; "
        "print([f for f in layers() if not f[1]])"
    )
    result = run_as_nobody(interpreter, ["-c", code], scratch)
    assert result.stdout.strip() == "[]", result


@root_only
@pytest.mark.slow
def test_verdicts_and_red_team_hold_for_nobody(interpreter: Path, scratch: Path) -> None:
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={scratch}/pytest"]
    names = ("verdicts", "red_team", "root", "codec", "seccomp")
    arguments += ["-m", "not slow", *(f"tests/sandbox/test_{name}.py" for name in names)]
    result = run_as_nobody(interpreter, arguments, scratch)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    passed = int(result.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed > 350
