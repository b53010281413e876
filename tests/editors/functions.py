"""A function as an editor of a tiny GPT-2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from editsafety.artifacts import ArtifactStore
from editsafety.editors._function import FunctionEditor, around
from editsafety.model.handle import ModelHandle

WEIGHT = "transformer.h.1.mlp.c_proj.weight"


def made(function: Any, handle: ModelHandle, place: Path, **numbers: Any) -> FunctionEditor:
    kind = around(function, f"my.py:{function.__name__}")
    return kind(handle, kind.Hparams(**numbers), ArtifactStore(place), name=function.__name__)
