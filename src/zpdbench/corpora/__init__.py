"""Stage: instruction corpora and benchmark items."""
