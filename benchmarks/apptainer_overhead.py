"""What it costs to run the micro grid in images: the host and Apptainer in turn, the same bytes.

    python benchmarks/apptainer_overhead.py --rounds 3

Both sides run `snakemake --cores 2 all` on config/micro.yaml, each time from nothing, with a cache
of its own; the images must be there (`snakemake --cores all images`) and `apptainer` on PATH. One
run in images comes first and is not counted: it unpacks images and wheel. Prints seconds and the
median of the rounds' ratios. Exit code 1: a result's bytes differ, or images cost more than BAR.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.micro import Workspace, content

ROOT = Path(__file__).resolve().parents[1]
BAR = 1.10
"""Times the host's seconds, at most."""


def run(folder: Path, *, images: bool) -> tuple[float, dict[str, str]]:
    """Run the micro grid in `folder`.

    Returns:
        seconds, and the digest of every result whose bytes must not depend on where it was made.
    """
    workspace = Workspace(folder, ROOT, ROOT / "config/micro.yaml")
    workspace.overrides.append(f"images={{folder: {ROOT}/.cache/images}}")
    inside = ["--workflow-profile", str(ROOT / "profiles/apptainer")] if images else []
    start = time.monotonic()
    workspace.run("all", *inside)
    return time.monotonic() - start, content(workspace)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where to work; default: a temporary one")
    args = parser.parse_args()
    ratios, differing = [], set()
    with tempfile.TemporaryDirectory(dir=args.folder) as work:
        made: list[dict[str, str]] = []

        def seconds(name: str, images: bool) -> float:
            folder = Path(work) / name
            folder.mkdir()
            took, found = run(folder, images=images)
            made.append(found)
            differing.update(k for k in found.keys() | made[0] if found.get(k) != made[0].get(k))
            return took

        print(f"first, in images\t{seconds('first', True):.1f} s", flush=True)
        for number in range(args.rounds):
            # Who is first changes, so that a machine that warms up favours neither.
            order = (False, True) if number % 2 == 0 else (True, False)
            took = {images: seconds(f"{number}-{images}", images) for images in order}
            ratios.append(took[True] / took[False])
            print(
                f"round {number}\thost {took[False]:.1f} s\timages {took[True]:.1f} s\t"
                f"{ratios[-1]:.3f}",
                flush=True,
            )
    ratio = statistics.median(ratios)
    print(f"images take {ratio:.3f} times the host's seconds; the bar is at most {BAR}")
    print(
        f"{len(made[0])} results, "
        + (f"differing: {sorted(differing)}" if differing else "the same bytes")
    )
    return 1 if differing or ratio > BAR else 0


if __name__ == "__main__":
    sys.exit(main())
