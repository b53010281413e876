"""editsafety crash-tests language-model editing: did the edit take, does the model still work, what did it cost?

The names below are resolved on first use, so that importing the package imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Edit": "edit",
    "EditRequest": "request",
    "EditSafetyError": "errors",
    "EditSession": "session",
    "Editor": "editors",
    "Hparams": "hparams",
    "LowRank": "edit",
    "Measurement": "measurement",
    "ModelHandle": "models",
    "ModelSpec": "models",
    "Policy": "policy",
    "Replace": "edit",
    "Traits": "editors",
    "Verdict": "verdict",
    "crash_test": "crash",
    "guard": "guarding",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"editsafety.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'editsafety' has no attribute {name!r}")
