"""A control that changes nothing: whatever a measurement shows after it is noise, or a fault of the measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor, Traits
from editsafety.edits.edit import Edit, nothing


class Noop(Editor):
    """Returns the empty edit."""

    traits: ClassVar[Traits] = Traits(batch=True, changes="nothing")

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """An edit without deltas."""
        return nothing(self.name, [request.id for request in requests], self.handle.identity)


EDITOR = Noop
