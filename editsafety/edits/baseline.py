"""Baseline: the code that a model runs by, and what it made of a fixed sentence, before anybody else's code ran."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from editsafety.edits.behaviour import Behaviour
from editsafety.edits.bindings import Bindings
from editsafety.model.handle import ModelHandle


@dataclass(frozen=True, eq=False)
class Baseline:
    """What a session compares with. Without a behaviour where the model is not what it was (an edit is in it).

    `put_back` binds again what was bound to something else, and gives one sentence for each name. It is kept as a
    reference, so that it works where somebody replaced even the method of that name.
    """

    bindings: Bindings
    behaviour: Behaviour | None
    put_back: Callable[[], tuple[str, ...]]

    @classmethod
    def of(cls, handle: ModelHandle) -> Self:
        """Of the model as it is; the model is run once."""
        behaviour = Behaviour.of(handle)  # first: a first run imports what the model needs
        bindings = Bindings.of(handle)
        return cls(bindings, behaviour, bindings.put_back)

    def behaving(self, behaviour: Behaviour | None) -> Self:
        """The same code with another behaviour: of the model with edits in it, or none where that is not known."""
        return replace(self, behaviour=behaviour)

    def renewed(self) -> Self:
        """The same behaviour with the code as it is now, for what changed between cases (tests replace things)."""
        bindings = self.bindings.renewed()
        return self if bindings is self.bindings else replace(self, bindings=bindings, put_back=bindings.put_back)

    def differences(self, handle: ModelHandle) -> tuple[str, ...]:
        """In what the model does not behave as before; nothing where that is not known."""
        return () if self.behaviour is None else self.behaviour.differences(Behaviour.of(handle))
