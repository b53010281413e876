"""Engine: what a model's handle carries for shortcuts: whether they may be taken, and what they remember.

A shortcut gives what the plain computation gives, in less time. The shortcuts themselves are in the room `engine/`;
whoever runs a model reaches this object through its handle, so that nothing has to be passed along.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from editsafety.model.meter import Effort


class Witness(Protocol):
    """Who can say whether a model is what it was: the outermost session around it."""

    def unedited(self) -> str | None:
        """sha256 of every bit of the model while it is, in all its parts, what the session found; None otherwise."""


@dataclass(eq=False)
class Engine:
    """One per handle. `plain` switches every shortcut off; `kept` is what they remember, each under a key of its own.

    What is kept belongs to the weights, and is forgotten when those are brought back, loaded again or replaced.
    """

    plain: bool = False
    kept: dict[Hashable, Any] = field(default_factory=dict)
    folder: Path | None = None  # where other processes find it, too
    witness: Witness | None = None  # None outside of every session: nobody knows what the model is
    effort: Effort | None = None  # of the edit that is being computed
    # The parameters that edits have changed in the open sessions, under all of their names; None outside of sessions.
    touched: frozenset[str] | None = None
    # What the model has said, while nobody changes it (`engine/continuing`); None outside of such a block.
    heard: Any = None
    # How often it was changed: what it said before the last time, it may say no more.
    changes: int = 0
    # What the outermost session found; None outside of sessions.
    found: Any = None
    # What the last session proved of the model when it was left, while nothing but this package has run since; None
    # where that is not so. Known only inside `in_a_row`.
    proved: Any = None
    row: bool = False

    def forget(self) -> None:
        """Drop all that is remembered: the model may not be what it was."""
        self.kept.clear()
        self.proved = None
        self.note_change()

    def note_change(self) -> None:
        """Say that the model is another one from now on: an edit was put into it or taken back."""
        self.changes += 1

    def switched_off(self) -> AbstractContextManager[None]:
        """Inside everything is computed plainly, for those who time it."""
        return self._with(plain=True)

    def afresh(self) -> AbstractContextManager[None]:
        """Inside nothing is known from before, for those who compare one computation with another."""
        return self._with(kept={}, folder=None, heard=None)

    def sharing(self, folder: Path | None) -> AbstractContextManager[None]:
        """Inside, what is kept is kept in this folder too, for other processes and resumed runs."""
        return self._with(folder=folder)

    def charging(self, effort: Effort) -> AbstractContextManager[None]:
        """Inside, what was known is charged to this effort: it costs what it took the first time."""
        return self._with(effort=effort)

    def in_a_row(self) -> AbstractContextManager[None]:
        """Inside sessions follow one another, and somebody else's code runs in them only.

        So what one has proved when it was left, the next takes as found. Who runs such code between two sessions has to
        set `proved` to None.
        """
        return self._with(row=True, proved=None)

    @contextmanager
    def _with(self, **values: Any) -> Iterator[None]:
        before = {name: getattr(self, name) for name in values}
        vars(self).update(values)
        try:
            yield
        finally:
            vars(self).update(before)
