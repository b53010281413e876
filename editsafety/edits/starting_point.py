"""StartingPoint: what a model and what is around it were when a session began, so that nothing is read twice.

Reading every byte of a model costs more than most that is done to it, and a case opens several sessions. What one of
them has proved when it was left is what the next one finds, as long as nobody else's code has run in between; inside of
an open session only what is in other memory has to be read. Every byte is still read at the end of every session that
somebody else's code ran in: what stays open until then is none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from editsafety.edits.seal import Frame, Place, Seal, place_of
from editsafety.edits.surroundings import Surroundings
from editsafety.model.handle import ModelHandle


@dataclass(frozen=True, eq=False)
class StartingPoint:
    """A model's frame and seal, where its tensors are, and the settings around it where those were read."""

    frame: Frame
    seal: Seal
    places: dict[str, Place]
    # How often torch saw each tensor written. It does not see everything, so that it can raise a doubt and settle none.
    versions: dict[str, int]
    surroundings: Surroundings | None

    @classmethod
    def of(cls, handle: ModelHandle, surroundings: Surroundings | None) -> StartingPoint:
        """Of the model as it is; every byte is read."""
        frame, tensors = Frame.of(handle), handle.tensors()
        return cls(frame, Seal.of(handle), _places(tensors), _versions(tensors), surroundings)

    @classmethod
    def find(cls, handle: ModelHandle, *, within: bool, watched: bool) -> StartingPoint:
        """What the model is now: read, or known from a session `within` which this is, or that was left just now.

        `watched` is whether the session looks at what is around the model; one that does not, and is inside another, is
        an editor's own: who reads every byte is the other one.
        """
        engine = handle.engine
        known, engine.proved = engine.proved, None
        if within and not watched:
            tensors = handle.tensors()
            return cls(Frame.of(handle), seal_within(handle), _places(tensors), {}, None)
        if not within and watched and isinstance(known, StartingPoint) and not known.is_doubtful(handle):
            return known
        return cls.of(handle, Surroundings.now() if watched else None)

    def hand_on(self, handle: ModelHandle) -> None:
        """Let the next session find this, now that the model has been proved to be it."""
        if handle.engine.row and not handle.engine.plain:
            handle.engine.proved = replace(self, versions=_versions(handle.tensors()))

    def is_doubtful(self, handle: ModelHandle) -> bool:
        """Whether something was done since it was proved, as far as that shows without reading: then all is read."""
        now, then = vars(handle), self.frame.handle
        tensors = handle.tensors()
        return (
            now.keys() != then.keys()
            or any(now[key] is not then[key] and now[key] != then[key] for key in now)
            or _places(tensors) != self.places
            or _versions(tensors) != self.versions
        )

    def sealed_elsewhere(self, handle: ModelHandle) -> Seal:
        """A seal of the model now that takes over what is in the same memory as then, and was written by no session.

        What somebody else wrote in place does not show.
        """
        written = handle.engine.touched or frozenset()
        places = {name: place for name, place in self.places.items() if name not in written}
        return self.seal.renewed_beside(handle, places)


def seal_within(handle: ModelHandle) -> Seal:
    """A seal of the model inside of another session: what is where that one found it is not read."""
    outer = handle.engine.found
    known = isinstance(outer, StartingPoint) and not handle.engine.plain
    return outer.sealed_elsewhere(handle) if known else Seal.of(handle)


def _places(tensors: dict[str, Tensor]) -> dict[str, Place]:
    return {name: place_of(tensor) for name, tensor in tensors.items()}


def _versions(tensors: dict[str, Tensor]) -> dict[str, int]:
    return {name: -1 if tensor.is_inference() else tensor._version for name, tensor in tensors.items()}
