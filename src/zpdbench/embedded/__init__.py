"""What the embedded default is made of: generated examples, items, text and a tokenizer."""

from zpdbench.embedded.mixture import (
    BENCHMARKS,
    CORPUS,
    PRETRAINING,
    Text,
    benchmark_docs,
    examples,
    pretraining_texts,
    tokenizer_texts,
)

__all__ = [
    "BENCHMARKS",
    "CORPUS",
    "PRETRAINING",
    "Text",
    "benchmark_docs",
    "examples",
    "pretraining_texts",
    "tokenizer_texts",
]
