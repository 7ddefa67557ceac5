"""`zpdbench sign`: an ssh key's signature over a bundle's manifest, in a file beside the bundle."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from zpdbench import files
from zpdbench.artifacts import manifest
from zpdbench.errors import UserError

NAMESPACE = "zpdbench-bundle"
SUFFIX = ".sig"
_SIGNER = re.compile(r'Good "[^"]*" signature for (\S+) with (.+)')


def main(args: argparse.Namespace) -> None:
    """Write BUNDLE.sig: `args.bundle`'s manifest signed with the private key `args.key`."""
    bundle = Path(args.bundle).absolute()  # "." has no name to put .sig behind
    data = read_manifest(bundle)
    target = Path(args.out or signature_of(bundle))
    with tempfile.TemporaryDirectory() as scratch:
        listing = Path(scratch) / manifest.NAME
        listing.write_bytes(data)
        _keygen(["-Y", "sign", "-q", "-f", str(args.key), "-n", NAMESPACE, str(listing)])
        files.write_bytes(target, listing.with_name(listing.name + SUFFIX).read_bytes())
    print(f"{target}: signature over {manifest.NAME}, digest {manifest.digest(data)}")


def signature_of(bundle: Path) -> Path:
    """Where a bundle's signature lies: beside it, so that the manifest lists every other file."""
    return bundle.with_name(bundle.name + SUFFIX)


def read_manifest(bundle: Path) -> bytes:
    """The bytes of a bundle's manifest, out of a zip or a folder.

    Raises:
        UserError: there is none.
    """
    try:
        if bundle.is_dir():
            return (bundle / manifest.NAME).read_bytes()
        with zipfile.ZipFile(bundle) as archive:
            if archive.getinfo(manifest.NAME).file_size > 256 << 20:
                raise OSError("too large")
            return archive.read(manifest.NAME)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"no {manifest.NAME} to be read",
            where=str(bundle),
            fix="give a bundle that make-crate wrote",
        ) from error


def check(listing: Path, signature: Path, signers: Path) -> str:
    """Check a manifest's signature against the reviewer's own list of signers.

    Args:
        listing: MANIFEST.sha256.
        signature: what `sign` wrote.
        signers: ssh's ALLOWED SIGNERS format, a line `name key`.

    Returns:
        Who signed, with which key.

    Raises:
        UserError: nobody of the list did, or the manifest is another.
    """
    for path in (signature, signers):
        if not path.is_file():
            raise UserError("no such file", where=str(path), fix="check the path")
    names = _keygen(
        ["-Y", "find-principals", "-s", str(signature.resolve()), "-f", str(signers.resolve())]
    )
    name = names.splitlines()[0].split(",")[0] if names.strip() else ""
    if not name:
        raise UserError(
            "signed by a key that --signers does not name",
            where=signature.name,
            fix="give the list of keys that you trust, or do not trust this bundle",
        )
    told = _keygen(
        [
            *("-Y", "verify", "-f", str(signers.resolve()), "-I", name, "-n", NAMESPACE),
            *("-s", str(signature.resolve())),
        ],
        listing.read_bytes(),
    )
    match = _SIGNER.search(told)
    return f"{match[1]} ({match[2]})" if match else name


def _keygen(arguments: list[str], data: bytes = b"") -> str:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise UserError("no ssh-keygen on this machine", fix="install OpenSSH's client")
    done = subprocess.run([program, *arguments], input=data, capture_output=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise UserError(
            f"ssh-keygen: {words[-1] if words else 'failed'}",
            fix="check the key, the signature and who may sign",
        )
    return done.stdout.decode("utf-8", "replace")
