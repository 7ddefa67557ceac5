"""Stage: verdicts on answers."""
