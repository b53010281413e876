"""Baselines: what was once accepted, kept as a file in a repository, and what became worse since. No torch here."""
