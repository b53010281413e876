"""editsafety crash-tests language-model editing: did the edit take, does the model still work, what did it cost?

The names below are resolved on first use, so that importing the package imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Edit": "edits.edit",
    "EditRequest": "datasets.request",
    "EditSafetyError": "errors",
    "EditSession": "edits.session",
    "Editor": "editors",
    "Hparams": "hyperparameters",
    "LowRank": "edits.edit",
    "Measurement": "runs.measurement",
    "ModelHandle": "model.handle",
    "ModelSpec": "model.loading",
    "Policy": "judging.policy",
    "Replace": "edits.edit",
    "Sidecar": "edits.edit",
    "Traits": "editors",
    "Verdict": "judging.verdict",
    "crash_test": "lab.crash_test",
    "guard": "guarding",
    "save_second_moments": "editing.published",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"editsafety.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'editsafety' has no attribute {name!r}")
