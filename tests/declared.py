"""One option more than there is: whatever is made from declarations has to take it without being told."""

from __future__ import annotations

from dataclasses import dataclass

from editsafety.runs.settings import Settings, option


@dataclass(frozen=True, slots=True)
class Brighter(Settings):
    """Settings with an option of their own."""

    shine: int = option(3, help="how bright", at_least=3)
