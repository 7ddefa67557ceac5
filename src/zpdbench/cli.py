"""`zpdbench VERB`: one verb a rule, and a few for people; modules load when their verb runs."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from zpdbench import __version__, arithmetic, startup
from zpdbench.errors import UserError

EXIT_USER_ERROR = 2


@dataclass(frozen=True)
class Argument:
    """One argument of a verb, as argparse takes it."""

    flags: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Verb:
    """A verb: its one-line help, the module whose `main(args)` does it, its arguments."""

    help: str
    module: str
    arguments: tuple[Argument, ...] = field(default=())
    recorded: bool = True
    """Whether a job of the workflow records what it read and wrote (see `records`)."""
    makes_folder: bool = False
    """Whether `--out` is a folder."""


def _arg(*flags: str, **options: Any) -> Argument:
    if flags[0].startswith("--") and "default" not in options and options.get("nargs") != "*":
        options.setdefault("required", "action" not in options)
    return Argument(flags, options)


_STUDY = _arg("--study", metavar="FILE", help="the merged configuration, {results}/study.lock.yaml")
_OUT = _arg("--out", metavar="FILE", help="what to write")
_MODEL = _arg("--model", help="a key of models:")
_CONDITION = _arg("--condition", help="a key of conditions:, or base")
_SEED = _arg("--seed", type=int, help="a seed of the study")
_ITEMS = _arg("--items", nargs="*", default=[], metavar="FILE", help="items/BENCHMARK.parquet")
_CONFIG = _arg(
    "--configfile", nargs="+", metavar="FILE", default=["config/mini.yaml"], help="configuration"
)

_TABLE = _arg("--scores", metavar="FILE", help="scores.tsv")
_FILES = _arg("--scores", nargs="+", metavar="FILE", help="runs' files")
_RUNS = _arg("--adapters", nargs="*", default=[], metavar="DIR", help="runs, for their notes")
_INTERIM = _arg("--interim", action="store_true", help="allow a grid that is not complete")

VERBS: dict[str, Verb] = {
    "make-checkpoint": Verb(
        "make a base model: pretrain it here, convert it, or up-scale its depth",
        "zpdbench.checkpoints.make_checkpoint",
        (_STUDY, _MODEL, _arg("--threads", type=int, default=1, help="CPU threads"), _OUT),
        makes_folder=True,
    ),
    "make-corpus": Verb(
        "prepare the instruction corpus and measure its difficulty",
        "zpdbench.corpora.make_corpus",
        (
            _STUDY,
            _arg("--corpus", help="corpus.name of the study"),
            _ITEMS,
            _arg("--threads", type=int, default=1, help="CPU cores"),
            _OUT,
        ),
    ),
    "make-items": Verb(
        "render a benchmark's items as they will be asked",
        "zpdbench.corpora.make_items",
        (_STUDY, _arg("--benchmark", help="a key of benchmarks:"), _OUT),
    ),
    "data-card": Verb(
        "say what a corpus consists of, where from, under which licence",
        "zpdbench.corpora.data_card",
        (_STUDY, _arg("--corpus", metavar="FILE", help="corpora/NAME.parquet"), _OUT),
        recorded=False,
    ),
    "train-adapter": Verb(
        "fine-tune one run: a model under a condition with a seed",
        "zpdbench.adapters.train_adapter",
        (
            _STUDY,
            _arg("--checkpoint", metavar="DIR", help="the base model"),
            _arg("--corpus", metavar="FILE", help="the corpus"),
            _MODEL,
            _CONDITION,
            _SEED,
            _OUT,
        ),
        makes_folder=True,
    ),
    "generate-chunk": Verb(
        "answer a chunk's items: one engine, all its adapters and the base",
        "zpdbench.generations.generate_chunk",
        (
            _STUDY,
            _MODEL,
            _arg("--chunk", help="all, s0, or zpd-s0, by generations.group_by"),
            _arg("--checkpoint", metavar="DIR", help="the base model"),
            _arg("--adapters", nargs="*", default=[], metavar="DIR", help="the runs' folders"),
            _ITEMS,
            _OUT,
        ),
    ),
    "score-run": Verb(
        "judge one run's answers",
        "zpdbench.scores.score_run",
        (
            _STUDY,
            _MODEL,
            _CONDITION,
            _SEED,
            _arg("--generations", metavar="FILE", help="the chunk's answers"),
            _ITEMS,
            _arg(
                "--skip-programs",
                action="store_true",
                help="leave out benchmarks whose answers are programs (no sandbox here)",
            ),
            _OUT,
        ),
    ),
    "score": Verb(
        "judge published generations against a benchmark's own file",
        "zpdbench.scores.score",
        (
            _arg("benchmark", help="humaneval, gsm8k, mmlu, kobest_boolq, ..."),
            _arg("--items", metavar="FILE", help="the benchmark as its authors publish it"),
            _arg("--generations", metavar="JSONL", help="item_id, sample, text a line"),
            _arg("--workers", type=int, default=None, help="programs judged at once"),
            _arg(
                "--waive",
                action="append",
                default=[],
                metavar="LAYER",
                help="run programs though this layer of the sandbox is missing (see doctor)",
            ),
            _arg(
                "--allow-missing",
                action="store_true",
                help="score what is there where items or samples lack an answer",
            ),
            _OUT,
        ),
    ),
    "aggregate-scores": Verb(
        "put all runs' verdicts into scores.tsv and curves.tsv",
        "zpdbench.statistics.aggregate_scores",
        (
            _STUDY,
            _arg("scores", nargs="+", metavar="SCORES", help="runs' score files"),
            _RUNS,
            _arg("--out-scores", metavar="FILE", help="scores.tsv"),
            _arg("--out-curves", metavar="FILE", help="curves.tsv"),
        ),
    ),
    "h3a": Verb(
        "test whether the treatment's gain is larger in the larger model",
        "zpdbench.statistics.h3a",
        (
            _arg("--scores", nargs="+", metavar="FILE", help="a TSV of verdicts, or runs' files"),
            _CONFIG,
            _RUNS,
            _arg("--benchmarks", default=None, help="only these, separated by commas"),
            _INTERIM,
            _OUT,
        ),
    ),
    "h3a-sensitivity": Verb(
        "test H3a again by every other defensible method",
        "zpdbench.statistics.h3a_sensitivity",
        (_STUDY, _FILES, _RUNS, _INTERIM, _OUT),
    ),
    "rq1": Verb(
        "analyses of variance: do the conditions differ?",
        "zpdbench.statistics.rq1",
        (_STUDY, _TABLE, _RUNS, _INTERIM, _OUT),
    ),
    "h3b": Verb(
        "test whether the gain is larger on reasoning than on generation",
        "zpdbench.statistics.h3b",
        (_STUDY, _TABLE, _RUNS, _INTERIM, _OUT),
    ),
    "r1": Verb(
        "test whether the gain depends on the task's language and the model",
        "zpdbench.statistics.r1",
        (_STUDY, _TABLE, _RUNS, _INTERIM, _OUT),
    ),
    "efficiency": Verb(
        "steps, FLOPs and seconds to the control's final score",
        "zpdbench.statistics.efficiency",
        (
            _STUDY,
            _TABLE,
            _arg("--adapters", nargs="*", default=[], metavar="DIR", help="runs, for their costs"),
            _INTERIM,
            _OUT,
        ),
    ),
    "ablations": Verb(
        "compare each ablated condition with the full one",
        "zpdbench.statistics.ablations",
        (_STUDY, _TABLE, _RUNS, _INTERIM, _OUT),
    ),
    "ladder": Verb(
        "regress the gain on the number of parameters, three models or more",
        "zpdbench.statistics.ladder",
        (_STUDY, _TABLE, _RUNS, _INTERIM, _OUT),
    ),
    "power": Verb(
        "power of H3a's test by number of seeds, as claimed and as measured",
        "zpdbench.statistics.power_table",
        (
            _STUDY,
            _arg("--scores", default=None, metavar="FILE", help="a pilot's scores.tsv"),
            _RUNS,
            _INTERIM,
            _OUT,
        ),
    ),
    "expected": Verb(
        "the claimed figures against what came out",
        "zpdbench.statistics.expected",
        (
            _STUDY,
            _TABLE,
            _arg("--efficiency", default=None, metavar="FILE", help="efficiency.tsv"),
            _RUNS,
            _INTERIM,
            _OUT,
        ),
    ),
    "calibration": Verb(
        "expected calibration error by step",
        "zpdbench.statistics.calibration",
        (_STUDY, _FILES, _RUNS, _INTERIM, _OUT),
    ),
    "validate-statistics": Verb(
        "simulate studies: do the tests keep their level and the intervals their coverage?",
        "zpdbench.statistics.validation",
        (_arg("--replicates", type=int, default=2000, help="20000 in full"), _OUT),
    ),
    "draw-figures": Verb(
        "draw learning curves, effects and what else the tables say",
        "zpdbench.report.draw_figures",
        (
            _STUDY,
            _arg("--curves", default=None, metavar="FILE", help="curves.tsv"),
            _arg("--h3a", default=None, metavar="FILE", help="h3a.tsv"),
            _arg("--power", default=None, metavar="FILE", help="power.tsv"),
            _arg("--ladder", default=None, metavar="FILE", help="ladder.tsv"),
            _arg("--expected", default=None, metavar="FILE", help="expected.tsv"),
            _arg("--scores", default=None, metavar="FILE", help="scores.tsv, for interaction"),
            _arg("--out", nargs="+", metavar="FILE", help="curves.svg effects.svg ..."),
        ),
    ),
    "draw-training": Verb(
        "draw what the window did, and how hard the examples were",
        "zpdbench.report.draw_training",
        (
            _STUDY,
            _arg("--adapters", nargs="*", default=[], metavar="DIR", help="runs, for traces"),
            _arg("--corpus", metavar="FILE", help="the corpus's Parquet"),
            _arg("--out", nargs="+", metavar="FILE", help="window.svg difficulty.svg ..."),
        ),
    ),
    "report": Verb(
        "write report.html: verdicts, figures, items and provenance in one page",
        "zpdbench.report.report",
        (
            _STUDY,
            _arg("--tables", nargs="+", metavar="FILE", help="results tables, h3a.tsv among them"),
            _arg("--scores", nargs="*", default=[], metavar="FILE", help="runs' files"),
            _arg("--generations", nargs="*", default=[], metavar="FILE", help="chunks' answers"),
            _ITEMS,
            _arg("--adapters", nargs="*", default=[], metavar="DIR", help="runs, for their traces"),
            _arg("--corpus", default=None, metavar="FILE", help="for the examples' difficulty"),
            _OUT,
        ),
    ),
    "make-crate": Verb(
        "put a study's evidence into one file that others can verify",
        "zpdbench.artifacts.make_crate",
        (
            _STUDY,
            _OUT,
            _arg(
                "--without",
                nargs="*",
                default=[],
                choices=("adapters", "traces", "checkpoints", "corpus", "items", "generations"),
                help="leave out, for a smaller file",
            ),
            _arg("--sample", type=int, default=None, help="the weights of so many runs only"),
            _arg("--license", default=None, metavar="URL", help="of the study's own files"),
            _arg("--date", default=None, metavar="YYYY-MM-DD", help="else the commit's day"),
            _arg("--workflow", default=None, metavar="DIR", help="the Snakefile's folder"),
        ),
        recorded=False,
    ),
    "verify": Verb(
        "check a bundle: which of its claims hold, which do not, which were not checked",
        "zpdbench.artifacts.verify",
        (
            _arg("bundle", metavar="BUNDLE", help="crate.zip, or its folder"),
            _arg(
                "--level", type=int, choices=range(5), default=2, help="each includes those below"
            ),
            _arg("--out", default="verification.tsv", metavar="FILE", help="a page beside it"),
            _arg("--digest", default=None, metavar="HEX", help="what the authors published"),
            _arg(
                "--registration",
                default=None,
                metavar="HEX",
                help="the digest of zpdbench register, as published before the runs",
            ),
            _arg(
                "--signature", default=None, metavar="FILE", help="else BUNDLE.sig if it is there"
            ),
            _arg("--signers", default=None, metavar="FILE", help="ssh's list of allowed signers"),
            _arg("--data", default=None, metavar="DIR", help="the benchmarks' own files"),
            _arg(
                "--trust",
                nargs="*",
                default=[],
                metavar="MODULE:FUNCTION",
                help="installed here, which the bundle's own benchmarks may call",
            ),
            _arg("--minutes", type=float, default=30.0, help="for levels 3 and 4 together"),
            _arg("--seed", type=int, default=None, help="of the random samples; else drawn"),
            _arg("--jobs", type=int, default=2, help="processes at once"),
            _arg("--scratch", default=None, metavar="DIR", help="to unpack in; else the system's"),
        ),
        recorded=False,
    ),
    "why": Verb(
        "walk from a number in a table to the answers, adapters and settings behind it",
        "zpdbench.artifacts.why",
        (
            _arg("table", metavar="TABLE", help="h3a.tsv in a results folder or unpacked bundle"),
            _arg("--row", help="such as gsm8k/pp"),
            _arg("--items", type=int, default=0, help="list so many items of each run"),
        ),
        recorded=False,
    ),
    "diff": Verb(
        "compare two runs: configuration, versions, items, verdicts, effects",
        "zpdbench.artifacts.diff",
        (
            _arg("a", metavar="A", help="a bundle or a results folder"),
            _arg("b", metavar="B", help="another"),
            _arg("--out", default=None, metavar="FILE", help="the differences as a table"),
            _arg("--scratch", default=None, metavar="DIR", help="to unpack in"),
        ),
        recorded=False,
    ),
    "sign": Verb(
        "sign a bundle's manifest with an ssh key",
        "zpdbench.artifacts.sign",
        (
            _arg("bundle", metavar="BUNDLE", help="crate.zip, or its folder"),
            _arg("--key", metavar="FILE", help="a private ssh key"),
            _arg("--out", default=None, metavar="FILE", help="else BUNDLE.sig"),
        ),
        recorded=False,
    ),
    "show": Verb(
        "print a results table with its verdicts",
        "zpdbench.report.show",
        (_arg("table", metavar="FILE.tsv", help="h3a.tsv, say"),),
    ),
    "build-image": Verb(
        "build a stage's container image, as SIF and OCI",
        "zpdbench.images.build_image",
        (
            _arg("--stage", choices=("train", "serve", "score", "stats"), help="whose image"),
            _arg("--flavour", choices=("cpu", "cuda"), default="cpu", help="of train and serve"),
            _arg("--project", metavar="DIR", default=None, help="with envs/ and containers/"),
            _arg("--out", metavar="FILE.sif", help="named by what goes in; see rules/images.smk"),
        ),
    ),
    "compare-published": Verb(
        "whether a study's tables are the bytes published with this version",
        "zpdbench.report.published",
        (
            _arg("--study", metavar="FILE", help="the results folder's study.lock.yaml"),
            _arg("--published", metavar="FILE", help="config/published.json"),
            _arg("--write", action="store_true", help="publish these tables instead"),
        ),
        recorded=False,
    ),
    "plan": Verb(
        "what would run: cells, jobs, tokens, memory, disk, statistical power",
        "zpdbench.plan",
        (
            _CONFIG,
            _arg(
                "--pilot",
                nargs="+",
                default=None,
                metavar="FILE",
                help="a pilot's scores.tsv, for power; its runs' files, for seeds against items",
            ),
            _arg(
                "--hardware",
                nargs="*",
                default=None,
                metavar="NAME",
                help="rtx4090 a100 h100 mac-mini-m4-pro mac-studio-m3-ultra cpu; else all of them",
            ),
            _arg("--price", type=float, default=None, help="of a device-hour, in your currency"),
            _arg("--devices", type=int, default=1, help="at once, for days"),
            _arg(
                "--core-gflops",
                type=float,
                default=None,
                metavar="RATE",
                help="float32 GFLOP/s of one core of the CPU; else measured here in half a second",
            ),
            _arg(
                "--window",
                action="store_true",
                help="tell what zpd's window holds before training, also where that takes long",
            ),
        ),
    ),
    "register": Verb(
        "write what is to be tested, and its digest, before anything runs",
        "zpdbench.register",
        (
            _CONFIG,
            _arg("--out", default=None, metavar="FILE", help="else FIRST.registration.yaml"),
        ),
        recorded=False,
    ),
    "init": Verb(
        "write a commented configuration for a study of your own",
        "zpdbench.init",
        (
            _arg("name", metavar="NAME", help="of the study"),
            _arg("--out", default=None, metavar="FILE", help="else config/NAME.yaml"),
        ),
        recorded=False,
    ),
    "pin": Verb(
        "look up commits and files' hashes on the hub, into revisions.lock.yaml",
        "zpdbench.hub.pin",
        (
            _CONFIG,
            _arg("--lock", default=None, metavar="FILE", help="else beside the configuration"),
            _arg("--update", action="store_true", help="move to the newest commits"),
        ),
        recorded=False,
    ),
    "doctor": Verb(
        "what this machine can do, and how to mend the rest",
        "zpdbench.doctor",
        (
            _arg(
                "--configfile",
                nargs="+",
                metavar="FILE",
                default=[],
                help="a study: its GPUs, images and data are looked for too",
            ),
        ),
    ),
    "completion": Verb(
        "print what completes zpdbench's command line in a shell",
        "zpdbench.completion",
        (_arg("shell", choices=("bash", "zsh"), help='eval "$(zpdbench completion bash)"'),),
        recorded=False,
    ),
    "schema": Verb("print the configuration's JSON schema", "zpdbench.schema"),
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="zpdbench",
        description="Does ZPD-adaptive fine-tuning beat random order, and more so in larger "
        "models? The workflow calls these verbs; so may you.",
    )
    parser.add_argument("--version", action="version", version=f"zpdbench {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        sub = verbs.add_parser(name, help=verb.help, description=verb.help)
        for argument in verb.arguments:
            sub.add_argument(*argument.flags, **argument.options)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; 0, or 2 on a user's mistake, 4 without a sandbox, the verb's own code."""
    args = build_parser().parse_args(argv)
    # Before a verb's module loads numpy.
    arithmetic.choose_tables()
    try:
        _check_outputs(args)
        code = int(importlib.import_module(VERBS[args.verb].module).main(args) or 0)
        if code == 0 and VERBS[args.verb].recorded:
            from zpdbench import records

            records.write(args.verb, vars(args), sys.argv[1:] if argv is None else argv)
        # What is printed may go to a full disk too; at exit it would be too late to say so.
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"zpdbench {args.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except PermissionError as error:
        print(
            f"zpdbench {args.verb}: {error.filename}: no permission to write or read "
            "(choose another folder by results: in the configuration)",
            file=sys.stderr,
        )
        return EXIT_USER_ERROR
    except BrokenPipeError:
        return 1
    except Exception as error:
        from zpdbench import files

        if not files.is_full(error):
            raise
        _tell_full(args, error)
        return EXIT_USER_ERROR


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse what cannot be written before anything is computed for it.

    Raises:
        UserError: see `files.place_of`; or a folder that would be replaced and is nobody's output.
    """
    from zpdbench import files

    given = [value for name, value in vars(args).items() if name.split("_")[0] == "out"]
    for value in given:
        for path in value if isinstance(value, list) else [value]:
            if path is None or files.is_stream(path):
                continue
            place = files.place_of(path, folder=VERBS[args.verb].makes_folder)
            if place.is_dir() and not files.is_replaceable(place):
                raise UserError(
                    "is a folder with files that are not this command's",
                    where=path,
                    fix="name one that is empty or not there",
                )


def _tell_full(args: argparse.Namespace, error: Exception) -> None:
    where = getattr(error, "filename", None) or getattr(args, "out", None)
    told = UserError(
        "the disk is full, or your quota is used up",
        where=str(where or ""),
        fix="free some of it and run again; nothing half-written is left",
    )
    # The log may be on that disk, and so may be what was printed and still waits to be written.
    with contextlib.suppress(OSError):
        print(f"zpdbench {args.verb}: {told}", file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            sys.stdout.close()


def program() -> NoReturn:
    """The console script: `main`, and an end that does not take down what is in memory.

    Python looks once more through the million objects that torch and vLLM hold as it ends, for up
    to 4 s. Exit handlers run as ever; what was printed is written out by then.
    """
    startup.ends_here = True
    code = main()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    program()
