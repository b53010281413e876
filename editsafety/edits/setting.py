"""Setting: something that somebody else's code may have changed, how it is read and how it is set again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: how it is read, and how it is set (None: it cannot be)."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object] | None = None
    # What to say of two values; both of them, when not given.
    tell: Callable[[Any, Any], str] = lambda was, now: f" from {spelled(was)} to {spelled(now)}"

    def value(self) -> Any:
        """The value now; a setting that this version of torch does not have, or refuses to tell, never changes."""
        try:
            return self.read()
        except (AttributeError, ImportError, KeyError, RuntimeError, OSError, ValueError):
            return UNREADABLE


def spelled(value: Any) -> str:
    """A value as it is written; of objects the class only, since their addresses are others in every run."""
    if isinstance(value, tuple):
        return f"({', '.join(map(spelled, value))})"
    known = value is None or isinstance(value, bool | int | float | str | torch.dtype)
    return repr(value)[:80] if known else type(value).__name__
