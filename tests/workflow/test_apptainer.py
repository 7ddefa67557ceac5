"""Rules in their images: the same bytes as on the host, and nothing of the host inside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.installed import Slurm, all_stages, install
from tests.micro import Workspace, content, output_of
from tests.workflow.test_slurm import through_slurm
from zpdbench import files
from zpdbench.images import build_image, names, unpacked, wheel
from zpdbench.images.facts import read_facts

pytestmark = pytest.mark.slow

# Host and image are two software environments to Snakemake; here what the host made is to stay.
KEEP = ["--rerun-triggers", "mtime", "params", "input", "code"]


def in_images(root: Path) -> list[str]:
    return ["--workflow-profile", str(root / "profiles/apptainer")]


def with_images(workspace: Workspace, root: Path) -> Workspace:
    """Use the project's built images."""
    workspace.overrides.append(f"images={{folder: {root}/.cache/images}}")
    return workspace


def drop_scores(workspace: Workspace) -> None:
    shutil.rmtree(workspace.results / "scores")
    shutil.rmtree(workspace.results / "figures")
    for table in workspace.results.glob("*.tsv"):
        table.unlink()
    # Verdicts are remembered by content; here they are to be made again.
    for part in (workspace.folder / ".cache/zpdbench").iterdir():
        if part.name not in ("cells", "training"):
            shutil.rmtree(part)


def test_scores_and_statistics_are_the_hosts_bytes(
    micro: Workspace, images: dict[str, Path], root: Path
) -> None:
    workspace = with_images(micro.copy("inside"), root)
    drop_scores(workspace)
    output = workspace.run("all", *in_images(root), *KEEP)
    assert "train_adapter" not in output.split("Job stats:")[1]
    assert content(workspace) == content(micro)
    place = workspace.results / "records/scores/mini-qwen/zpd/s0.parquet.json"
    record = json.loads(place.read_text("utf-8"))
    assert record["machine"]["image"] == images["score"].name
    (noted,) = (root / ".cache/images").glob(f"wheel-{wheel.source_digest(root)}/WHEEL.sha256")
    assert record["machine"]["wheel"] == noted.read_text("utf-8").split()[0]
    # Python 3.11.2 is Debian 12's: it was the image's that ran.
    assert record["machine"]["python"] == "3.11.2"


def test_a_verification_inside_finds_what_the_hosts_finds(
    micro: Workspace, images: dict[str, Path], root: Path
) -> None:
    """No false alarm in the other environment: levels 0 to 2 of a bundle that lies elsewhere."""
    author = with_images(micro.copy("author"), root)
    drop_scores(author)
    author.run("all", *in_images(root), *KEEP)
    author.run("make_crate", *in_images(root), *KEEP)
    (elsewhere := micro.folder.parent / "elsewhere").mkdir()
    bundle = shutil.move(author.results / "crate.zip", elsewhere / "crate.zip")
    with zipfile.ZipFile(bundle) as archive:
        named = json.loads(archive.read("bundle.json"))["images"]
    facts = {image.name: read_facts(image) for image in images.values()}
    assert {image["name"] for image in named} == {
        images[stage].name for stage in ("score", "stats")
    }
    for image in named:
        assert image["digests"] == {key: facts[image["name"]][key] for key in image["digests"]}
    found = {}
    for place, options in (("host", []), ("image", in_images(root))):
        reviewer = Workspace(micro.folder.parent / f"reviewer-{place}", root, micro.config)
        reviewer.folder.mkdir()
        with_images(reviewer, root).overrides += [f"bundle={bundle}", "level=2"]
        reviewer.run("verify", *options)
        lines = (reviewer.results / "verification.tsv").read_text("utf-8").splitlines()
        rows = [
            dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]
        ]
        # The reasons may name versions of this Python or that one.
        found[place] = [{k: v for k, v in row.items() if k != "why"} for row in rows]
    assert {row["level"] for row in found["host"]} == {"0", "1", "2"}
    assert "differs" not in {row["verdict"] for row in found["host"]}
    assert found["image"] == found["host"]


def test_a_broken_host_environment_changes_nothing(
    micro: Workspace, images: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    """A host whose polars, user packages and libraries are all broken on purpose."""
    for package in ("polars", "numpy", "zpdbench", "sitecustomize"):
        (tmp_path / f"{package}.py").write_text("raise RuntimeError('the host leaks in')\n")
    workspace = with_images(micro.copy("broken-host"), root)
    wanted = "results/scores/mini-qwen/zpd/s0.parquet"
    (workspace.folder / wanted).unlink()
    shutil.rmtree(workspace.folder / ".cache/zpdbench")
    # Inside the job's own shell, so that the Snakemake that starts it still works.
    program = tmp_path / "bin/apptainer"
    program.parent.mkdir()
    real = shutil.which("apptainer")
    program.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={tmp_path} PYTHONHOME=/nonexistent LD_PRELOAD=\n"
        f"export HOME=/nonexistent PYTHONSTARTUP={tmp_path}/polars.py OMP_NUM_THREADS=999\n"
        f'exec {real} "$@"\n'
    )
    program.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{program.parent}:{before}"
    try:
        workspace.run(wanted, *in_images(root), *KEEP, "--allowed-rules", "score_run")
    finally:
        os.environ["PATH"] = before
    assert files.sha256_file(workspace.folder / wanted) == files.sha256_file(micro.folder / wanted)


def test_a_read_only_project_and_no_network(
    micro: Workspace, images: dict[str, Path], root: Path
) -> None:
    """Only results, .snakemake and .cache can be written; no network but the loopback."""
    if os.geteuid() != 0:
        pytest.skip("mounting a folder read-only needs root")
    workspace = with_images(micro.copy("read-only"), root)
    drop_scores(workspace)
    here = workspace.folder
    mounts = [f"mount --bind {here} {here}"]
    mounts += [f"mount --bind {here}/{part} {here}/{part}" for part in ("results", ".cache")]
    mounts += [f"mkdir -p {here}/.snakemake", f"mount --bind {here}/.snakemake {here}/.snakemake"]
    mounts += [f"mount -o remount,bind,ro {here}", "ip link set lo up 2>/dev/null || true"]
    command = " ".join(f"'{part}'" for part in workspace.command("all", *in_images(root), *KEEP))
    check = f"! touch {here}/x 2>/dev/null"
    done = subprocess.run(
        ["unshare", "--mount", "--net", "bash", "-c", " && ".join([*mounts, check, command])],
        cwd=root,
        env={**os.environ, "ZPDBENCH_CACHE": f"{here}/.cache/zpdbench"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert content(workspace) == content(micro)


@pytest.mark.parametrize("form", ["sif", "unpacked"])
def test_as_an_ordinary_user(
    micro: Workspace, images: dict[str, Path], tmp_path: Path, root: Path, form: str
) -> None:
    """A run's scores, model-written programs and all, by a user who is not root: the same bytes."""
    if os.geteuid() != 0:
        pytest.skip("this test run is an ordinary user's already: the others show it")
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    place, image, home = (tmp_path / name for name in ("wheel", "score.sif", "home"))
    shutil.copytree(wheel.unpacked(root, root / ".cache/images"), place)
    shutil.copy(images["score"], image)
    shutil.copytree(micro.results / "generations", home / "generations")
    shutil.copytree(micro.results / "items", home / "items")
    shutil.copy(micro.results / "study.lock.yaml", home)
    for path in (home, *home.rglob("*")):
        shutil.chown(path, "nobody")
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if form == "unpacked":
        packed, image = image, home / "root"
        subprocess.run([*user, *unpacked.command(packed, image)], check=True)
    elif subprocess.run([*user, "test", "-r", "/dev/fuse"], check=False).returncode:
        pytest.skip("only root may use /dev/fuse on this machine; the unpacked form needs none")
    program = str(shutil.which("apptainer"))
    if subprocess.run([*user, program, "--version"], capture_output=True, check=False).returncode:
        # Below a folder of root's own; it knows its place, so it is installed again and not copied.
        prefix = tmp_path / "apptainer"
        subprocess.run([str(root / "containers/install-apptainer.sh"), str(prefix)], check=True)
        program = f"{prefix}/usr/bin/apptainer"
    inside = ["exec", "--userns", "--containall", "--bind", f"{place}:/opt/zpdbench:ro"]
    inside += ["--bind", str(home), "--pwd", str(home), str(image)]
    verb = ["zpdbench", "score-run", "--study", "study.lock.yaml", "--out", "s0.parquet"]
    verb += ["--model", "mini-qwen", "--condition", "zpd", "--seed", "0"]
    verb += ["--generations", "generations/mini-qwen/all.parquet"]
    verb += ["--items", *(f"items/{p.name}" for p in sorted((home / "items").glob("*.parquet")))]
    done = subprocess.run(
        [*user, program, *inside, *verb],
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = home / "s0.parquet"
    assert made.stat().st_uid == 65534
    expected = micro.results / "scores/mini-qwen/zpd/s0.parquet"
    assert files.sha256_file(made) == files.sha256_file(expected)


def test_a_missing_image_is_told_before_the_first_job(
    apptainer: str, root: Path, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path, root, root / "config/micro.yaml")
    workspace.overrides.append(f"images={{folder: {tmp_path}/nowhere}}")
    process = workspace.start("all", *in_images(root))
    output = output_of(process)
    assert process.returncode == 1
    (line,) = [line for line in output.splitlines() if "there is no such image" in line]
    assert "snakemake --cores all images" in line
    assert not list(workspace.results.glob("items/*"))


def test_a_truncated_image_is_told(micro: Workspace, images: dict[str, Path], root: Path) -> None:
    workspace = micro.copy("truncated")
    folder = workspace.folder / "images"
    folder.mkdir()
    for image in images.values():
        (folder / image.name).write_bytes(image.read_bytes()[:100_000])
    workspace.overrides.append("images={folder: images}")
    drop_scores(workspace)
    process = workspace.start("all", *in_images(root), *KEEP)
    output = output_of(process)
    assert process.returncode == 1
    assert "is truncated: 100000 of" in output


def test_images_are_small_and_the_same_twice(
    images: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    for stage in ("score", "stats"):
        for kind in (".sif", ".oci.tar"):
            built = images[stage].with_name(images[stage].stem + kind)
            assert built.stat().st_size < 250e6, built
    shutil.copytree(root / ".cache/images/debs", tmp_path / "debs")
    for stage in ("score", "stats"):
        name = names.image_name(root, stage)
        again = build_image.build_image(root, stage, "cpu", tmp_path / f"{name}.sif")
        facts = read_facts(images[stage])
        assert {k: again[k] for k in facts} == facts
        for kind in (".sif", ".oci.tar", ".cdx.json"):
            first, second = (f / f"{name}{kind}" for f in (images[stage].parent, tmp_path))
            assert files.sha256_file(first) == files.sha256_file(second)


def test_h3a_by_podman(
    micro: Workspace, images: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    """`make docker-h3a` with its own defaults, where a checkout holds the micro grid's results."""
    if shutil.which("podman") is None or shutil.which("runc") is None:
        install("apptainer", "podman", "runc")
    here = tmp_path / "checkout"
    parts = ("Makefile", "Snakefile", "rules", "config", "captions", "envs", "containers", "src")
    here.mkdir()
    for name in parts:
        copy = shutil.copytree if (root / name).is_dir() else shutil.copy
        copy(root / name, here / name)
    shutil.copytree(micro.results, here / "results")
    (here / ".venv").symlink_to(sys.prefix)
    (here / ".cache").mkdir()
    (here / ".cache/images").symlink_to(images["stats"].parent)
    done = subprocess.run(
        # The environment is there, whatever its time stamp says.
        ["make", "--old-file=.venv/installed", "docker-h3a", "CONFIG=config/micro.yaml"],
        cwd=here,
        env={
            **os.environ,
            "DOCKER": "podman --runtime runc --cgroup-manager cgroupfs",
            # Podman's own defaults may be above what this machine allows.
            "DOCKER_RUN": "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (here / "h3a.tsv").read_bytes() == (micro.results / "h3a.tsv").read_bytes()


def test_the_whole_grid_in_all_four_images(
    micro: Workspace, images: dict[str, Path], root: Path
) -> None:
    """Byte-identical, and no more than a tenth slower than the host."""
    if not all_stages():
        pytest.skip("train and serve take long to build: make test-images runs this")
    seconds = {"host": 0.0, "image": 0.0}
    for turn in range(2):
        for where in seconds:
            workspace = Workspace(micro.folder.parent / f"{where}{turn}", root, micro.config)
            workspace.folder.mkdir()
            start = time.monotonic()
            if where == "image":
                with_images(workspace, root).run("all", *in_images(root))
            else:
                workspace.run("all")
            seconds[where] += time.monotonic() - start
            assert content(workspace) == content(micro)
            shutil.rmtree(workspace.folder)
    print(f"two runs each: {seconds}", file=sys.stderr)
    assert seconds["image"] <= 1.1 * seconds["host"]


def test_slurm_and_images_together(
    slurm: Slurm, micro: Workspace, images: dict[str, Path], root: Path
) -> None:
    """From an empty folder where all four images are there, else what score and stats make."""
    together = ["--profile", str(root / "profiles/apptainer"), *through_slurm(root)]
    if all_stages():
        workspace = Workspace(micro.folder.parent / "slurm-images", root, micro.config)
        workspace.folder.mkdir()
        with_images(workspace, root).run("all", *together)
        for stage, rule in (("train", "train_adapter"), ("serve", "generate_chunk")):
            records = [json.loads(p.read_text("utf-8")) for p in _records(workspace)]
            used = {r["machine"]["image"] for r in records if r["rule"] == rule}
            assert used == {images[stage].name}
    else:
        workspace = with_images(micro.copy("slurm-images"), root)
        drop_scores(workspace)
        workspace.run("all", *together, *KEEP)
    assert content(workspace) == content(micro)


def _records(workspace: Workspace) -> list[Path]:
    return sorted((workspace.results / "records").rglob("*.json"))
