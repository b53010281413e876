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
    """

    plain: bool = False
    kept: dict[Hashable, Any] = field(default_factory=dict)

    def forget(self) -> None:
        """Drop all that is remembered: the model may not be what it was."""
        self.kept.clear()
