"""From scores to verdicts: every function takes runs, never items, as its units."""
