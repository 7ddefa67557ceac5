"""What the embedded default is made of: generated examples, items, text and a tokenizer."""

from zpdbench.embedded.mixture import BENCHMARKS, benchmark_docs, examples, pretraining_texts

__all__ = ["BENCHMARKS", "benchmark_docs", "examples", "pretraining_texts"]
