"""`zpdbench completion SHELL`: what completes verbs, options and files on a command line."""

from __future__ import annotations

import argparse

_SCRIPT = """\
# eval "$(zpdbench completion {shell})"
_zpdbench() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} given=""
  case ${{COMP_WORDS[1]}} in
{cases}
  esac
  if [[ $COMP_CWORD == 1 ]]; then
    COMPREPLY=($(compgen -W "{verbs}" -- "$word"))
  elif [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$given --help" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _zpdbench zpdbench
"""


def script(shell: str) -> str:
    """The completion script of bash; zsh reads it through its own bashcompinit."""
    from zpdbench.cli import VERBS, Verb

    def flags(verb: Verb) -> str:
        return " ".join(f for a in verb.arguments for f in a.flags if f.startswith("-"))

    cases = "\n".join(f'    {name}) given="{flags(verb)}" ;;' for name, verb in VERBS.items())
    text = _SCRIPT.format(shell=shell, cases=cases, verbs=" ".join([*VERBS, "--help", "--version"]))
    return ("autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "") + text


def main(args: argparse.Namespace) -> None:
    """Print the script of args.shell."""
    print(script(args.shell), end="")
