"""The layers of DESIGN, drawn from the real imports: no cycle, nothing reaches upwards."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

# A package may import only what stands on an earlier line, and itself.
LAYERS: list[set[str]] = [
    {"errors", "__init__"},
    {"arithmetic", "files", "progress", "startup", "hypotheses"},
    {"grid", "revisions", "devices", "places", "text"},
    # Benchmarks are data: a study asks them where on the hub they are.
    {"benchmarks"},
    {"study"},
    {"hardware", "core_rate"},
    {"estimate"},
    {"resources", "schema", "images", "cluster", "hub", "failures", "datasheet"},
    # A record says which image its job ran in.
    {"records"},
    {"sandbox", "engines", "curriculum"},
    {"embedded"},
    {
        "checkpoints",
        "corpora",
        "adapters",
        "generations",
        "scores",
        "statistics",
        "artifacts",
    },
    # The report asks the statistics which metric is a benchmark's own.
    {"report"},
    {"plan", "doctor", "preflight", "init", "inputs", "register"},
    {"cli"},
    # Asks the command line what it knows; loaded by its verb alone.
    {"completion"},
]
# hypotheses condenses itself with files.digest, inside a method.
SAME_LAYER = {("hypotheses", "files"), ("files", "errors")}
HEAVY = {"torch", "transformers", "vllm", "peft", "scipy", "statsmodels", "pandas", "matplotlib"}


def _imports(path: Path, root: Path) -> set[str]:
    package = ["zpdbench", *path.relative_to(root).with_suffix("").parts]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: -node.level], *([base] if base else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def _graph(root: Path) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for path in sorted((root / "src/zpdbench").rglob("*.py")):
        relative = path.relative_to(root / "src/zpdbench")
        part = relative.parts[0].removesuffix(".py")
        targets = {
            name.split(".")[1]
            for name in _imports(path, root / "src/zpdbench")
            if name.startswith("zpdbench.") and not name.endswith(".__version__")
        }
        graph.setdefault(part, set()).update(targets - {part})
    return graph


def test_no_layer_reaches_upwards(root: Path) -> None:
    rank = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    graph = _graph(root)
    assert set(graph) <= set(rank), "a new package needs a layer"
    for part, targets in graph.items():
        for target in targets:
            assert rank[target] < rank[part] or (part, target) in SAME_LAYER, (
                f"{part} imports {target}, which is not below it"
            )


def test_no_cycle(root: Path) -> None:
    TopologicalSorter(_graph(root)).prepare()


def test_verbs_of_every_rule_exist(root: Path) -> None:
    import re

    from zpdbench.cli import VERBS

    rules = "".join(p.read_text("utf-8") for p in sorted((root / "rules").glob("*.smk")))
    called = set(re.findall(r'"zpdbench ([a-z0-9-]+)', rules))
    assert called and called <= set(VERBS)


def test_command_line_loads_nothing_heavy() -> None:
    code = (
        "import sys, zpdbench.cli as c; c.build_parser().format_help();"
        f"print(sorted(set(sys.modules) & {HEAVY | {'pydantic', 'polars', 'numpy', 'yaml'}!r}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_snakefile_side_loads_nothing_heavy() -> None:
    code = (
        "import sys, zpdbench.study, zpdbench.grid, zpdbench.resources;"
        f"print(sorted(set(sys.modules) & {HEAVY | {'polars', 'numpy'}!r}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_design_s_table_is_these_layers(root: Path) -> None:
    text = (root / "docs/design.md").read_text("utf-8")
    rows = [line.split("|")[2] for line in text.splitlines() if line.startswith("| ")]
    told = [{name.strip() for name in row.split(",")} for row in rows]
    wanted = [layer - {"__init__"} for layer in LAYERS]
    start = told.index(wanted[0])
    assert told[start : start + len(wanted)] == wanted
