"""ZPD-Bench: from a claim about training order to a verdict, in one Snakemake command."""

__version__ = "0.1.0"
