"""How the console script ends: at once, but not before what is due at the end."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import atexit, sys
from zpdbench import cli

class Big:
    def __del__(self):
        print("taken down")

sys.modules["big"] = Big()
atexit.register(print, "exit handler")
sys.argv = ["zpdbench", *sys.argv[1:]]
cli.program()
"""


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=False
    )


def test_what_was_printed_and_exit_handlers_come_out() -> None:
    done = ended("completion", "bash")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.endswith("\nexit handler\n") and "zpdbench" in done.stdout


def test_a_mistake_keeps_its_code() -> None:
    done = ended("show", "nowhere.tsv")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert ended("no-such-verb").returncode == 2


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "zpdbench.cli", "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


LEFT_OUT = """
import sys
from zpdbench import startup

startup.ends_here = sys.argv[1] == "alone"
import json
startup.leave_out("colorsys", "json")
json.dumps([])
try:
    import colorsys
    print("there")
except ImportError:
    print("not installed")
"""


def test_what_a_verb_does_not_need_is_left_out_where_it_is_alone() -> None:
    """What is there already stays; a process that does more than one verb loses nothing."""
    for how, told in (("alone", "not installed\n"), ("beside others", "there\n")):
        command = [sys.executable, "-c", LEFT_OUT, how]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (told, "")
