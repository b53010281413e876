"""Sweeps on the tiny world, with a cache of their own."""

from tests.system.conftest import command, own_cache, paths

__all__ = ["command", "own_cache", "paths"]
