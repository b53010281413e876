"""Editors on tiny models, ready to edit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.models import ModelHandle
from tests import tiny

Make = Callable[..., editors.Editor]

NUMBERS: dict[str, dict[str, Any]] = {
    "rome": {
        "layers": [1], "v_num_grad_steps": 12, "v_lr": 0.5, "v_weight_decay": 0.01, "clamp_norm_factor": 10,
        "mom2_adjustment": True, "context_template_length_params": [[8, 3]],
    },
    "ft": {"layers": [1], "num_steps": 15, "lr": 0.01, "norm_constraint": None, "loss": "target_new"},
    "noop": {},
}  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(name, handle, seed=0, **changed numbers): an editor, prepared on a small corpus unless told not to."""
    corpus = tmp_path / "texts.txt"
    corpus.write_text("\n".join(tiny.SENTENCES), encoding="utf-8")

    def made(name: str, handle: ModelHandle, *, seed: int = 0, prepare: bool = True, **changes: Any) -> editors.Editor:
        kind = editors.load(name)
        values = {**NUMBERS[kind.folder or name], **kind.overrides, **changes}
        if "mom2_corpus" in kind.Hparams.model_fields:
            values = {"mom2_corpus": str(corpus), **values}
        editor = kind(handle, kind.Hparams(**values), ArtifactStore(tmp_path / "store"), name=name, seed=seed)
        if prepare:
            editor.prepare()
        return editor

    return made
