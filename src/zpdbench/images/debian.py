"""Debian packages of an image: fetched at the locked versions, checked by hash, as a repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.images.names import DebianPackage


class Apt:
    """apt-get with lists and caches of its own, and the machine's sources; needs no root.

    Args:
        folder: where its lists lie.
        sources: the sources file; the machine's if not given, or what ZPDBENCH_APT_SOURCES names.
    """

    def __init__(self, folder: Path, sources: Path | None = None) -> None:
        # Absolute: apt takes a relative one for one below /etc/apt, and no more than warns of it.
        self.folder = folder = folder.resolve()
        given = os.environ.get("ZPDBENCH_APT_SOURCES")
        self.sources = sources or (Path(given) if given else machine_sources())
        for name in ("lists/partial", "cache/archives/partial", "parts"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # Nothing counts as installed: the machine's own packages are none of the image's.
        (folder / "status").touch()
        # apt knows a sources file's form by its ending.
        local = folder / f"parts/zpdbench{self.sources.suffix}"
        shutil.copyfile(self.sources, local)
        self._options = [
            "-qq",
            *self._set("Dir::Etc::SourceList", "/dev/null"),
            *self._set("Dir::Etc::SourceParts", folder / "parts"),
            *self._set("Dir::State::Lists", folder / "lists"),
            *self._set("Dir::State::status", folder / "status"),
            *self._set("Dir::Cache", folder / "cache"),
            *self._set("APT::Sandbox::User", ""),
            *self._set("APT::Install-Recommends", "false"),
            *self._set("Acquire::Languages", "none"),
            *self._set("Acquire::Retries", "3"),
        ]

    @staticmethod
    def _set(key: str, value: object) -> tuple[str, str]:
        return "-o", f"{key}={value}"

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run apt-get and return what it prints.

        Raises:
            UserError: there is no apt-get, or it fails.
        """
        return run(
            ["apt-get", *self._options, *arguments],
            cwd=cwd,
            fix="an old version is gone from a mirror in time: name a sources file of "
            "Debian's snapshot archive by ZPDBENCH_APT_SOURCES (containers/README.md)",
        )

    def update(self) -> None:
        """Fetch the lists of packages.

        Raises:
            UserError: one of them cannot be had; apt alone would go on with those that it has.
        """
        self.run(*self._set("APT::Update::Error-Mode", "any"), "update")


def machine_sources() -> Path:
    """The sources file of this machine that has Debian itself.

    Raises:
        UserError: there is none.
    """
    for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"):
        if Path(path).is_file() and Path(path).read_text("utf-8").strip():
            return Path(path)
    raise UserError(
        "no Debian sources on this machine",
        fix="name a sources file of Debian 12 by ZPDBENCH_APT_SOURCES",
    )


def fetch(packages: Sequence[DebianPackage], folder: Path, apt_folder: Path) -> list[Path]:
    """The package files, from `folder` or fetched into it; each has the locked hash.

    Raises:
        UserError: a package cannot be had, or has other bytes than the lock says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [p for p in packages if not (folder / p.filename).is_file()]
    if missing:
        apt = Apt(apt_folder)
        apt.update()
        # A fresh folder, and a rename once all is checked: a stopped download leaves nothing.
        with files.atomic_directory(folder / ".fetched") as fresh:
            apt.run(
                "download",
                *(
                    f"{p.name}:{p.architecture}={p.version}"
                    if p.architecture != "all"
                    else f"{p.name}={p.version}"
                    for p in missing
                ),
                cwd=fresh,
            )
            for package in missing:
                _check(fresh / package.filename, package)
                (fresh / package.filename).replace(folder / package.filename)
        shutil.rmtree(folder / ".fetched")
    for package in packages:
        _check(folder / package.filename, package)
    return [folder / p.filename for p in packages]


def _check(path: Path, package: DebianPackage) -> None:
    if not path.is_file():
        raise UserError(f"{package.filename} was not delivered", fix="try again")
    if files.sha256_file(path) != package.sha256:
        path.unlink()
        raise UserError(
            f"{package.filename} has another hash than containers/debian.lock; it was deleted",
            fix="try again, from another mirror if it happens twice",
        )


def write_repository(debs: Sequence[Path], folder: Path) -> None:
    """A Debian repository `bookworm main` of just these files: apt can choose nothing else."""
    index = folder / "dists/bookworm/main/binary-amd64"
    index.mkdir(parents=True)
    (folder / "pool").mkdir()
    stanzas = []
    for deb in debs:
        control = run(["dpkg-deb", "--field", str(deb)]).rstrip("\n")
        if deb.stat().st_dev == folder.stat().st_dev:
            os.link(deb, folder / "pool" / deb.name)
        else:
            shutil.copy(deb, folder / "pool")
        stanzas.append(
            f"{control}\nFilename: pool/{deb.name}\nSize: {deb.stat().st_size}\n"
            f"SHA256: {files.sha256_file(deb)}\n"
        )
    packages = index / "Packages"
    files.write_text(packages, "\n".join(stanzas))
    files.write_text(
        folder / "dists/bookworm/Release",
        "Suite: bookworm\nCodename: bookworm\nArchitectures: amd64\nComponents: main\nSHA256:\n"
        f" {files.sha256_file(packages)} {packages.stat().st_size} main/binary-amd64/Packages\n",
    )


def run(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    fix: str = "",
) -> str:
    """Run a program and return its standard output.

    Raises:
        UserError: it is not installed, or fails (with the end of what it said).
    """
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{command[0]} is not installed", fix="apt-get install " + _DEBIAN_NAMES[command[0]]
        ) from error
    if done.returncode:
        if "no space left on device" in (done.stderr + done.stdout).lower():
            raise UserError("the disk is full", where=command[0], fix=FREE)
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise UserError(
            f"{command[0]} failed with exit code {done.returncode}: {' | '.join(said[-4:])}",
            fix=fix,
        )
    return done.stdout


FREE = "free the disk of the images' folder and of TMPDIR; nothing half-written is left"

_DEBIAN_NAMES = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "mmdebstrap": "mmdebstrap",
    "sh": "dash",
    "sqfstar": "squashfs-tools",
    "uv": "nothing: make venv installs it",
}
