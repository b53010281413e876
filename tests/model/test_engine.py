"""Engine: what a handle carries for shortcuts."""

from __future__ import annotations

from pathlib import Path

import pytest

from editsafety.model.engine import Engine
from editsafety.model.meter import Effort
from tests import tiny


def test_every_handle_has_one_of_its_own() -> None:
    one, other = tiny.handle("gpt2"), tiny.handle("gpt2")
    one.engine.kept["key"] = 1
    assert other.engine.kept == {}
    assert not other.engine.plain
    one.engine.forget()
    assert one.engine.kept == {}


def test_what_is_switched_for_a_while_comes_back_after_errors_too(tmp_path: Path) -> None:
    engine, effort = Engine(), Effort()
    engine.kept["key"] = 1
    engine.folder = tmp_path
    kept = engine.kept

    def fails() -> None:
        with engine.switched_off(), engine.afresh(), engine.charging(effort):
            assert (engine.plain, engine.kept, engine.folder, engine.effort) == (True, {}, None, effort)
            engine.kept["other"] = 2
            with engine.sharing(tmp_path / "edits"):
                assert engine.folder == tmp_path / "edits"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert (engine.plain, engine.folder, engine.effort) == (False, tmp_path, None)
    assert engine.kept is kept
    assert kept == {"key": 1}
