"""As published: what a method that was not written for us is given: the field's dictionaries, numbers unread."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict

from editsafety.datasets.request import EditRequest
from editsafety.hyperparameters import Hparams


class UnreadHparams(Hparams):
    """Whatever a file holds."""

    model_config = ConfigDict(extra="allow")
    unread: ClassVar[bool] = True


class TargetText(str):
    """A target as text, and as `target["str"]`: toolboxes write it either way, and may write the latter anew."""

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, "_written", str(self)) if key == "str" else super().__getitem__(key)

    def __setitem__(self, key: str, value: str) -> None:
        if key != "str":
            raise KeyError(key)
        self._written = value


def as_dictionary(request: EditRequest) -> dict[str, Any]:
    """A request as the field's code has it: ROME's keys, with EasyEdit's beside them."""
    true = TargetText(request.target_true or "")
    return {
        "case_id": request.id,
        "prompt": request.prompt,
        "subject": request.subject,
        "target_new": TargetText(request.target_new),
        "target_true": true,
        "ground_truth": true,
        "relation_id": request.relation,
        "paraphrase_prompts": list(request.rephrasings),
        "rephrase_prompt": request.rephrasings[0] if request.rephrasings else None,
        "neighborhood_prompts": [neighbour.prompt for neighbour in request.neighbours],
    }


def as_json(request: EditRequest) -> dict[str, Any]:
    """The same as JSON values, for a program; targets are `{"str": ...}`, as in ROME's and MEMIT's files."""
    row = as_dictionary(request)
    targets = {name: {"str": str(row[name])} for name in ("target_new", "target_true")}
    return {**row, **targets, "ground_truth": str(row["ground_truth"])}
