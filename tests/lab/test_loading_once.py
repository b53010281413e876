"""A model that cannot be loaded: every editor is told so, and nobody looks for it a second time."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from editsafety.errors import ModelError
from editsafety.lab.lab import Lab
from editsafety.model.handle import ModelHandle
from editsafety.model.loading import ModelSpec
from editsafety.progress import Progress
from editsafety.runs.store import Store
from tests.system import world


def test_a_model_that_cannot_be_loaded_is_looked_for_once(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    load = ModelHandle.load

    def counted(spec: ModelSpec) -> ModelHandle:
        looked.append(spec.name)
        return load(spec)

    monkeypatch.setattr(ModelHandle, "load", counted)
    Path(paths["model"], "model.safetensors").write_bytes(b"nothing of the kind")
    found = Lab(
        world.plan(paths, "Nudge", "Raises"), Store(tmp_path / "store.sqlite"), Progress(io.StringIO(), "quiet")
    )
    blocks = {case.block: case for case in found.plan.cases}
    for case in blocks.values():
        with pytest.raises(ModelError, match="cannot load"):
            found.record(case)
    assert looked == [paths["model"]]
    assert {editor for _, editor in found.store.facts().problems} == {"Nudge", "Raises"}
