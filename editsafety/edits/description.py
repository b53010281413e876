"""Description: what the file of an edit says of its tensors, checked in every field before it is believed.

A checksum says that a file is as it was written; whoever wrote it may have written nonsense.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from editsafety.errors import EditError

Name = Annotated[str, Field(min_length=1)]
Size = Annotated[int, Field(gt=0, lt=1 << 40)]
# What arithmetic on weights is done in.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LowRankRow(_Described):
    """Of a low-rank delta."""

    kind: Literal["low_rank"]
    module: Name
    layout: Literal["out_in", "in_out"]
    d_out: Size
    d_in: Size


class ReplaceRow(_Described):
    """Of a replaced parameter."""

    kind: Literal["replace"]
    parameter: Name


class SidecarRow(_Described):
    """Of a sidecar; the settings are its own matter."""

    kind: Name
    target: str
    settings: dict[str, Any]


class EditDescription(_Described):
    """Of a whole edit, as its file has it."""

    what: Literal["edit"]
    editor: str
    requests: list[str]
    made_for: Name
    on_top_of: list[str]
    deltas: list[Annotated[LowRankRow | ReplaceRow, Field(discriminator="kind")]]
    sidecars: list[SidecarRow]
    notes: dict[str, bool | int | float | str]

    @classmethod
    def read(cls, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> EditDescription:
        """The description in a header, if it fits itself and these tensors. Raises EditError naming the field."""
        try:
            found = cls.model_validate(dict(about))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"] if part not in ("low_rank", "replace"))
            shown = "" if first["type"] in ("missing", "extra_forbidden") else f" (found {first['input']!r:.60})"
            said = f"{first['msg'][:1].lower()}{first['msg'][1:]}{shown}"
            raise EditError(f"{field}: {said}. Make the edit again.") from error
        found._refuse_other(tensors)
        return found

    def _refuse_other(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse tensors that are not described, are missing, or hold no numbers that weights are changed by."""
        expected: set[str] = set()
        for i, row in enumerate(self.deltas):
            own = {f"{i}.left", f"{i}.right"} if isinstance(row, LowRankRow) else {f"{i}.value"}
            expected |= own
            for name in sorted(own & tensors.keys()):
                if tensors[name].dtype not in FLOATS:
                    allowed = ", ".join(_spelled(dtype) for dtype in FLOATS)
                    raise EditError(f"tensor {name!r} is {_spelled(tensors[name].dtype)}; expected one of {allowed}.")
        heads = tuple(f"sidecar{i}." for i in range(len(self.sidecars)))
        missing = sorted(expected - tensors.keys())
        stray = sorted(name for name in tensors.keys() - expected if not name.startswith(heads))
        if missing or stray:
            what = f"tensor {missing[0]!r} is missing" if missing else f"tensor {stray[0]!r} belongs to nothing"
            raise EditError(f"{what}; described are {len(self.deltas)} deltas and {len(self.sidecars)} sidecars.")


def _spelled(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
