"""The pages' commands are typed in a folder of their own, and editors run in the process of the test."""

import pytest

from tests.system.conftest import command, everything_imported, in_process, own_cache, paths

__all__ = ["command", "everything_imported", "in_process", "own_cache", "paths"]


@pytest.fixture(autouse=True)
def quick(in_process: None) -> None:
    """No process of its own for every run."""
