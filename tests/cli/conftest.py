"""Commands are typed over the tiny model of tests/system, whose editors run in the process of the test."""

import pytest

from tests.system.commands import given
from tests.system.conftest import command, everything_imported, in_process, own_cache, paths

__all__ = ["command", "everything_imported", "in_process", "own_cache", "paths"]


@pytest.fixture(autouse=True)
def quick(in_process: None) -> None:
    """No process of its own for every run."""


@pytest.fixture
def run(command, paths):
    """`editsafety run` on the tiny world into the folder `out`."""

    def typed(*editors, **more):
        return command("run", *given(paths, *editors, **{"out": "out", **more}))

    return typed
