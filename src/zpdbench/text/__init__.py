"""Text to token ids and back: one tokenizer and one chat template for training and evaluation.

A checkpoint's tokenizer is its tokenizer.json and nothing else, whatever class its configuration
names: transformers rebuilds some classes from vocabulary and merges, and then splits otherwise.
"""
