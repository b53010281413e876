"""The runs on a tiny model are those of tests/system."""

from tests.system.conftest import command, everything_imported, own_cache, paths

__all__ = ["command", "everything_imported", "own_cache", "paths"]
