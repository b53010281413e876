"""A guard around an editor that gives the edits of a list, and what such lists are made of."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from editsafety import guard
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor, Traits
from editsafety.edits.edit import Edit, LowRank, Replace, Sidecar
from editsafety.guarding import Guard, audit
from editsafety.hyperparameters import Hparams
from editsafety.judging.policy import Policy, Threshold
from editsafety.judging.verdict import Verdict
from editsafety.model.handle import ModelHandle
from tests import tiny

TEXTS = tiny.SENTENCES[:4]


LAX = Policy(
    name="lax",
    case={
        "perplexity": Threshold(
            measure="me_ppl", figure="ratio", pass_at_most=1.5, warn_at_most=2, fails_as=Verdict.COLLAPSE, why=""
        ),
        "finite": Threshold(
            measure="weights_finite", figure="after", pass_at_least=1, fails_as=Verdict.COLLAPSE, why=""
        ),
        "norm_growth": Threshold(
            measure="norm_growth", figure="after", pass_at_most=1.5, fails_as=Verdict.COLLAPSE, why=""
        ),
    },
    group={},
)


class Scripted(Editor):
    """Gives the edits of a list, one after the other; what is callable is called first."""

    traits = Traits(batch=True)
    script: Sequence[Any] = ()

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        seen = 0 if carry is None else int(carry["seen"])
        self.seen = [*getattr(self, "seen", []), seen]
        made = self.script[len(self.seen) - 1]
        made = made() if callable(made) else made
        if isinstance(made, BaseException):
            raise made
        deltas, sidecars = made if isinstance(made, tuple) else ([made], ())
        ids = tuple(request.id for request in requests)
        carried = {"seen": torch.tensor(seen + 1)}
        return Edit(self.name, ids, self.handle.identity, tuple(deltas), tuple(sidecars), carry=carried)


class Louder(Sidecar):
    """Multiplies a layer's output."""

    kind = "louder"

    def __init__(self, target: str, factor: float) -> None:
        self.target, self.factor = target, factor

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        return output * self.factor

    def tensors(self) -> Mapping[str, Tensor]:
        return {"factor": torch.tensor(self.factor)}

    def settings(self) -> Mapping[str, Any]:
        return {}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Louder:
        return cls(target, float(tensors["factor"]))


def scripted(handle: ModelHandle, tmp_path: Path, *script: Any) -> Scripted:
    editor = Scripted(handle, Hparams(), ArtifactStore(tmp_path), name="scripted")
    editor.script = script
    return editor


def small(handle: ModelHandle, seed: int = 0, layer: int = 1, size: float = 1e-3) -> LowRank:
    return tiny.low_rank(handle.mlp_out(layer), size=size, seed=seed)


def guarded(editor: Editor, **more: Any) -> Guard:
    return guard(editor, more.pop("policy", LAX), texts=TEXTS, **more)


def ctrl_c() -> LowRank:
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("not interrupted")


def loud(handle: ModelHandle) -> Replace:
    """Makes the model twenty times as sure of everything, so that its perplexity explodes."""
    name = "transformer.ln_f.weight"
    return Replace(name, 20 * handle.model.get_parameter(name).detach())


def told(path: Path) -> list[str]:
    return [row["what"] for row in audit.read(path)]


def ask(number: int = 0, **more: Any) -> EditRequest:
    return tiny.request(f"r{number}", **more)


def nan(handle: ModelHandle) -> Replace:
    name = handle.mlp_out(1).parameter
    value = handle.model.get_parameter(name).detach().clone()
    value[0, 0] = torch.nan
    return Replace(name, value)
