"""Of a growing line of sidecars a session keeps the last one only: the model says what it says with all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from editsafety.edits.edit import Edit, Sidecar
from editsafety.edits.session import EditSession
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import Make

REQUESTS = tuple(
    tiny.request(f"case-{i}", subject=name, target_new=target)
    for i, (name, target) in enumerate((("Ashurn", "teacher"), ("Mirel", "farmer"), ("Toren", "baker")))
)
PROMPTS = (*(request.filled for request in REQUESTS), "The capital of Dorvan is Kelmar.")


def said(handle: ModelHandle) -> list[Tensor]:
    with torch.no_grad():
        return [handle.logits(handle.batch([handle.ids(prompt)])) for prompt in PROMPTS]


@pytest.mark.parametrize("name", ["grace", "wise", "ike", "serac"])
def test_a_superseded_sidecar_is_not_missed(name: str, make: Make) -> None:
    handle = tiny.handle("gpt2")
    editor, carry, edits = make(name, handle), None, list[Edit]()
    plain = said(handle)
    with EditSession(handle) as session:
        for request in REQUESTS:
            edits.append(editor.edit([request], carry))
            carry = edits[-1].carry
            session.apply(edits[-1])
            assert len(session.sidecars) == 1
        kept = said(handle)
    hooks = []
    for edit in edits:  # as a session did that let none go
        for car in edit.sidecars:
            target = handle.model.get_submodule(car.target)
            if type(car).before is not Sidecar.before:
                hooks.append(target.register_forward_pre_hook(car.before, prepend=True, with_kwargs=True))
            hooks.append(target.register_forward_hook(car.after, with_kwargs=True))
    with_all = said(handle)
    for hook in hooks:
        hook.remove()
    assert all(torch.equal(one, other) for one, other in zip(kept, with_all, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(kept, plain, strict=True)), "the edits do nothing"
