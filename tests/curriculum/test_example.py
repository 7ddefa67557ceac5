"""The example package with an order of its own, installed as a stranger would install it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

CODE = """
import sys
from tests.curriculum.test_conditions import Model, run, told
from zpdbench import study
from zpdbench.curriculum import registry

assert "spaced" in registry.names()
registry.check(study.load(sys.argv[1]))
condition = registry.make("mine", "spaced", {"update_every": 15}, told(n=700, steps=60))
rows, blocks = run(condition, Model(700))
assert len(blocks) == 4 and len(rows) == 240
assert set(rows.tolist()) <= set(condition.told.distinct.tolist())
again, _ = run(
    registry.make("mine", "spaced", {"update_every": 15}, told(n=700, steps=60)), Model(700)
)
assert (rows == again).all()
"""


def test_the_example_is_a_condition_like_any_other(root: Path, tmp_path: Path) -> None:
    # A copy: building leaves traces in a package's folder.
    shutil.copytree(root / "examples/spaced", tmp_path / "spaced")
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-build-isolation", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *alone, str(tmp_path / "spaced")], check=True, capture_output=True)
    config = yaml.safe_load((root / "config/micro.yaml").read_text("utf-8"))
    config["conditions"]["mine"] = {"order": "spaced", "options": {"update_every": 2}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config), "utf-8")
    path = os.pathsep.join([str(target), str(root / "src"), str(root)])
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "study.yaml")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
