"""Resolve containers/debian.in to containers/debian.lock; run by containers/lock.sh."""

from __future__ import annotations

import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from zpdbench import files
from zpdbench.images import names
from zpdbench.images.debian import Apt

# apt counts itself among them; an image installs nothing.
_ESSENTIAL = "?and(?essential,?not(?exact-name(apt)))"
_HEADER = """\
# Debian 12 packages of the images: PACKAGE VERSION ARCHITECTURE SHA256 IMAGES. containers/lock.sh
# writes this from debian.in. Where a mirror has an old version no more: snapshot {date}.
"""


def wanted(text: str) -> dict[str, list[str]]:
    """stage -> packages, from the lines of debian.in."""
    stages: dict[str, list[str]] = {stage: [] for stage in names.STAGES}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            package, *images = line.split()
            for image in images:
                stages[image].append(package)
    return stages


def resolve(apt: Apt, packages: list[str]) -> list[tuple[str, str, str, str]]:
    """(package, version, architecture, SHA-256) of all that `packages` and the essential need."""
    simulated = apt.run("--simulate", "install", _ESSENTIAL, *packages)
    chosen = re.findall(r"^Inst (\S+) \((\S+) .*?\[(\w+)\]\)", simulated, re.M)
    printed = apt.run("download", "--print-uris", *(f"{n}={v}" for n, v, _ in chosen))
    hashes = {
        match[1].split("_")[0]: match[2]
        for match in re.finditer(r"^'\S+' (\S+) \d+ SHA256:([0-9a-f]{64})$", printed, re.M)
    }
    return [(name, version, arch, hashes[name]) for name, version, arch in chosen]


def lock(root: Path, date: str) -> str:
    """The text of containers/debian.lock."""
    images: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        apt = Apt(Path(folder))
        apt.update()
        for stage, packages in wanted((root / "containers/debian.in").read_text("utf-8")).items():
            for package in resolve(apt, packages):
                images[package].append(stage)
    lines = [f"{' '.join(package)} {','.join(stages)}" for package, stages in images.items()]
    return _HEADER.format(date=date) + "".join(f"{line}\n" for line in sorted(lines))


if __name__ == "__main__":
    project, day = Path(sys.argv[1]), sys.argv[2]
    files.write_text(project / "containers/debian.lock", lock(project, day))
