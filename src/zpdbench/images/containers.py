"""Rules in their images: which file is whose, what must be there, what a job sees inside.

Apptainer reads its settings from APPTAINER_ variables as well as from options. They are set here
and not in a profile, because they depend on the study: its folders, its data, its GPU.
"""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.images import names, sif, unpacked, wheel
from zpdbench.images.facts import facts_file, read_facts
from zpdbench.study import Images, LocalModel, Study

WHEEL = "ZPDBENCH_WHEEL"
"""Set by a run for its jobs on other nodes: the unpacked wheel that all of them use."""
CONTAINER_WHEEL = "/opt/zpdbench"
# Not /tmp itself: a study may well lie below the host's.
CONTAINER_TMP = "/mnt/zpdbench-tmp"
# Of the host's environment a job in an image sees these; PATH, PYTHONPATH and so on stay outside.
_PASSED = re.compile(
    r"ZPDBENCH_\w+|HF_\w+|VLLM_\w+|CUDA_VISIBLE_DEVICES|NVIDIA_VISIBLE_DEVICES"
    r"|(https?|no)_proxy|(HTTPS?|NO)_PROXY"
)


def image_files(images: Images, root: Path) -> dict[str, str]:
    """stage -> image: the file named by what goes into it, or what the configuration says."""
    chosen = {}
    for stage in names.STAGES:
        given = getattr(images, stage)
        name = names.image_name(root, stage, images.flavour)
        chosen[stage] = given or f"{images.folder}/{name}.sif"
    return chosen


def enter(
    study: Study,
    root: Path,
    *,
    given: Mapping[str, object] | None = None,
    main_process: bool = True,
) -> None:
    """Set what Apptainer needs to know for this study's jobs; unpack the project's wheel.

    Args:
        root: the project's folder.
        given: what `verify` is asked for by --config: bundle, data and so on.
        main_process: False in the Snakemake of a single job on a node, which uses the wheel of the
            run that submitted it.

    Raises:
        UserError: there is no Apptainer, or the wheel cannot be built.
    """
    _program()
    ready = os.environ.get(WHEEL)
    if main_process or not ready:
        ready = str(wheel.unpacked(root, Path(study.images.folder)).resolve())
        os.environ[WHEEL] = ready
    os.environ.update(_settings(study, root, Path(ready), os.environ, given or {}))


def check(images: Iterable[str], arguments: str = "", *, unpack: Path | None = None) -> None:
    """Before the first job: are these images there and whole, and does a container start.

    Args:
        arguments: the options that Snakemake will give to `apptainer exec`.
        unpack: the folder whose images are unpacked; none where jobs run on other machines.

    Raises:
        UserError: an image is missing or damaged, or a container does not start.
    """
    local = sorted({image for image in images if "://" not in image})
    for image in local:
        check_image(Path(image))
        _verify_once(Path(image))
    os.environ.pop(unpacked.VARIABLE, None)
    if unpack:
        os.environ[unpacked.VARIABLE] = "1"
        for path in map(Path, local):
            if path.parent.resolve() == unpack.resolve():
                unpacked.unpack(path)
    if local:
        _try(_program(), arguments, unpacked.found(local[0]))


def _program() -> str:
    if program := shutil.which("apptainer") or shutil.which("singularity"):
        return program
    raise UserError(
        "--sdm apptainer: there is no apptainer on PATH",
        fix="containers/install-apptainer.sh, or run without --sdm",
    )


def check_image(path: Path) -> None:
    """Check that an image is there and whole, by its headers and its recorded size.

    Raises:
        UserError: it is missing, truncated, or of another size than when it was built.
    """
    if not path.is_file():
        raise UserError("there is no such image", where=str(path), fix=sif.BUILD)
    sif.check_sif(path)
    facts = read_facts(path)
    if facts and facts.get("sif_bytes") != path.stat().st_size:
        raise UserError(
            "has another size than when it was built",
            where=str(path),
            fix=f"delete it; {sif.BUILD}",
        )


def _verify_once(path: Path) -> None:
    """`verify_image`, unless this very file was verified before; images without record are taken.

    A file counts as the same by its inode, time stamp and size.
    """
    facts = read_facts(path)
    if "sif_sha256" not in facts:
        return
    status = path.stat()
    key = files.digest(
        [
            str(path.resolve()),
            status.st_ino,
            status.st_mtime_ns,
            status.st_size,
            facts["sif_sha256"],
        ]
    )
    cache = Path(os.environ.get("ZPDBENCH_CACHE", ".cache/zpdbench"))
    mark = cache / "images" / f"{path.name}-{key[:16]}"
    if mark.is_file():
        return
    verify_image(path)
    files.write_text(mark, "")


def verify_image(path: Path) -> None:
    """Check an image's SHA-256 against the one recorded when it was built; reads all of it.

    Raises:
        UserError: nothing was recorded, or the image has other bytes.
    """
    facts = read_facts(path)
    if not facts:
        raise UserError(
            "nothing is recorded of this image", where=str(path), fix=f"delete it; {sif.BUILD}"
        )
    if files.sha256_file(path) != facts["sif_sha256"]:
        raise UserError(
            "has another SHA-256 than when it was built",
            where=str(path),
            fix=f"delete it; {sif.BUILD}",
        )


def _settings(
    study: Study,
    root: Path,
    wheel_folder: Path,
    environment: Mapping[str, str],
    given: Mapping[str, object],
) -> dict[str, str]:
    """Apptainer's variables: what is bound, which variables pass, no environment of the host."""
    temporary, writable, readable = _temporary(), _writable(study), _readable(study, root, given)
    for path in (str(wheel_folder), temporary, *writable, *readable):
        if "," in path or ":" in path:
            raise UserError(
                "Apptainer cannot bind a path with a comma or a colon",
                where=path,
                fix="name the folder otherwise",
            )
    binds = [f"{wheel_folder}:{CONTAINER_WHEEL}:ro", f"{temporary}:{CONTAINER_TMP}"]
    binds += [f"{folder}:{folder}" for folder in writable]
    binds += [f"{path}:{path}:ro" for path in readable]
    passed = {
        f"APPTAINERENV_{name}": value
        for name, value in sorted(environment.items())
        if _PASSED.fullmatch(name) and name not in (WHEEL, unpacked.VARIABLE)
    }
    settings = {
        **passed,
        "APPTAINERENV_TMPDIR": CONTAINER_TMP,
        "APPTAINER_CONTAINALL": "1",
        "APPTAINER_BINDPATH": ",".join(binds),
        # Errors only: which optional helper of Apptainer's is missing matters to no job.
        "APPTAINER_SILENT": "1",
    }
    if study.images.nv:
        settings["APPTAINER_NV"] = "1"
    return settings


def _temporary() -> str:
    """A folder for temporary files; /tmp inside is 64 MB of memory."""
    folder = tempfile.mkdtemp(prefix="zpdbench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _writable(study: Study) -> list[str]:
    """Folders outside the working directory (which is bound anyway) that jobs write to."""
    cache = str(files.cache_folder())
    folders = []
    for name in (study.results, cache, os.environ.get("HF_HOME"), study.hub.cache):
        if name:
            Path(name).mkdir(parents=True, exist_ok=True)
            folders.append(name)
    return _outside(folders)


def _readable(study: Study, root: Path, given: Mapping[str, object]) -> list[str]:
    """What jobs read outside the working directory; a bundle holds the workflow itself.

    A job records its image's digests from the file beside it. What `verify` is given is bound
    itself, not the folder that it lies in, which may be a home.
    """
    folders = [str(root), *(m.path for m in study.models.values() if isinstance(m, LocalModel))]
    folders.append(study.images.folder)
    images = [getattr(study.images, stage) for stage in names.STAGES]
    for image in (Path(i) for i in images if i and "://" not in i):
        folders += [str(facts_file(image)), str(image.parent / unpacked.FOLDER)]
    folders += [str(given[k]) for k in ("bundle", "data", "signers", "signature") if k in given]
    if "bundle" in given:
        # Where `verify` looks for a signature that it is not given.
        folders.append(f"{str(given['bundle']).rstrip('/')}.sig")
    if data := study.data_dir or os.environ.get("ZPDBENCH_DATA"):
        folders.append(data)
    if study.hub.folder:
        folders.append(study.hub.folder)
    return _outside(f for f in folders if f and Path(f).exists())


def _outside(folders: Iterable[str]) -> list[str]:
    """Absolute forms, as named and as they really are, of what the working directory lacks."""
    here = Path.cwd().resolve()
    found: dict[str, None] = {}
    for name in folders:
        for path in (Path(os.path.normpath(Path.cwd() / name)), Path(name).resolve()):
            if not path.is_relative_to(here):
                found[str(path)] = None
    return list(found)


def _try(program: str, arguments: str, image: str) -> None:
    """Start one container as a job would be."""
    command = [program, "exec", *shlex.split(arguments), image, "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "FATAL" in line or "ERROR" in line]
        reason = " ".join((said or done.stderr.splitlines() or ["no reason given"])[-1].split())
        raise UserError(
            f"no container can be started: {reason.removeprefix('FATAL:').strip()}",
            where=image,
            fix="docs/clusters.md, 'When a container does not start'",
        )


TOOLS = {"mmdebstrap": "mmdebstrap", "mksquashfs": "squashfs-tools"}
"""Programs that build images, and the Debian packages that they are in."""


def examine(
    folder: Path, wanted: Mapping[str, str] | None = None
) -> list[tuple[str, bool, str, str]]:
    """For `zpdbench doctor`: (what, whether it is there, what was found, how to mend it).

    Args:
        folder: where built images lie; each is read whole and compared with its record.
        wanted: stage -> image of a study, as `image_files` gives.
    """
    program = shutil.which("apptainer") or shutil.which("singularity")
    found = [
        (
            "Apptainer",
            program is not None,
            program or "-",
            "for --sdm apptainer only: containers/install-apptainer.sh",
        )
    ]
    namespaces = shutil.which("unshare") is not None and (
        subprocess.run(
            ["unshare", "--user", "--map-root-user", "true"], capture_output=True, check=False
        ).returncode
        == 0
    )
    found.append(
        (
            "user namespaces",
            namespaces,
            "allowed" if namespaces else "refused",
            "raise user.max_user_namespaces, or ask the site; docs/clusters.md",
        )
    )
    for tool, package in TOOLS.items():
        place = shutil.which(tool)
        fix = f"to build images only: apt-get install {package}"
        found.append((tool, place is not None, place or "-", fix))
    for stage, image in sorted((wanted or {}).items()):
        if "://" in image:
            found.append((f"image of {stage}", True, image, ""))
        elif not Path(image).is_file():
            fix = f"for --sdm apptainer only: {sif.BUILD}"
            found.append((f"image of {stage}", False, image, fix))
    for built in sorted(folder.glob("*.sif")):
        try:
            sif.check_sif(built)
            verify_image(built)
        except UserError as error:
            found.append((built.name, False, error.what, error.fix))
        else:
            found.append((built.name, True, "as built", ""))
    return found
