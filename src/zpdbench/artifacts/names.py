"""Names of files in a bundle: which are safe on every file system, and which are refused."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MAX_COMPONENT = 200
MAX_PATH = 1000
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$", re.IGNORECASE)


def problem(name: str) -> str | None:
    """Why `name` may not be unpacked, or None if it is a plain relative POSIX path.

    Refused: absolute names and drives, `..`, empty and `.` components, backslashes, control
    characters, names that Windows reserves, trailing dots and blanks, names not in Unicode's
    normal form C, and names too long for a file system.
    """
    if not name or len(name.encode("utf-8", "surrogatepass")) > MAX_PATH:
        return "empty or too long a name"
    if name.startswith("/"):
        return "absolute name"
    if re.match(r"^[A-Za-z]:", name):
        return "name with a drive"
    if _FORBIDDEN.search(name):
        return "name with a forbidden character"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "name that is not UTF-8"
    if unicodedata.normalize("NFC", name) != name:
        return "name that is not in normal form C"
    if any(unicodedata.category(c) in ("Cf", "Cs", "Co") for c in name):
        return "name with an invisible character"
    for part in name.split("/"):
        if part == "..":
            return "name that climbs out of the folder"
        if part in ("", "."):
            return "name with an empty component"
        if len(part.encode("utf-8")) > MAX_COMPONENT:
            return "too long a name"
        if part[-1] in ". " or part[0] == " ":
            return "name that begins or ends with a blank or dot"
        if _RESERVED.match(part):
            return "name that Windows reserves"
    return None


def collisions(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that some file system takes for one: equal, or equal but for case.

    A file that has the name of another's folder collides with it too.
    """
    seen: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    folders: dict[str, str] = {}
    ordered = list(names)
    for name in ordered:
        key = unicodedata.normalize("NFKC", name).casefold()
        if key in seen:
            found.append((seen[key], name))
        seen.setdefault(key, name)
        parts, keys = name.split("/"), key.split("/")
        for depth in range(1, len(keys)):
            folder = "/".join(keys[:depth])
            spelling = "/".join(parts[:depth])
            if folders.setdefault(folder, spelling) != spelling:
                found.append((folders[folder], spelling))
    found += [(seen[folder], f"{folders[folder]}/") for folder in folders if folder in seen]
    return found
