"""A sidecar that holds nothing and changes nothing: what one does in a test is said by the test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from editsafety.edits.edit import Sidecar


class EmptySidecar(Sidecar):
    """The output as it is, no tensors, no settings; around the last norm where nothing else is said."""

    kind: ClassVar[str] = "empty"
    target: str = "transformer.ln_f"

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        return output

    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    def settings(self) -> Mapping[str, Any]:
        return {}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        return cls()
