"""Short names of models and editors, for ids, files, tables and hyperparameter folders."""

from __future__ import annotations

import re


def slug(model: str) -> str:
    """A model's short name: the last part of its path, lower case, in characters that a test id and a file can hold.

    `random:gpt2-xl` is gpt2-xl, `path/model.py:make` is make.
    """
    last = model.removeprefix("random:").rstrip("/").split("/")[-1]
    last = last.rpartition(":")[2] if ".py:" in last else last
    return re.sub(r"[^a-z0-9_.-]+", "-", last.lower()).strip("-.") or "model"


def label(editor: str) -> str:
    """An editor's short name: the class of `path.py:Class`, else the name itself."""
    return editor.rpartition(":")[2] if ".py:" in editor else editor
