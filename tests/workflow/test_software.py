"""Another image re-runs what ran in it and what follows, the same image touched re-runs nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.micro import Workspace
from tests.workflow.test_dag import job_counts
from zpdbench.images import names, sif

pytestmark = pytest.mark.slow

STATISTICS = {
    "aggregate_scores", "h3a", "h3a_sensitivity", "calibration", "rq1", "h3b", "r1", "power",
    "efficiency", "expected", "draw_figures", "report",
}  # fmt: skip
DOWNSTREAM = {
    "stats": {*STATISTICS, "draw_training"},
    "score": {"score_run", *STATISTICS},
    "serve": {"generate_chunk", "score_run", *STATISTICS},
    "train": {
        "make_checkpoint", "make_items", "make_corpus", "train_adapter", "generate_chunk",
        "score_run", "draw_training", *STATISTICS,
    },
}  # fmt: skip


def with_images(workspace: Workspace, version: dict[str, str]) -> Workspace:
    chosen = {stage: f"images/{stage}-{version.get(stage, 'a')}.sif" for stage in names.STAGES}
    return Workspace(
        workspace.folder,
        workspace.root,
        workspace.config,
        [*workspace.overrides, f"images={json.dumps(chosen)}"],
    )


@pytest.fixture(scope="module")
def finished(micro: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The finished micro grid, on record as made in images; of Apptainer only the name is here."""
    workspace = micro.copy("software")
    folder = workspace.folder / "images"
    folder.mkdir()
    (workspace.folder / "empty").write_bytes(b"hsqs" + bytes(4096))
    for stage in names.STAGES:
        for version in ("a", "b"):
            image = folder / f"{stage}-{version}.sif"
            sif.write_sif(workspace.folder / "empty", image)
    program = tmp_path_factory.mktemp("bin") / "apptainer"
    program.write_text("#!/bin/sh\necho apptainer version 1.4.5\n")
    program.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{program.parent}:{before}"
    try:
        with_images(workspace, {}).run("all", "--sdm", "apptainer", "--touch", "--forceall")
        yield workspace
    finally:
        os.environ["PATH"] = before


def to_run(workspace: Workspace) -> set[str]:
    output = workspace.run("all", "--sdm", "apptainer", "--dry-run")
    if "Nothing to be done" in output:
        return set()
    return set(job_counts(output)) - {"total", "all"}


def test_a_touched_image_re_runs_nothing(finished: Workspace) -> None:
    assert to_run(with_images(finished, {})) == set()
    for image in (finished.folder / "images").glob("*-a.sif"):
        os.utime(image)
    assert to_run(with_images(finished, {})) == set()


@pytest.mark.parametrize("stage", sorted(DOWNSTREAM))
def test_another_image_re_runs_what_depends_on_it(finished: Workspace, stage: str) -> None:
    assert to_run(with_images(finished, {stage: "b"})) == DOWNSTREAM[stage]
