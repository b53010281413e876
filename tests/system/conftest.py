"""Runs on a tiny model, with a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

# pytester forgets what was first imported inside an inner run, and torch cannot be imported twice.
import editsafety.cli.app
import editsafety.lab
import editsafety.safety_session  # noqa: F401
from tests.system import world


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No artifact of an earlier test is found."""
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """A tiny model, two hard and two normal requests, texts, and editors."""
    return world.write(tmp_path)
