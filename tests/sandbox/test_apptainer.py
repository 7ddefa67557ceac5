"""The sandbox inside the score image: all layers hold there, and what is hostile does not pass."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CODE = """
from zpdbench.sandbox import Pool, layers
from tests.sandbox.hostile import HOSTILE
from tests.sandbox.test_red_team import GOOD, LIMITS
assert [f for f in layers() if not f[1]] == [], layers()
quick = [h for h in HOSTILE if "timeout" not in h.expected]
values = dict(FOLDER="/opt", SECRET_FILE="/etc/hostname", SECRET_VALUE="zz", PORT=9, ABSTRACT="a")
values["PACKAGE"] = "/project/src/zpdbench"
with Pool(workers=1, limits=LIMITS) as pool:
    verdicts = pool.judge([*(h.program(**values) for h in quick), GOOD])
assert verdicts.pop().passed
assert not [v for v in verdicts if v.passed], [v for v in verdicts if v.passed]
print("held", len(verdicts))
"""


@pytest.mark.slow
def test_layers_and_red_team_inside_the_score_image(images: dict[str, Path], root: Path) -> None:
    image = os.environ.get("ZPDBENCH_SCORE_IMAGE") or str(images["score"])
    binds = f"{root}/src:/project/src,{root}/tests:/project/tests"
    packages = Path(pytest.__file__).parent.parent
    command = ["apptainer", "exec", "--userns", "--containall", "--bind", binds]
    command += ["--bind", f"{packages}:/packages"]
    command += ["--env", "PYTHONPATH=/project/src:/project:/packages", image]
    result = subprocess.run(
        [*command, "python3", "-c", CODE], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.startswith("held ")
