"""`zpdbench plan`: what a configuration would run, before anything runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from zpdbench import resources
from zpdbench.study import TABLES, Study, load


@dataclass(frozen=True)
class Plan:
    """Sizes of a study.

    Attributes:
        jobs: rule -> number of jobs, for the target `all` from an empty results folder.
        points: adapters and bases that answer items, over all models.
        cells: points x benchmarks.
        steps: optimiser steps over all runs.
        examples: training examples seen over all runs.
        memory_mb: model -> (training, serving) memory in MiB, as asked of a scheduler.
        disk_gib: adapters, checkpoints and answers, roughly, in GiB.
        warnings: what a reader of the results would want to have known before.
    """

    jobs: dict[str, int]
    points: int
    cells: int
    steps: int
    examples: int
    memory_mb: dict[str, tuple[int, int]]
    disk_gib: float
    warnings: list[str]


def _warnings(study: Study) -> list[str]:
    warnings = []
    training = study.training
    for name, condition in study.conditions.items():
        every = condition.options.get("update_every")
        smoothing = condition.options.get("smoothing", 0.9)
        if condition.order == "zpd" and every:
            updates = max(1, -(-training.steps // int(every)))
            carried = float(smoothing) ** (updates - 1)
            if carried > 0.1:
                warnings.append(
                    f"{name}: after {updates} updates the smoothed competence still carries "
                    f"{100 * carried:.0f} % of its first value; the window lags the model"
                )
    if len(study.seeds) < 10:
        warnings.append(
            f"{len(study.seeds)} seeds: a difference between two effects needs about 50 for 80 % "
            "power at d 1.5 against 2.2"
        )
    return warnings


def make_plan(study: Study) -> Plan:
    """Count what `study` would run; pure arithmetic, no files are read."""
    served = len(study.served_steps)
    points = len(study.runs) * served + len(study.models)
    runs = len(study.runs)
    jobs = {
        "make_checkpoint": len(study.models),
        "make_items": len(study.benchmarks),
        "make_corpus": 1,
        "train_adapter": runs,
        "generate_chunk": len(study.chunks),
        "score_run": len(study.all_runs),
        "aggregate_scores": 1,
        "h3a": 1,
        **dict.fromkeys(TABLES, 1),
        "draw_figures": 1,
        "report": 1,
        "all": 1,
    }
    kept = len(study.evaluation_steps)
    disk = 0.0
    for model in study.models:
        parameters = resources.parameters(study, model)
        # LoRA of rank r on all linear layers holds about 2 r sqrt(12 N L) values; one part in 150
        # at rank 8 for models of 0.1 to 10 billion parameters, more in tiny ones.
        adapter = parameters / 150 * study.training.lora.rank / 8 * 4
        disk += parameters * 4 + adapter * kept * len(study.conditions) * len(study.seeds)
    return Plan(
        jobs=jobs,
        points=points,
        cells=points * len(study.benchmarks),
        steps=runs * study.training.steps,
        examples=runs * study.training.steps * study.training.batch_size,
        memory_mb={
            m: (resources.train_mb(study, m), resources.serve_mb(study, m)) for m in study.models
        },
        disk_gib=disk / 2**30,
        warnings=_warnings(study),
    )


def _print(plan: Plan, study: Study) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    console.print(
        f"{len(study.models)} models x {len(study.conditions)} conditions x "
        f"{len(study.seeds)} seeds, {len(study.benchmarks)} benchmarks, evaluated at "
        f"{len(study.served_steps)} steps: {plan.points:,} adapters and bases, "
        f"{plan.cells:,} cells"
    )
    console.print(
        f"{plan.steps:,} optimiser steps, {plan.examples:,} examples; about "
        f"{plan.disk_gib:.2g} GiB of disk"
    )
    table = Table("rule", "jobs", box=None, pad_edge=False)
    for rule, count in plan.jobs.items():
        table.add_row(rule, f"{count:,}")
    table.add_row("total", f"{sum(plan.jobs.values()):,}")
    console.print(table)
    memory = Table("model", "training MiB", "serving MiB", box=None, pad_edge=False)
    for model, (train, serve) in plan.memory_mb.items():
        memory.add_row(model, f"{train:,}", f"{serve:,}")
    console.print(memory)
    for warning in plan.warnings:
        console.print(f"warning: {warning}")


def main(args: argparse.Namespace) -> None:
    """Print the plan of the configuration files given, later ones over earlier ones."""
    files: Sequence[str] = args.configfile
    study = load(*files)
    _print(make_plan(study), study)
