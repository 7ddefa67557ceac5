"""Benchmarks as data: templates, few-shot rules, stop sequences, extraction, metrics, versions.

Each benchmark is one YAML file in `definitions/` (or another package's, by entry point) plus the
few named functions that are really special. Prompts and answers follow the task of the same name
in EleutherAI's lm-evaluation-harness 0.4.13.
"""

from zpdbench.benchmarks.definition import Definition, Task, find, load, names
from zpdbench.benchmarks.rendering import Rendered, render

__all__ = ["Definition", "Rendered", "Task", "find", "load", "names", "render"]
