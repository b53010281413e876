"""Regularised editors on tiny models, and what is expected of them worked out in another way."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import NUMBERS

Make = Callable[..., Editor]

DROPPED = '''
import torch
from editsafety import Edit, Editor, Hparams, LowRank, Replace, Traits


class NudgeHparams(Hparams):
    size: float = 1.0
    rank: int = 1


class Nudge(Editor):
    """Random low-rank changes of two layers, the first of them in two deltas; carries how many edits there were."""

    Hparams = NudgeHparams
    traits = Traits(batch=True, paper="none", reference="https://example.org")

    def edit(self, requests, carry=None):
        draw, number = self.generator(requests[0]), int((carry or {}).get("edits", torch.zeros(()))) + 1
        deltas = []
        for layer in (0, 0, 1):
            site = self.handle.mlp_out(layer)
            left = torch.randn(site.d_out, self.hparams.rank, generator=draw) * self.hparams.size * number
            deltas.append(LowRank(site, left, torch.randn(self.hparams.rank, site.d_in, generator=draw)))
        carried = {"edits": torch.tensor(float(number))}
        return Edit(self.name, (requests[0].id,), self.handle.identity, tuple(deltas), carry=carried)


class Beside(Nudge):
    traits = Traits(changes="sidecar")


class Nothing:
    pass


class Breaks(Nudge):
    def edit(self, requests, carry=None):
        edit = super().edit(requests)
        edit.deltas[0].left[0, 0] = float("nan")
        return edit


class ReturnsNone(Nudge):
    def edit(self, requests, carry=None):
        return None
'''


@pytest.fixture
def nudge(tmp_path: Path) -> str:
    """The path of a drop-in file with editors in it."""
    path = tmp_path / "nudge (1).py"
    path.write_text(DROPPED)
    return str(path)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(expression, handle, seed=0, **changed numbers): an editor, prepared on a small corpus."""
    corpus = tmp_path / "texts.txt"
    corpus.write_text("\n".join(tiny.SENTENCES), encoding="utf-8")

    def made(name: str, handle: ModelHandle, *, seed: int = 0, **changes: Any) -> Editor:
        kind = editors.load(name)
        values = {**NUMBERS.get(kind.folder or name, {}), **kind.overrides, **changes}
        if "mom2_corpus" in kind.Hparams.model_fields:
            values["mom2_corpus"] = str(corpus)
        label = editors.label(name)
        editor = kind(handle, kind.Hparams(**values), ArtifactStore(tmp_path / "store"), name=label, seed=seed)
        editor.prepare()
        return editor

    return made


REQUESTS = (
    tiny.request(),
    tiny.request("case-1", subject="Toren", prompt="The mother tongue of {} is", target_new="Tarnic"),
    tiny.request("case-2", subject="Mirel", prompt="{} plays the", target_new="flute"),
)


def weights(handle: ModelHandle, edit: Edit) -> dict[str, Tensor]:
    """Every parameter that an edit changes, as it is once the edit is applied to the model as it is now."""
    with EditSession(handle) as session:
        session.apply(edit)
        return {name: handle.model.get_parameter(name).detach().clone() for name in edit.parameters}


def sequence(editor: Editor, requests: Sequence[EditRequest] = REQUESTS) -> list[dict[str, Tensor]]:
    """The weights that each edit of a sequence leaves, every parameter that was touched so far."""
    handle, carry = editor.handle, None
    found: list[dict[str, Tensor]] = []
    touched: dict[str, None] = {}
    with EditSession(handle) as session:
        for request in requests:
            edit = editor.edit([request], carry)
            session.apply(edit)
            carry = edit.carry
            touched |= dict.fromkeys(edit.parameters)
            found.append({name: handle.model.get_parameter(name).detach().clone() for name in touched})
    return found


def originals(handle: ModelHandle, names: Mapping[str, Any]) -> dict[str, Tensor]:
    """Parameters as they are now."""
    return {name: handle.model.get_parameter(name).detach().clone() for name in names}


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> bool:
    """Whether two weights are the same but for rounding."""
    return float((found.double() - expected.double()).norm()) <= tolerance * float(
        torch.linalg.vector_norm(expected.double())
    )
