"""What a reviewer's machine makes of a bundle's runs before it asks them again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from zpdbench import files, grid
from zpdbench import study as studies
from zpdbench.artifacts import rerun

RUN = grid.Run("m", "zpd", 0)


@pytest.mark.parametrize("traces", [True, False])
def test_a_run_of_all_weights_gets_the_base_s_tokenizer(tmp_path: Path, traces: bool) -> None:
    base, run = tmp_path / "bundle/checkpoints/m", tmp_path / "bundle/adapters/m/zpd/s0"
    for folder in (base, run / "step8"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(str(folder))
        (folder / "model.safetensors").write_text(str(folder))
    (base / "tokenizer.json").write_text("tokens")
    files.write_manifest(base, {})
    files.write_manifest(run, {"base": "b" * 64})
    bundle: Any = SimpleNamespace(
        study=SimpleNamespace(
            training=SimpleNamespace(method="full", steps=8),
            models={"m": studies.EmbeddedModel.model_construct()},
        ),
        included=SimpleNamespace(traces=traces, checkpoints=["m"]),
        path=lambda name: tmp_path / "bundle" / name,
    )
    workshop: Any = SimpleNamespace(path=lambda name: tmp_path / "workshop" / name)
    made = rerun.adapter(cast("Any", bundle), workshop, RUN)
    assert made == tmp_path / "workshop/adapters/m/zpd/s0"
    assert files.check_manifest(made)["base"] == "b" * 64
    assert (made / "step8/tokenizer.json").read_text() == "tokens"
    assert (made / "step8/config.json").read_text() == str(run / "step8")
    assert not (run / "step8/tokenizer.json").exists(), "the bundle itself stays as it is"
