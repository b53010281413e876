"""The runs on a tiny model are those of tests/system; a module that has `EDITORS` adds its own to them."""

from pathlib import Path

import pytest

from tests.system import world
from tests.system.conftest import command, everything_imported, own_cache

__all__ = ["command", "everything_imported", "own_cache"]


@pytest.fixture
def paths(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """A tiny model, two hard and two normal requests, texts, and editors, among them those of the module."""
    return world.write(tmp_path, more=getattr(request.module, "EDITORS", ""))
