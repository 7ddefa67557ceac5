"""What the embedded default is made of: generated examples, items, text and a tokenizer."""

from zpdbench.embedded.mixture import (
    BENCHMARKS,
    Text,
    benchmark_docs,
    examples,
    pretraining_texts,
    tokenizer_texts,
)

__all__ = [
    "BENCHMARKS",
    "Text",
    "benchmark_docs",
    "examples",
    "pretraining_texts",
    "tokenizer_texts",
]
