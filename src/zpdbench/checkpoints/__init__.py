"""Base models: pretrained here, converted from GGUF, or taken from a folder; made deeper."""
