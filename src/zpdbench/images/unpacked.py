"""Images unpacked on this machine, so that what a job loads comes from a disk.

Out of a SIF every file goes through squashfuse, anew for each job: `import torch` took 4 s out of
one, 2 s from the same files unpacked. So a run on one machine unpacks each image that it needs,
once, beside the images. Where many nodes share a file system one large file is better, and stays.

    FOLDER/unpacked/SHA256/NAME.sif/    the root file system
    FOLDER/unpacked/SHA256/NAME.json    what was recorded when the image was built
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from zpdbench import files
from zpdbench.images import sif
from zpdbench.images.facts import facts_file, read_facts

VARIABLE = "ZPDBENCH_UNPACKED"
"""Set by a run for its jobs on the same machine: what is unpacked is used."""
FOLDER, PROGRAM = "unpacked", "unsquashfs"
_KEY = 16


def place(image: Path) -> Path | None:
    """Where an image's root file system would be; None of an image of which nothing is recorded."""
    digest = read_facts(image).get("sif_sha256")
    if not isinstance(digest, str):
        return None
    return image.parent / FOLDER / digest[:_KEY] / image.name


def unpack(image: Path) -> None:
    """Unpack a checked image unless it is already.

    For speed alone: what stands in the way (no unsquashfs, a full disk) is said and not raised.
    """
    target = place(image)
    if target is None or target.is_dir():
        return
    if shutil.which(PROGRAM) is None:
        _say_without(image, f"there is no {PROGRAM} (package squashfs-tools)")
        return
    print(f"{image.name} is unpacked, once for all runs on this machine", file=sys.stderr)
    try:
        with files.shared_directory(target.parent) as fresh:
            done = subprocess.run(
                command(image, fresh / image.name), capture_output=True, text=True, check=False
            )
            if done.returncode:
                said = (done.stderr.splitlines() or ["no reason given"])[-1]
                raise OSError(" ".join(said.split()))
            shutil.copyfile(facts_file(image), fresh / facts_file(image).name)
    except OSError as error:
        _say_without(image, str(error.strerror or error))


def command(image: Path, folder: Path) -> list[str]:
    """What unpacks an image into a folder that is not there yet."""
    options = ["-quiet", "-no-progress", "-no-xattrs", "-offset", str(sif.DATA)]
    return [PROGRAM, *options, "-dest", str(folder), str(image)]


def _say_without(image: Path, why: str) -> None:
    print(f"{image.name} is read as it is, which is slower: {why}", file=sys.stderr)


def found(image: str) -> str:
    """What a job is to be started in: the unpacked root, if this run has one, else the image."""
    target = place(Path(image)) if os.environ.get(VARIABLE) else None
    return str(target) if target is not None and target.is_dir() else image


def substitute(image_class: Any) -> None:
    """Have Snakemake start jobs in what is unpacked.

    Its rules still name the image's file, which is what it compares to see whether the software
    has changed: so nothing runs again because it was unpacked, or on Slurm is not.

    Args:
        image_class: `snakemake.deployment.singularity.Image`.
    """
    if isinstance(image_class.path, _Substituted):
        return
    packed = image_class.path.fget

    def path(self: Any) -> str:
        image = str(packed(self))
        return found(image) if self.is_local else image

    image_class.path = _Substituted(path)


class _Substituted(property):
    """Marks what `substitute` did."""
