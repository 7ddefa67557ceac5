"""The sandbox inside the score image, where Apptainer and the image are there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
from zpdbench.sandbox import Pool, layers
from tests.sandbox.hostile import HOSTILE
from tests.sandbox.test_red_team import GOOD, LIMITS
assert [f for f in layers() if not f[1]] == [], layers()
quick = [h for h in HOSTILE if "timeout" not in h.expected]
values = dict(FOLDER="/opt", SECRET_FILE="/etc/hostname", SECRET_VALUE="zz", PORT=9, ABSTRACT="a")
with Pool(workers=1, limits=LIMITS) as pool:
    verdicts = pool.judge([*(h.program(**values) for h in quick), GOOD])
assert verdicts.pop().passed
assert not [v for v in verdicts if v.passed], [v for v in verdicts if v.passed]
print("held", len(verdicts))
"""


def score_image() -> Path | None:
    """The newest score image: ZPDBENCH_SCORE_IMAGE, else in the folder where images are built."""
    if named := os.environ.get("ZPDBENCH_SCORE_IMAGE"):
        return Path(named)
    built = sorted((ROOT / ".cache" / "images").glob("score-*.sif"), key=os.path.getmtime)
    return built[-1] if built else None


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("apptainer") is None or score_image() is None,
    reason="no apptainer or no score image here",
)
def test_layers_and_red_team_inside_the_score_image() -> None:
    binds = f"{ROOT}/src:/project/src,{ROOT}/tests:/project/tests"
    import pytest as installed

    packages = Path(installed.__file__).parent.parent
    command = ["apptainer", "exec", "--userns", "--containall", "--bind", binds]
    command += ["--bind", f"{packages}:/packages"]
    command += ["--env", "PYTHONPATH=/project/src:/project:/packages", str(score_image())]
    result = subprocess.run(
        [*command, "python3", "-c", CODE], capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.startswith("held ")
