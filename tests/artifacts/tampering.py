"""Ways to tamper with a bundle, by effort, and the level that can see each.

Effort `naive` changes files and nothing else; `rehash` gives them a new line in the manifest;
`forge` makes all that a bundle says of itself consistent again (records, folder manifests,
descriptions, manifest): what is left is a lie about numbers, which only recomputation can find.
`recompute` makes every table, figure and page anew from the forged verdicts before that.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from tests.artifacts import synthetic
from zpdbench import cli, files, grid, study
from zpdbench.artifacts import crate, evidence, layout, level1, manifest

NAIVE, REHASH, FORGE, RECOMPUTE = "naive", "rehash", "forge", "recompute"
Draw = random.Random


@dataclass(frozen=True)
class Mutation:
    """A change to an unpacked bundle.

    Attributes:
        name: what is done.
        effort: how well it is covered up.
        level: the lowest level that must find it.
        change: does it; the paths it changed are found by comparing hashes.
    """

    name: str
    effort: str
    level: int
    change: Callable[[Path, Draw], None]


def hashes(folder: Path) -> dict[str, str]:
    """Hash of every file but the manifest."""
    return {
        p.relative_to(folder).as_posix(): files.sha256_file(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != manifest.NAME
    }


def rehash(folder: Path) -> None:
    """Write MANIFEST.sha256 for what is there."""
    (folder / manifest.NAME).write_text(manifest.text(hashes(folder)), "utf-8")


def forge(folder: Path) -> None:
    """Make everything that a bundle says of itself true again."""
    loaded = study.load(folder / layout.STUDY)
    facts = json.loads((folder / layout.FACTS).read_text("utf-8"))
    _forge_adapters(folder, loaded)
    _forge_records(folder, loaded)
    facts |= evidence.derive(loaded, evidence.read_records(folder, hashes(folder)))
    facts["included"]["adapters"] = [
        a for a in facts["included"]["adapters"] if (folder / a).is_dir()
    ]
    package = {
        n.removeprefix("workflow/zpdbench/"): h
        for n, h in hashes(folder).items()
        if n.startswith("workflow/zpdbench/")
    }
    facts["code"]["package"] = files.digest(package)
    (folder / layout.FACTS).write_text(evidence.dump(facts), "utf-8")
    readme = crate.readme(facts, len(loaded.seeds), len(loaded.runs))
    (folder / layout.README).write_text(readme, "utf-8")
    found = hashes(folder)
    found.pop(layout.CRATE, None)
    sizes = {n: (folder / n).stat().st_size for n in found}
    jobs = evidence.read_records(folder, found)
    text = crate.metadata(facts, jobs, found, sizes)
    (folder / layout.CRATE).write_text(text, "utf-8")
    rehash(folder)


def recompute(folder: Path) -> None:
    """Make every table, figure and the page anew from the verdicts that are there."""
    value = yaml.safe_load((folder / layout.STUDY).read_text("utf-8"))
    loaded = study.parse({**value, "results": str(folder)})
    _forge_adapters(folder, loaded)
    _forge_records(folder, study.parse(value))
    synthetic.statistics(loaded, folder / layout.STUDY)
    if all((folder / name).is_file() for name in level1.TRAINING_FIGURES):
        synthetic.training_figures(loaded, folder / layout.STUDY)
    for path in sorted(folder.rglob("*.timing.*")):
        path.unlink()


def _forge_adapters(folder: Path, loaded: study.Study) -> None:
    current = hashes(folder)
    paths = layout.Paths("results")
    corpus = evidence.identity(folder, paths.corpus(loaded.corpus.name)[8:], current)
    for run in loaded.runs:
        target = folder / paths.adapter(*run)[8:]
        if not (target / "MANIFEST.json").is_file():
            continue
        value = json.loads((target / "MANIFEST.json").read_text("utf-8"))
        facts = {k: v for k, v in value.items() if k not in ("files", "digest")}
        base = evidence.identity(folder, paths.checkpoint(run.model)[8:], current)
        facts |= {**run._asdict(), "base": base, "corpus": corpus}
        facts["order"] = loaded.conditions[run.condition].order
        if facts != {k: value.get(k) for k in facts} or files.hash_tree(target) != value["files"]:
            files.write_manifest(target, facts)


def _forge_records(folder: Path, loaded: study.Study) -> None:
    known = {layout.record_name(j.outputs[0]): j for j in layout.jobs(loaded)}
    current = hashes(folder)
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "records").rglob("*.json")):
        name = path.relative_to(folder).as_posix()
        record = json.loads(path.read_text("utf-8"))
        for output in record["outputs"]:
            own = evidence.identity(folder, output, current)
            if own is not None:
                record["outputs"][output] = own
        found[name] = record
    made = {o: d for r in found.values() for o, d in r["outputs"].items()}
    for name, record in found.items():
        if name in known:
            record["inputs"] = {i: made[i] for i in known[name].inputs}
            record["settings"] = known[name].settings(loaded)
        else:
            scores = {layout.Paths("results").scores(*r)[8:] for r in loaded.all_runs}
            held = set(record["inputs"])
            wanted = {i for i in held if not i.startswith("scores/")}
            wanted |= scores if wanted != held else set()
            record["inputs"] = {i: made[i] for i in sorted(wanted) if i in made}
            record["settings"] = loaded.digest(record["rule"])
        (folder / name).write_text(evidence.dump(record), "utf-8")


def apply(mutation: Mutation, source: Path, target: Path, seed: int) -> bool:
    """Copy a bundle and tamper with the copy; whether anything is different now."""
    shutil.copytree(source, target)
    before = hashes(target) | {"manifest": files.sha256_file(target / manifest.NAME)}
    mutation.change(target, Draw(seed))
    if mutation.effort == REHASH:
        rehash(target)
    elif mutation.effort == RECOMPUTE:
        recompute(target)
        forge(target)
    elif mutation.effort == FORGE:
        forge(target)
    own = target / manifest.NAME
    after = hashes(target) | {"manifest": files.sha256_file(own) if own.exists() else ""}
    return before != after


# -- what can be done to any file -----------------------------------------------------------------


def _some_file(folder: Path, draw: Draw) -> Path:
    return draw.choice([p for p in sorted(folder.rglob("*")) if p.is_file()])


def _content(folder: Path, draw: Draw, pattern: str = "*") -> Path:
    """A file of the study itself, of a random kind: small kinds would be met too rarely."""
    kinds = {
        kind: sorted(folder.glob(kind))
        for kind in (
            "scores/*/*/*.parquet", "generations/*/*.parquet", "items/*.parquet", "*.tsv",
            "figures/*", "adapters/*/*/*/*/*", "adapters/*/*/*/*.*", "checkpoints/*/*",
            "corpora/*", "records/**/*.json", "*.json", "*.yaml", "*.md", "workflow/**/*.py",
        )
        if pattern == "*" or kind.startswith(pattern)
    }  # fmt: skip
    return draw.choice([p for p in draw.choice([v for v in kinds.values() if v]) if p.is_file()])


def flip(folder: Path, draw: Draw) -> None:
    path = _content(folder, draw)
    data = bytearray(path.read_bytes())
    place = draw.randrange(len(data))
    data[place] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))


def truncate(folder: Path, draw: Draw) -> None:
    path = _content(folder, draw)
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def append(folder: Path, draw: Draw) -> None:
    path = _content(folder, draw)
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.randrange(1, 20)))


def delete(folder: Path, draw: Draw) -> None:
    _content(folder, draw).unlink()


def delete_manifest(folder: Path, draw: Draw) -> None:
    (folder / manifest.NAME).unlink()


def swap(folder: Path, draw: Draw) -> None:
    """Exchange two files of one kind that are not equal."""
    while True:
        kind = draw.choice(
            ["scores/*/*/*.parquet", "adapters/*/*/*/step*/*.safetensors", "items/*.parquet",
             "generations/*/*.parquet", "*.tsv", "records/scores/*/*/*.json"]
        )  # fmt: skip
        one, other = draw.sample(sorted(folder.glob(kind)), 2)
        if one.read_bytes() != other.read_bytes():
            break
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


def add_file(folder: Path, draw: Draw) -> None:
    name = draw.choice(
        ["notes.txt", "adapters/extra.pkl", "scores/small/zpd/s99.parquet", "extra.tsv",
         "workflow/zpdbench/extra.sh", "items/../hidden.bin", ".hidden"]
    )  # fmt: skip
    path = folder / name.replace("../", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw.randbytes(40))


def rename(folder: Path, draw: Draw) -> None:
    path = _content(folder, draw)
    path.rename(path.with_name("x" + path.name))


def edit_manifest(folder: Path, draw: Draw) -> None:
    path = folder / manifest.NAME
    lines = path.read_text("utf-8").splitlines()
    place = draw.randrange(len(lines))
    kind = draw.randrange(4)
    if kind == 0:
        lines.pop(place)
    elif kind == 1:
        lines.append(lines[place])
    elif kind == 2:
        lines[place] = hashlib.sha256(draw.randbytes(4)).hexdigest() + lines[place][64:]
    else:
        lines[place] = f"{lines[place][:66]}../{lines[place][66:]}"
    path.write_text("\n".join(lines) + "\n", "utf-8")


# -- what is done to numbers ----------------------------------------------------------------------


def _rewrite(path: Path, frame: pl.DataFrame) -> None:
    frame.write_parquet(path, compression="zstd", statistics=False)


def _scores(folder: Path, draw: Draw, *, base: bool = False) -> Path:
    found = sorted(folder.glob("scores/*/*/*.parquet"))
    return draw.choice([p for p in found if base or p.parent.name != grid.BASE])


def edit_score(folder: Path, draw: Draw) -> None:
    """Turn a few verdicts at the last step round."""
    path = _scores(folder, draw)
    frame = pl.read_parquet(path)
    last = frame["step"].max()
    places = [i for i, s in enumerate(frame["step"]) if s == last]
    chosen = set(draw.sample(places, draw.randrange(1, 4)))
    wanted = draw.random() < 0.5
    flipped = [
        float(wanted) if i in chosen and draw.random() < 0.5 else (1 - v if i in chosen else v)
        for i, v in enumerate(frame["correct"])
    ]
    if flipped == frame["correct"].to_list():
        first = min(chosen)
        flipped[first] = 1 - flipped[first]
    _rewrite(path, frame.with_columns(pl.Series("correct", flipped, pl.Float64)))


def edit_prediction(folder: Path, draw: Draw) -> None:
    path = _scores(folder, draw, base=True)
    frame = pl.read_parquet(path)
    place = draw.randrange(frame.height)
    values = frame["prediction"].to_list()
    values[place] = f"{values[place]}7"
    _rewrite(path, frame.with_columns(pl.Series("prediction", values)))


def drop_verdict(folder: Path, draw: Draw) -> None:
    path = _scores(folder, draw, base=True)
    frame = pl.read_parquet(path)
    place = draw.randrange(frame.height)
    _rewrite(path, pl.concat([frame[:place], frame[place + 1 :]]))


def edit_statistic(folder: Path, draw: Draw) -> None:
    """Change one number or word of a table by a little."""
    path = draw.choice(sorted(folder.glob("*.tsv")))
    lines = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    cells = [
        (i, j)
        for i, line in enumerate(lines)
        for j, cell in enumerate(line)
        if i and cell and cell != "NA"
    ]
    i, j = draw.choice(cells)
    cell = lines[i][j]
    try:
        value = float(cell)
        lines[i][j] = f"{value * (1 + draw.choice([1e-3, -0.01, 0.5])) + (value == 0) * 0.1:.12g}"
        if lines[i][j] == cell:
            lines[i][j] += "1"
    except ValueError:
        lines[i][j] = {"inconclusive": "supported"}.get(cell, cell + "x")
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n", "utf-8")


def drop_row(folder: Path, draw: Draw) -> None:
    path = draw.choice(sorted(folder.glob("*.tsv")))
    lines = path.read_text("utf-8").splitlines()
    lines.pop(draw.randrange(1, len(lines)))
    path.write_text("\n".join(lines) + "\n", "utf-8")


def edit_figure(folder: Path, draw: Draw) -> None:
    """Move a point of a figure."""
    path = draw.choice(sorted(folder.glob("figures/*.svg")))
    text = path.read_text("utf-8")
    start = text.index('<path d="M', draw.randrange(len(text) // 2))
    place = start + len('<path d="M ')
    end = place
    while text[end] not in " \n":
        end += 1
    path.write_text(f"{text[:place]}{float(text[place:end]) + 25:g}{text[end:]}", "utf-8")


def edit_png(folder: Path, draw: Draw) -> None:
    """Paint a small mark onto a figure."""
    from PIL import Image

    path = draw.choice(sorted(folder.glob("figures/*.png")))
    with Image.open(path) as image:
        painted = image.convert("RGB")
    x, y = (draw.randrange(size // 4, 3 * size // 4) for size in painted.size)
    for place in ((x + i, y + j) for i in range(6) for j in range(6)):
        red, *_ = painted.getpixel(place)
        painted.putpixel(place, (255 - red if abs(127 - red) > 40 else 0, 0, 0))
    painted.save(path)


def edit_report(folder: Path, draw: Draw) -> None:
    """Change a number or a verdict on the page."""
    path = folder / layout.REPORT
    text = path.read_text("utf-8")
    body = text.index("<main")
    numbers = [m for m in re.finditer(r">(-?\d+\.\d+)<", text) if m.start() > body]
    chosen = draw.choice(numbers)
    value = f"{float(chosen[1]) + 1.5:.2f}"
    path.write_text(f"{text[: chosen.start(1)]}{value}{text[chosen.end(1) :]}", "utf-8")


def drop_table(folder: Path, draw: Draw) -> None:
    """Leave out a table, a figure or the page, and its job's record where it has no other."""
    found = [*folder.glob("*.tsv"), *folder.glob("figures/*"), folder / layout.REPORT]
    path = draw.choice(sorted(found))
    name = path.relative_to(folder).as_posix()
    path.unlink()
    for record in sorted((folder / "records").rglob("*.json")):
        value = json.loads(record.read_text("utf-8"))
        if value["outputs"].pop(name, None) is None:
            continue
        record.unlink()
        if value["outputs"]:
            target = folder / layout.record_name(sorted(value["outputs"])[0])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(evidence.dump(value), "utf-8")
    for record in sorted((folder / "records").rglob("*.json")):
        value = json.loads(record.read_text("utf-8"))
        if value["inputs"].pop(name, None):
            record.write_text(evidence.dump(value), "utf-8")


def swap_runs(folder: Path, draw: Draw) -> None:
    """Give a zpd run the verdicts of a random run, columns and all."""
    models = sorted({p.parent.parent.name for p in folder.glob("scores/*/*/*.parquet")})
    model = draw.choice(models)
    seed = draw.choice(sorted(p.name for p in folder.glob(f"scores/{model}/zpd/*.parquet")))
    one, other = (folder / f"scores/{model}/{c}/{seed}" for c in ("random", "zpd"))
    a, b = pl.read_parquet(one), pl.read_parquet(other)
    _rewrite(one, b.with_columns(pl.lit("random").alias("condition")))
    _rewrite(other, a.with_columns(pl.lit("zpd").alias("condition")))


# -- what is done to answers and items ------------------------------------------------------------


def edit_answer(folder: Path, draw: Draw) -> None:
    """Make a wrong answer right, or a right one wrong."""
    path = draw.choice(sorted(folder.glob("generations/*/*.parquet")))
    frame = pl.read_parquet(path)
    places = [i for i, b in enumerate(frame["benchmark"]) if b in ("gsm8k", "mmlu", "kobest")]
    place = draw.choice(places)
    row = frame.row(place, named=True)
    items = pl.read_parquet(folder / "items" / f"{row['benchmark']}.parquet")
    gold = items.filter(pl.col("item_id") == row["item_id"])["gold"][0]
    if row["benchmark"] == "gsm8k":
        right = f"#### {gold}" in row["text"]
        row["text"] = "It is so.\n#### 99999" if right else f"It is so.\n#### {gold}"
    else:
        values = list(row["logprobs"])
        best = max(range(len(values)), key=values.__getitem__)
        to = (best + 1) % len(values) if best == int(gold) else int(gold)
        values[to] = values[best] + 1.0
        row["logprobs"] = values
    _rewrite(path, _with_row(frame, place, row))


def edit_answer_and_score(folder: Path, draw: Draw) -> None:
    """Another answer, and the verdict that follows from it."""
    before = {p: pl.read_parquet(p) for p in sorted(folder.glob("generations/*/*.parquet"))}
    edit_answer(folder, draw)
    for path, frame in before.items():
        after = pl.read_parquet(path)
        place = next((i for i in range(frame.height) if frame.row(i) != after.row(i)), None)
        if place is None:
            continue
        row = after.row(place, named=True)
        run = (row["model"], row["condition"], str(row["seed"]))
        out = folder / f"scores/{run[0]}/{run[1]}/s{run[2]}.parquet"
        out.unlink()
        command = ["score-run", "--study", str(folder / layout.STUDY), "--model", run[0]]
        command += ["--condition", run[1], "--seed", run[2], "--generations", str(path)]
        command += ["--items", *map(str, sorted(folder.glob("items/*"))), "--out", str(out)]
        assert cli.main(command) == 0


def drop_answer(folder: Path, draw: Draw) -> None:
    path = draw.choice(sorted(folder.glob("generations/*/*.parquet")))
    frame = pl.read_parquet(path)
    place = draw.randrange(frame.height)
    _rewrite(path, pl.concat([frame[:place], frame[place + 1 :]]))


def repeat_answer(folder: Path, draw: Draw) -> None:
    path = draw.choice(sorted(folder.glob("generations/*/*.parquet")))
    frame = pl.read_parquet(path)
    place = draw.randrange(frame.height)
    _rewrite(path, pl.concat([frame, frame[place : place + 1]]))


def other_adapter(folder: Path, draw: Draw) -> None:
    """Say that an answer came from another adapter."""
    path = draw.choice(sorted(folder.glob("generations/*/*.parquet")))
    frame = pl.read_parquet(path)
    place = draw.randrange(frame.height)
    row = frame.row(place, named=True)
    row["adapter"] = hashlib.sha256(draw.randbytes(4)).hexdigest()
    _rewrite(path, _with_row(frame, place, row))


def edit_gold(folder: Path, draw: Draw) -> None:
    """Another right answer, with the item's digest left as it was."""
    path = draw.choice([folder / f"items/{b}.parquet" for b in ("gsm8k", "mmlu", "kobest")])
    frame = pl.read_parquet(path)
    place = draw.randrange(frame.height)
    row = frame.row(place, named=True)
    row["gold"] = str(
        int(row["gold"]) + 1 if path.stem == "gsm8k" else 1 - min(1, int(row["gold"]))
    )
    _rewrite(path, _with_row(frame, place, row))


def edit_item(folder: Path, draw: Draw) -> None:
    """Another prompt with its right digest, in the answers too: only the source knows better."""
    path = draw.choice(sorted((folder / "items").glob("*.parquet")))
    frame = pl.read_parquet(path)
    place = draw.randrange(frame.height)
    row = frame.row(place, named=True)
    old = row["digest"]
    row["prompt"] += " Think well."
    fields = {k: v for k, v in row.items() if k not in ("benchmark", "interim", "digest")}
    row["digest"] = files.digest(fields)
    _rewrite(path, _with_row(frame, place, row))
    for answers in sorted(folder.glob("generations/*/*.parquet")):
        table = pl.read_parquet(answers)
        _rewrite(answers, table.with_columns(pl.col("items").replace(old, row["digest"])))


def _with_row(frame: pl.DataFrame, place: int, row: dict[str, Any]) -> pl.DataFrame:
    own = pl.DataFrame([row], schema=frame.schema)
    return pl.concat([frame[:place], own, frame[place + 1 :]])


# -- what is done to the grid ---------------------------------------------------------------------


def _config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / layout.STUDY
    value = yaml.safe_load(path.read_text("utf-8"))
    change(value)
    path.write_text(study.lock_text(study.parse(value)), "utf-8")


def edit_config(folder: Path, draw: Draw) -> None:
    """Say that another study was run."""

    def change(value: dict[str, Any]) -> None:
        kind = draw.randrange(5)
        if kind == 0:
            value["training"]["learning_rate"] *= 2
        elif kind == 1:
            value["training"]["lora"]["rank"] = 16
        elif kind == 2:
            value["corpus"]["seed"] = 7
        elif kind == 3:
            value["generations"]["dtype"] = "bfloat16"
        else:
            value["conditions"]["zpd"]["options"] = {"update_every": 3}

    _config(folder, change)


def edit_hypothesis(folder: Path, draw: Draw) -> None:
    """Another test than was pre-registered."""

    def change(value: dict[str, Any]) -> None:
        h3a = value["hypotheses"]["h3a"]
        kind = draw.randrange(3)
        if kind == 0:
            h3a["alpha"] = 0.2
        elif kind == 1:
            h3a["side"] = "smaller"
        else:
            h3a["small"], h3a["large"] = h3a["large"], h3a["small"]

    _config(folder, change)


def edit_adapter(folder: Path, draw: Draw) -> None:
    path = draw.choice(sorted(folder.glob("adapters/*/*/*/step*/*.safetensors")))
    data = bytearray(path.read_bytes())
    data[-1 - draw.randrange(32)] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))


def drop_run(folder: Path, draw: Draw) -> None:
    """Take out one run's files; the configuration still asks for it."""
    path = _scores(folder, draw)
    model, condition, seed = path.parent.parent.name, path.parent.name, path.stem
    path.unlink()
    (folder / f"records/scores/{model}/{condition}/{seed}.parquet.json").unlink()
    shutil.rmtree(folder / f"adapters/{model}/{condition}/{seed}")
    (folder / f"records/adapters/{model}/{condition}/{seed}.json").unlink()


def drop_seed(folder: Path, draw: Draw) -> None:
    """Take a seed out of the study as if it had never been: configuration, files, records."""
    seed = draw.choice(yaml.safe_load((folder / layout.STUDY).read_text("utf-8"))["seeds"])
    _config(folder, lambda value: value["seeds"].remove(seed))
    for pattern in ("scores/*/*/s{}.parquet", "adapters/*/*/s{}"):
        for path in folder.glob(pattern.format(seed)):
            if path.parent.name == grid.BASE:
                continue
            record = folder / layout.record_name(path.relative_to(folder).as_posix())
            record.unlink()
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in sorted(folder.glob("generations/*/*.parquet")):
        frame = pl.read_parquet(path)
        keep = (pl.col("seed") != seed) | (pl.col("condition") == grid.BASE)
        _rewrite(path, frame.filter(keep))


def add_run(folder: Path, draw: Draw) -> None:
    """Another seed's verdicts, copied from one that is there."""
    path = _scores(folder, draw)
    frame = pl.read_parquet(path).with_columns(pl.lit(99, pl.Int64).alias("seed"))
    _rewrite(path.with_name("s99.parquet"), frame)


def edit_record(folder: Path, draw: Draw) -> None:
    path = draw.choice(sorted((folder / "records").rglob("*.json")))
    record = json.loads(path.read_text("utf-8"))
    kind = draw.randrange(4)
    if kind == 0:
        record["settings"] = hashlib.sha256(draw.randbytes(4)).hexdigest()
    elif kind == 1:
        name = draw.choice(sorted(record["outputs"]))
        record["outputs"][name] = hashlib.sha256(draw.randbytes(4)).hexdigest()
    elif kind == 2:
        record["command"].append("--force")
    else:
        record["machine"]["cpu"] = "another"
    path.write_text(evidence.dump(record), "utf-8")


def edit_run_fact(folder: Path, draw: Draw) -> None:
    """Say in a run's manifest that it is another run's; the hashes of its files stay right."""
    path = draw.choice(sorted(folder.glob("adapters/*/*/*/MANIFEST.json")))
    value = json.loads(path.read_text("utf-8"))
    key = draw.choice(["model", "condition", "seed", "base", "corpus", "steps"])
    value[key] = {"seed": value["seed"] + 1, "steps": [1]}.get(key, f"{value[key]}x")
    path.write_text(json.dumps(value), "utf-8")


def edit_manifest_fact(folder: Path, draw: Draw) -> None:
    """Change what a run's manifest says of how it went."""
    for path in sorted(folder.glob("adapters/*/*/*/MANIFEST.json")):
        value = json.loads(path.read_text("utf-8"))
        value["trained_parameters"] += 1
        path.write_text(json.dumps(value), "utf-8")


def edit_trace(folder: Path, draw: Draw) -> None:
    """Make every run's gradients look calmer than they were: no table shows them."""
    for path in sorted(folder.glob("adapters/*/*/*/trace.parquet")):
        frame = pl.read_parquet(path)
        frame = frame.with_columns(pl.col("gradient_norm") * 0.5)
        frame.write_parquet(path, compression="zstd", compression_level=3, statistics=True)


def edit_description(folder: Path, draw: Draw) -> None:
    path = folder / draw.choice([layout.CRATE, layout.README, layout.FACTS])
    text = path.read_text("utf-8")
    path.write_text(text.replace("ZPD", "zpd", 1), "utf-8")


MUTATIONS: tuple[Mutation, ...] = (
    *(
        Mutation(f.__name__, NAIVE, 0, f)
        for f in (flip, truncate, append, delete, swap, add_file, rename, delete_manifest)
    ),
    Mutation("edit_manifest", NAIVE, 0, edit_manifest),
    *(
        Mutation(f.__name__, NAIVE, 0, f)
        for f in (edit_score, edit_statistic, edit_config, drop_run, add_run, edit_answer)
    ),
    *(
        Mutation(f.__name__, REHASH, 0, f)
        for f in (
            flip, truncate, append, delete, swap, add_file, rename, edit_score, edit_prediction,
            drop_verdict, edit_statistic, drop_row, edit_figure, edit_answer, edit_gold,
            edit_adapter, drop_run, drop_seed, add_run, edit_config, edit_hypothesis, edit_record,
            edit_description, edit_run_fact,
        )
    ),
    *(Mutation(f.__name__, FORGE, 0, f) for f in (drop_table,)),
    *(
        Mutation(f.__name__, FORGE, 1, f)
        for f in (edit_statistic, drop_row, edit_figure, edit_png, edit_report)
    ),
    *(Mutation(f.__name__, FORGE, 1, f) for f in (edit_hypothesis, drop_seed)),
    # A verdict can be wrong where no statistic looks, so level 2 is the one that must see it.
    *(
        Mutation(f.__name__, FORGE, 2, f)
        for f in (
            edit_score, edit_prediction, drop_verdict, swap_runs, edit_answer, drop_answer,
            repeat_answer, other_adapter, edit_gold, edit_item,
        )
    ),
)  # fmt: skip
