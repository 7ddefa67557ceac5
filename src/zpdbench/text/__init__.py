"""Text as it is compared, and as token ids: one tokenizer and one template for all stages.

A checkpoint's tokenizer is its tokenizer.json and nothing else, whatever class its configuration
names: transformers rebuilds some classes from vocabulary and merges, and then splits otherwise.
"""
