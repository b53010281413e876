"""Engine: what a model's handle carries for shortcuts: whether they may be taken, and what they remember.

A shortcut gives what the plain computation gives, in less time. The shortcuts themselves are in the room `engine/`;
whoever runs a model reaches this object through its handle, so that nothing has to be passed along.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Engine:
    """One per handle. `plain` switches every shortcut off; `kept` is what they remember, each under a key of its own.

    What is kept belongs to the weights, and is forgotten when those are brought back, loaded again or replaced.

    `touched` names the parameters that edits have changed since then, under all of their names; None outside of
    sessions, where nobody says.
    """

    plain: bool = False
    kept: dict[Hashable, Any] = field(default_factory=dict)
    touched: frozenset[str] | None = None
    _seal: object = None

    def sealed(self, seal: object) -> None:
        """Say which weights the model has; what is kept of others is forgotten."""
        if self._seal is not None and self._seal != seal:
            self.forget()
        self._seal = seal

    def forget(self) -> None:
        """Drop all that is remembered: the model may not be what it was."""
        self.kept.clear()
