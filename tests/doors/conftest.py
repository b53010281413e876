"""A tiny world with two doors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doors.both import Doors
from tests.system import world
from tests.system.conftest import everything_imported, own_cache, paths

__all__ = ["everything_imported", "own_cache", "paths"]


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Doors:
    """Two hard requests and a normal one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return Doors(world.write(tmp_path, hard=2, normal=1), tmp_path, monkeypatch, capfd)
