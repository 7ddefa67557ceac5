"""Korean HumanEval for ZPD-Bench: its file is HumanEval's form, but for one line end."""

from pathlib import Path

from zpdbench.benchmarks.loaders import Docs, load_humaneval

DEFINITION = Path(__file__).with_name("definition.yaml")


def load(path: Path, task: str) -> Docs:
    """The documents; prompts end with the docstring's quotes, so the line is ended here."""
    docs = load_humaneval(path, task)[task]
    return {task: [{**doc, "prompt": doc["prompt"] + "\n"} for doc in docs]}
