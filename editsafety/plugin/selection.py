"""Selection: what the tests of a session are about. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from editsafety.names import slug, tag


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What a group item is about: a model, an editor, and a stream ("" for all)."""

    model: str
    editor: str
    stream: str = ""

    @property
    def id(self) -> str:
        """`pocket-neo-rome-hard`"""
        return "-".join(part for part in (slug(self.model), tag(self.editor), self.stream) if part)


@dataclass(frozen=True, slots=True)
class Selected:
    """A test that was selected."""

    params: Mapping[str, Any]  # the parameters of its item
    probed: bool  # whether abilities have to be measured
    edited: bool  # whether it looks at the live edited model
    ordered: bool  # whether it asks if the order of edits matters
