"""Testimony: whether a model is what it was, for shortcuts that remember what they found on it.

Looked at is the model itself, so that it does not matter who changed it, nor how: an edit, a weight written in place, a
hook, another module, function or method. It takes one read of the weights, under 1 % of what it saves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from editsafety.edits.baseline import Baseline
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.surroundings import Surroundings
from editsafety.model.handle import ModelHandle


@dataclass(frozen=True, eq=False)
class FoundModel:
    """What the outermost session found; while it is open, that is the unedited model."""

    handle: ModelHandle
    frame: Frame
    seal: Seal
    surroundings: Surroundings
    baseline: Baseline

    def unedited(self) -> str | None:
        """sha256 of every bit of the model while it is, in all its parts, what was found; None otherwise.

        A model that was found with hooks has none: they may know more than can be compared.
        """
        # Functions of Python first: what compares the rest is then sound.
        if self.frame.hooked or self.baseline.bindings.findings() or self.surroundings.rewired:
            return None
        found = {**self.frame.handle, "open_sessions": self.handle.open_sessions}  # sessions do not change it
        if replace(self.frame, handle=found).left_behind(self.handle):
            return None
        now = Seal.of(self.handle)
        return None if self.seal.changed(now) else now.digest


def testify(
    handle: ModelHandle, frame: Frame, seal: Seal, surroundings: Surroundings | None, baseline: Baseline | None
) -> None:
    """Let the engine ask what the outermost session found; what it remembers of another model is forgotten.

    A session that looks at nothing but the model knows too little to be asked.
    """
    engine = handle.engine
    if engine.plain:
        return
    before, sealed = engine.kept.get(FoundModel, (frame, seal))
    if sealed.changed(seal) or (before is not frame and before.left_behind(handle)):
        engine.forget()
    engine.kept[FoundModel] = frame, seal
    if surroundings is not None and baseline is not None:
        engine.witness = FoundModel(handle, frame, seal, surroundings, baseline)


def withdraw(handle: ModelHandle) -> None:
    """The model stays what was made of it: nothing is known of it any more, and no edit has touched what it is now."""
    handle.engine.witness = handle.engine.found = None
    handle.engine.touched = frozenset()
    handle.engine.forget()
