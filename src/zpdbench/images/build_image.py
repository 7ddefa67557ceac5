"""`zpdbench build-image`: one stage's image as SIF and OCI, from one root file system."""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import tempfile
import time
from pathlib import Path

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.images import debian, names, oci, sbom, sif, wheels

# Manuals and translations are no use in a job; licences stay.
_DPKG = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)


def build_image(root: Path, stage: str, flavour: names.Flavour, out: Path) -> dict[str, object]:
    """Build one image into `out`'s folder: NAME.sif, NAME.oci.tar, NAME.cdx.json, NAME.json.

    Args:
        root: the project's folder, with containers/ and envs/.
        out: the SIF file to write; the others stand beside it.

    Returns:
        What NAME.json says: digests and sizes (bytes) of what was made.

    Raises:
        UserError: a tool or package is missing, a hash is wrong, the disk is full.
    """
    name = names.image_name(root, stage, flavour)
    if out.name != f"{name}.sif":
        raise UserError(f"what goes into {stage} makes it {name}", where=str(out), fix=sif.BUILD)
    folder = out.parent
    folder.mkdir(parents=True, exist_ok=True)
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as work_name:
        work = Path(work_name)
        # mmdebstrap as an ordinary user reads this from inside a user namespace.
        work.chmod(0o755)
        with _Timed(times, "debian packages"):
            locked = names.debian_packages(root, stage)
            debs = debian.fetch(locked, folder / "debs", folder / "apt")
            (work / "repository").mkdir()
            debian.write_repository(debs, work / "repository")
        with _Timed(times, "python packages"):
            (work / "site").mkdir()
            lock = names.python_lock(root, stage, flavour)
            exceptions = names.read_exceptions(root / "containers/exceptions.txt", flavour)
            installed = wheels.install(lock, exceptions, work / "site", flavour)
        bill = sbom.bill_of_materials(name, locked, installed)
        files.write_text(work / "site" / f"zpdbench-{stage}.cdx.json", bill)
        with _Timed(times, "root file system"):
            _make_rootfs(root, [p.name for p in locked], work)
        with _Timed(times, "squashfs"):
            _make_squashfs(work)
        with _Timed(times, "sif and oci"):
            sif.write_sif(work / "rootfs.sqfs", work / "image.sif")
            labels = {
                "org.opencontainers.image.title": f"ZPD-Bench, stage {stage}",
                "org.opencontainers.image.version": name,
                "org.opencontainers.image.licenses": "see zpdbench-*.cdx.json and "
                "/usr/share/doc/*/copyright",
            }
            manifest = oci.write_oci(
                work / "rootfs.tar",
                work / "image.oci.tar",
                name=f"zpdbench/{stage}",
                tag=name.removeprefix(f"{stage}-"),
                labels=labels,
                epoch=names.SOURCE_DATE_EPOCH,
            )
        facts: dict[str, object] = {
            "name": name,
            "stage": stage,
            "flavour": flavour,
            "rootfs_sha256": files.sha256_file(work / "rootfs.tar"),
            "rootfs_bytes": (work / "rootfs.tar").stat().st_size,
            "sif_sha256": files.sha256_file(work / "image.sif"),
            "sif_bytes": (work / "image.sif").stat().st_size,
            "oci_manifest": manifest,
            "oci_bytes": (work / "image.oci.tar").stat().st_size,
            "debian_packages": len(locked),
            "python_packages": len(installed),
        }
        (work / "image.oci.tar").replace(folder / f"{name}.oci.tar")
        files.write_text(folder / f"{name}.cdx.json", bill)
        _write_json(folder / f"{name}.json", facts)
        _write_json(folder / f"{name}.timing.json", times)
        # Last: who finds the SIF finds all of them.
        (work / "image.sif").replace(out)
    return facts


def _make_rootfs(root: Path, packages: list[str], work: Path) -> None:
    here = root.resolve() / "containers"
    hook = f'{here}/rootfs.sh "$1" {work.resolve()}/site {here}'
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(names.SOURCE_DATE_EPOCH)}
    debian.run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=essential",
            "--architectures=amd64",
            "--skip=output/dev",
            f"--include={','.join(packages)}",
            *(f"--dpkgopt={option}" for option in _DPKG),
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            f"--customize-hook={hook}",
            "bookworm",
            str(work / "rootfs.tar"),
            f"deb [trusted=yes] copy:{work.resolve()}/repository bookworm main",
        ],
        env=environment,
        fix="needs root, or user namespaces and lines for you in /etc/subuid and /etc/subgid",
    )
    # Without device nodes, which an ordinary user cannot make; but what runs it mounts them here.
    with tarfile.open(work / "rootfs.tar", "a") as archive:
        folder = tarfile.TarInfo("./dev")
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, names.SOURCE_DATE_EPOCH
        archive.addfile(folder)


def _make_squashfs(work: Path) -> None:
    # Level 6: a tenth larger than 15, the default, and made in a tenth of the time.
    command = (
        f"mksquashfs - {work}/rootfs.sqfs -tar -quiet -no-progress -no-xattrs -root-mode 755"
        f" -comp zstd -Xcompression-level 6 -b 256K < {work}/rootfs.tar"
    )
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(names.SOURCE_DATE_EPOCH)}
    debian.run(["sh", "-c", command], env=environment, fix="apt-get install squashfs-tools")


class _Timed:
    """Notes the seconds that a step took."""

    def __init__(self, times: dict[str, float], step: str) -> None:
        self._times, self._step = times, step

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._times[self._step] = round(time.monotonic() - self._start, 1)
        print(f"{self._step}: {self._times[self._step]} s", flush=True)


def _write_json(path: Path, value: object) -> None:
    files.write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def main(args: argparse.Namespace) -> None:
    """Build one image and say what came out."""
    try:
        project = Path(args.project) if args.project else Path(__file__).parents[3]
        facts = build_image(project, args.stage, args.flavour, Path(args.out))
    except OSError as error:
        full = files.is_full(error)
        raise UserError(
            f"{error.strerror or error}",
            where=str(error.filename or args.out),
            fix=debian.FREE if full else "see who may write there",
        ) from error
    for key, value in facts.items():
        print(f"{key}: {value}")
