"""Edits on top of each other."""
