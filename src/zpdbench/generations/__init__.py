"""Generations: a chunk's answers, cell by cell, by one engine."""
