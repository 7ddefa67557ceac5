"""`zpdbench plan`: what a configuration would run and cost, before anything runs."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import core_rate, estimate, grid, resources
from zpdbench.adapters import first_update
from zpdbench.corpora import make_items
from zpdbench.errors import UserError
from zpdbench.hardware import MACHINES, Machine
from zpdbench.study import EmbeddedModel, GgufModel, HubModel, Study, load, resolve

if TYPE_CHECKING:
    from rich.console import Console

_LEAST_PROBE = 64
# What the order zpd does where its options do not say (zpdbench.curriculum.conditions).
_UPDATE_EVERY, _KEEP = 500, 0.9


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
        disk_gb: what is kept -> 10^9 bytes, roughly.
        warnings: what a reader of the results would want to have known before.
    """

    jobs: dict[str, int]
    points: int
    cells: int
    steps: int
    examples: int
    memory_mb: dict[str, tuple[int, int]]
    disk_gb: dict[str, float]
    warnings: list[str]


def unpinned(study: Study) -> list[str]:
    """What is taken from the hub and cannot be loaded yet, a line each."""
    lines = []
    for source in study.hub_sources:
        if source.revision is None:
            lines.append(f"{source.name}: no revision of {source.repo} is pinned; `zpdbench pin`")
        elif not source.files:
            lines.append(
                f"{source.name}: {source.repo} is pinned to {source.revision[:8]}, "
                "the hashes of its files are not; `zpdbench pin`"
            )
    return lines


def _window_warnings(study: Study) -> Iterator[str]:
    for name, condition in study.conditions.items():
        if condition.order == "zpd":
            every = int(condition.options.get("update_every", _UPDATE_EVERY))
            keep = float(condition.options.get("keep", _KEEP))
            updates = max(1, -(-study.training.steps // every))
            meant = condition.options.get("per_steps") or every
            carried = keep ** ((updates - 1) * every / meant)
            if carried > 0.1:
                yield (
                    f"{name}: after {updates} updates the smoothed competence still carries "
                    f"{100 * carried:.0f} % of its first value; the window lags the model"
                )
        if condition.order == "random" and condition.options.get("draw"):
            yield (
                f"{name}: random with a draw of its own: other examples than the other conditions "
                "of its seed, as a null control needs and nothing else"
            )
    if study.corpus.probe < _LEAST_PROBE:
        yield (
            f"corpus.probe: {study.corpus.probe} examples tell competence coarsely; the adaptive "
            "window answers to changes of 1 %"
        )


def _data_warnings(study: Study) -> Iterator[str]:
    for name, source in study.corpus.sources.items():
        public = estimate.PUBLISHED.get(source.repo or "")
        if public and source.examples and source.examples > public:
            then = (
                "all are used, and every result says so"
                if study.corpus.on_shortfall == "use_all"
                else "set corpus.on_shortfall: use_all, or the run will stop"
            )
            yield f"{name}: {source.examples:,} examples asked, {public:,} are public; {then}"
    for model in study.models:
        for name, source in study.corpus.sources.items():
            mean = estimate.source_tokens(study, model, source)
            if mean > 0.75 * study.training.max_tokens:
                yield (
                    f"{name}: about {mean:,.0f} tokens an example in {model}'s tokenizer, where "
                    f"max_tokens is {study.training.max_tokens:,}: many are cut or left out"
                )
    yield from unpinned(study)


def _form_warnings(study: Study) -> Iterator[str]:
    for name in study.benchmarks:
        if said := make_items.check_form(study, name):
            yield said


def _family(study: Study, model: str) -> str | None:
    """What a model's name says of its family; None where nothing is known."""
    spec = study.models[model]
    scaled = ", depth up-scaled" if spec.upscale else ""
    if isinstance(spec, HubModel):
        return spec.repo.split("/")[1].split("-")[0].lower() + scaled
    if isinstance(spec, EmbeddedModel):
        return spec.architecture + scaled
    file = spec.file if isinstance(spec, GgufModel) else spec.path
    if file.endswith(".gguf"):
        return Path(file).name.split("-")[0].lower() + scaled
    return None


def _hypothesis_warnings(study: Study) -> Iterator[str]:
    h3a = study.hypotheses.h3a
    if h3a is None:
        return
    small, large = _family(study, h3a.small), _family(study, h3a.large)
    if small is None or large is None:
        unknown = h3a.small if small is None else h3a.large
        yield (
            f"{unknown}: its family is not known here; if it is not that of the other model, a "
            "difference between them is not one of size alone"
        )
    elif small != large:
        yield (
            f"{h3a.small} and {h3a.large} differ in more than size ({small}; {large}): a "
            "difference between them is not one of size alone (config/ladder.yaml has one family)"
        )
    sizes = [estimate.parameters(study, m) for m in (h3a.small, h3a.large)]
    if sizes[0] >= sizes[1]:
        yield f"{h3a.large} is not larger than {h3a.small} (give parameters: where unknown)"
    from zpdbench.statistics import power_table

    for row in power_table.plan(h3a, len(study.seeds), list(study.benchmarks)):
        if row["is_planned"] and row["power"] < 0.8:
            of_d = " of two d" if row["scale"] == "d" else " points"
            claimed = f"{row['claimed_difference']:.2g}{of_d}"
            if row["seeds_for_80"] is None:
                yield (
                    f"the claimed difference {claimed} (with a gain of "
                    f"{row['claimed_gain']:.2g}) is none in the stated "
                    "direction: no number of seeds would show it"
                )
                continue
            yield (
                f"{row['n_seeds']} seeds: power {row['power']:.2f} for the claimed difference "
                f"{claimed} and gain {row['claimed_gain']:.2g}, smallest difference found with "
                f"0.80 is {row['mde_80']:.2g}; {row['seeds_for_80']:,} seeds would do "
                f"({row['basis']})"
            )


def _memory_warnings(study: Study) -> Iterator[str]:
    for model in study.models:
        if said := resources.too_large_to_train(study, model):
            yield said
    if any(resources.wants_gpu(study, m) for m in study.models):
        largest = max(MACHINES.values(), key=lambda machine: machine.memory_gb)
        for model in study.models:
            train = estimate.train_gb(study, model, study.training.method)
            serve = estimate.serve_gb(study, model)
            if max(train, serve) > largest.memory_gb:
                least = estimate.train_gb(study, model, study.training.method, micro_batch=1)
                yield (
                    f"{model} fits on no machine named: training needs {train:.0f} GB "
                    f"({least:.0f} one example at a time) and serving {serve:.0f}, the largest "
                    f"has {largest.memory_gb:.0f} (docs/r4.md says which models run)"
                )
    # The hardware that the study's authors name: (up to so many parameters, method, GB).
    for ceiling, method, stated in (
        (8e9, "lora", 16), (1.2e10, "lora", 24), (8e9, "full", 28), (1.2e10, "full", 40),
    ):  # fmt: skip
        for model in study.models:
            size = estimate.parameters(study, model)
            if not (6e9 if ceiling == 8e9 else 9e9) < size < ceiling:
                continue
            needed = estimate.train_gb(study, model, method, micro_batch=1)
            if needed > stated:
                what = "LoRA" if method == "lora" else "full fine-tuning with Adam"
                yield (
                    f"{model}: {what} needs {needed:.0f} GB even one example at a time; the "
                    f"{stated} GB often named are too small"
                )


def _warnings(study: Study) -> list[str]:
    parts = (
        *(_window_warnings, _data_warnings, _form_warnings),
        *(_hypothesis_warnings, _memory_warnings),
    )
    return [warning for part in parts for warning in part(study)]


def make_plan(study: Study) -> Plan:
    """Count what `study` would run; pure arithmetic, no data are read."""
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
        **dict.fromkeys(study.tables, 1),
        "draw_figures": 1,
        "draw_training": 1,
        "report": 1,
        "all": 1,
    }
    return Plan(
        jobs=jobs,
        points=points,
        cells=points * len(study.benchmarks),
        steps=runs * study.training.steps,
        examples=runs * study.training.steps * study.training.batch_size,
        memory_mb={
            m: (resources.train_mb(study, m), resources.serve_mb(study, m)) for m in study.models
        },
        disk_gb=estimate.disk_gb(study),
        warnings=_warnings(study),
    )


def other_jobs(plan: Plan) -> int:
    """Jobs that are neither base models, runs, answers nor scores."""
    apart = {"make_checkpoint", "train_adapter", "generate_chunk", "score_run", "all"}
    return sum(count for rule, count in plan.jobs.items() if rule not in apart)


def _machines(study: Study, asked: Sequence[str] | None) -> list[str]:
    if asked:
        if unknown := sorted(set(asked) - {*MACHINES, "cpu"}):
            raise UserError(
                f"no machine {unknown[0]!r}", where="--hardware", fix=", ".join([*MACHINES, "cpu"])
            )
        return list(asked)
    real = any(resources.needs_gpu(study, m) for m in study.models)
    return list(MACHINES) if real else ["cpu"]


def _size(study: Study, console: Console, plan: Plan) -> None:
    console.print(
        (f"{study.study}: " if study.study else "")
        + f"{len(study.models)} models x {len(study.conditions)} conditions x "
        f"{len(study.seeds)} seeds, {len(study.benchmarks)} benchmarks, evaluated at "
        f"{len(study.served_steps)} steps: {plan.points:,} adapters and bases, "
        f"{plan.cells:,} cells"
    )
    trained = scored = flop = read = written = 0.0
    for model in study.models:
        asked = estimate.answer_tokens(study, model)
        read, written = read + asked[0], written + asked[1]
        for condition in study.conditions:
            t, s = estimate.training_tokens(study, model, condition)
            trained += t * len(study.seeds)
            scored += s * len(study.seeds)
            flop += estimate.train_flop(study, model, condition) * len(study.seeds)
    console.print(
        f"{plan.steps:,} optimiser steps, {plan.examples:,} examples: about {trained:.2g} tokens "
        f"trained on, {scored:.2g} scored for zpd, {flop:.2g} floating-point operations; "
        f"evaluation reads {read:.2g} tokens and writes {written:.2g}"
    )
    disk = ", ".join(f"{name} {value:.3g}" for name, value in plan.disk_gb.items() if value)
    console.print(f"disk: about {sum(plan.disk_gb.values()):.3g} GB ({disk})")


def _hours(
    study: Study, console: Console, machines: Sequence[str], price: float | None, devices: int
) -> None:
    from rich.table import Table

    columns = ["device", "model", "train h", "serve h", "days", "LoRA GB", "full GB", "serve GB"]
    table = Table(*columns, *(["cost"] if price else []), box=None, pad_edge=False)
    for key in machines:
        if key == "cpu":
            continue
        machine = MACHINES[key]
        totals: list[tuple[estimate.Hours, estimate.Hours]] = []
        for model in study.models:
            train = estimate.train_hours(study, model, machine)
            serve = estimate.serve_hours(study, model, machine)
            memory = [
                _fits(estimate.train_gb(study, model, "lora"), machine),
                _fits(estimate.train_gb(study, model, "full"), machine),
                _fits(estimate.serve_gb(study, model), machine),
            ]
            row = [machine.name, model]
            if train is None or serve is None:
                row += ["NA", "NA", "NA", *memory, *(["NA"] if price else [])]
            else:
                both = train + serve
                totals.append((train, serve))
                row += [_range(train.low, train.high), _range(serve.low, serve.high)]
                row += [_range(both.low / 24 / devices, both.high / 24 / devices), *memory]
                row += [_range(both.low * price, both.high * price)] if price else []
            table.add_row(*row)
        if len(totals) > 1:
            train, serve = (sum(part, estimate.Hours(0, 0)) for part in zip(*totals, strict=True))
            both = train + serve
            row = [
                machine.name,
                "all",
                _range(train.low, train.high),
                _range(serve.low, serve.high),
            ]
            row += [_range(both.low / 24 / devices, both.high / 24 / devices), "", "", ""]
            row += [_range(both.low * price, both.high * price)] if price else []
            table.add_row(*row, style="bold")
    if table.row_count:
        console.print(table)
        console.print(
            "hours are of one device, from 50 % to 25 % of its published arithmetic; * does not "
            "fit; NA: its maker publishes no figure. Formulas: docs/r4.md"
        )


def _cpu(study: Study, console: Console, plan: Plan, core_gflops: float | None) -> None:
    how = "given" if core_gflops else "measured now"
    rate, cores = core_gflops or core_rate.measure(), os.cpu_count() or 1
    found = estimate.cpu_seconds(study, other_jobs(plan), cores, rate)
    console.print(
        f"on this CPU ({cores} cores, each {rate:.0f} GFLOP/s in float32, {how}), summed over "
        f"jobs: base models about {_duration(found.models)}, training {_duration(found.training)}, "
        f"answers {_duration(found.answers)}, scores {_duration(found.scores)}; the whole study, "
        f"all cores busy, about {_duration(found.whole)}. Formulas and how far off they were: "
        "docs/r4.md"
    )


def _fits(needed: float, machine: Machine) -> str:
    return f"{needed:.0f}" + ("*" if needed > machine.memory_gb else "")


def _range(low: float, high: float) -> str:
    return f"{_figure(low)}-{_figure(high)}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _power(study: Study, console: Console, pilot: Sequence[str] | None) -> None:
    from zpdbench.statistics import power_table

    resolved = study.resolved_hypotheses
    digest = resolved.digest()
    registered = resolved.registered
    state = "not registered" if not registered else "registered"
    if registered and not digest.startswith(registered):
        state = f"another digest is registered ({registered}): results will be exploratory"
    console.print(f"digest of the hypotheses and the design: {digest[:16]} ({state})")
    h3a = study.hypotheses.h3a
    if h3a is None:
        if pilot:
            raise UserError("no hypotheses.h3a to plan for", where=pilot[0], fix="state it first")
        return
    named = h3a.benchmarks or list(study.benchmarks)
    if not pilot:
        rows = power_table.plan(h3a, len(study.seeds), named)
        console.print(f"power of H3a's rule at {h3a.alpha:g} one-sided: {rows[0]['basis']}")
        _power_table(rows, "difference in points" if rows[0]["scale"] == "pp" else "d", console)
        console.print(f"{rows[0]['note']}", soft_wrap=True)
        return
    rows, cells, drawn = power_table.of_files(pilot, h3a, named, len(study.seeds))
    mean = [r for r in rows if r["benchmark"] == "mean"]
    console.print(f"after the pilot, {mean[0]['note']}, mean over the benchmarks:", soft_wrap=True)
    _power_table(mean, "difference in points", console)
    if drawn is None:
        console.print(
            "the cheapest split of seeds and items needs the pilot's single answers: give its "
            "scores/MODEL/CONDITION/s*.parquet, not scores.tsv"
        )
        return
    _split(study, console, cells, drawn, mean[0])


def _split(study: Study, console: Console, cells: Any, drawn: Any, row: Mapping[str, Any]) -> None:
    """The cheapest seeds and items for the claim: Cochran's split of a two-stage sample.

    A seed's difference has variance a + e / items, and costs its four runs and their answers;
    the cheapest number of items is sqrt(e / a x cost of the runs / cost of an item).
    Source: Cochran 1977, eq. 10.26.
    """
    from zpdbench.statistics import h3a as tests
    from zpdbench.statistics import power

    h = study.hypotheses.h3a
    assert h is not None
    _, _, found = tests.for_new_items(cells, h, "mean", drawn)
    if found is None:
        console.print("no split of seeds and items: the pilot's seeds do not differ")
        return
    n, items = _seeds_of(cells), int(cells.n_items.sum())
    noise, own = found.noise * n * items, (found.seeds - found.noise) * n
    share = min(found.noise / found.seeds, 1.0)
    console.print(
        f"of the spread between seeds {100 * share:.0f} % is single answers' noise on {items} items"
    )
    if not own > 0.01 * found.seeds * n:
        console.print("nearly all of it: more items, as many as there are, before more seeds")
        return
    runs, item = _costs(study, (h.small, h.large), (h.treatment, h.control))
    best = max(round(math.sqrt(noise / own * runs / item)), 1)
    factor = math.sqrt((own + noise / best) / (own + noise / items))
    gains = tests.claimed_gains(cells, h, "mean")
    needed = None
    if gains is not None:
        sds = (factor * row["sd_small"], factor * row["sd_large"])
        needed = power.seeds_needed(
            lambda k: power.of_rule(*gains, *sds, n=(k, k), correlation=row["correlation"], h=h)
        )
    said = "" if needed is None else f" and {needed:,} seeds"
    now = row["seeds_for_80"]
    price = (
        f", {needed * (runs + best * item) / (now * (runs + items * item)):.2f} of the cost of "
        f"{now:,} seeds on {items} items"
        if needed and now
        else ""
    )
    console.print(
        f"cheapest for the claim: about {best:,} items in all{said}{price} (a seed's runs cost as "
        f"much as {runs / item:,.0f} items; found on {n} seeds, and as uncertain as they are)"
    )


def _seeds_of(cells: Any) -> int:
    """Seeds of the smaller model."""
    return min(len(s) for s in cells.seeds.values())


def _costs(study: Study, models: Sequence[str], conditions: Sequence[str]) -> tuple[float, float]:
    """Seconds of a seed's runs without their final answers, and of one final item in all."""
    runs = answers = 0.0
    for model in models:
        for condition in conditions:
            run = [grid.Run(model, condition, study.seeds[0])]
            runs += estimate.cpu_train_seconds(study, model, condition)
            answers += estimate.cpu_serve_seconds(study, model, run) - estimate.CPU_ENGINE_SECONDS
    # Interim answers come with a run, final ones with an item.
    final = sum(estimate.items_asked(name, b)[0] for name, b in study.benchmarks.items())
    steps = len(study.served_steps) - 1
    interim = sum(estimate.items_asked(name, b)[1] for name, b in study.benchmarks.items()) * steps
    one = answers / (final + interim)
    return runs + interim * one, one


def _power_table(rows: list[dict[str, Any]], unit: str, console: Console) -> None:
    from rich.table import Table

    if not rows:
        return
    needed, claimed = rows[0]["seeds_for_80"], rows[0]["claimed_difference"]
    table = Table("seeds", "power for the claim", f"smallest {unit} found (0.80)", box=None)
    for row in rows:
        mark = " (planned)" if row["is_planned"] else ""
        power = f"{row['power']:.2f}" if math.isfinite(row["power"]) else "no claim"
        table.add_row(f"{row['n_seeds']}{mark}", power, f"{row['mde_80']:.2f}")
    console.print(table)
    low, high = rows[0]["seeds_for_80_low"], rows[0]["seeds_for_80_high"]
    if needed is not None:
        span = "" if low is None else f" ({low:,} to {high:,}" if high else f" ({low:,} or more"
        console.print(
            f"80 % power for the claim needs {needed:,.0f} seeds"
            + (f"{span}, as the pilot's spread is uncertain)" if span else "")
        )
    elif math.isfinite(claimed):
        why = "it is none in the stated direction" if claimed <= 0 else "the spread is too wide"
        console.print(f"no number of seeds gives 80 % power for the claim: {why}")


def _print(plan: Plan, study: Study, args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    _size(study, console, plan)
    table = Table("rule", "jobs", box=None, pad_edge=False)
    for rule, count in plan.jobs.items():
        table.add_row(rule, f"{count:,}")
    table.add_row("total", f"{sum(plan.jobs.values()):,}")
    console.print(table)
    memory = Table("model", "training MiB", "serving MiB", box=None, pad_edge=False)
    for model, (train, serve) in plan.memory_mb.items():
        memory.add_row(model, f"{train:,}", f"{serve:,}")
    console.print(memory)
    machines = _machines(study, args.hardware)
    _hours(study, console, machines, args.price, args.devices)
    if "cpu" in machines:
        _cpu(study, console, plan, args.core_gflops)
    _power(study, console, args.pilot)
    for warning in plan.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    for line in first_update.lines(study, asked=args.window):
        console.print(line, soft_wrap=True)


def main(args: argparse.Namespace) -> None:
    """Print the plan of the configuration files given, later ones over earlier ones.

    Raises:
        UserError: a mistake in the configuration, a machine that is not known.
    """
    for name, value, least in (("--devices", args.devices, 1), ("--price", args.price or 0, 0)):
        if not value >= least:
            raise UserError(f"{value:g} is too few", where=name, fix=f"give {least} or more")
    if args.core_gflops is not None and not 0 < args.core_gflops < math.inf:
        raise UserError(
            f"{args.core_gflops:g} is no rate",
            where="--core-gflops",
            fix="give GFLOP/s of one core, or leave it out to have it measured",
        )
    files: Sequence[str] = args.configfile
    study = resolve(load(*files))
    _print(make_plan(study), study, args)
