"""Families that are built like others: their rows name the modules that are used, and editors work on them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.editing.targets import TargetHparams, optimise
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.engine.passes import batch_nll, same_bits
from editsafety.model.architectures import Part
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.editors.conftest import NUMBERS, material

# One of each thing that is built otherwise: the others are thorough.
SOON = ("olmo3", "cohere2", "glm4", "mpt", "starcoder2")
SOME = [pytest.param(name, marks=() if name in SOON else pytest.mark.thorough) for name in tiny.relatives()]


def logits(handle: ModelHandle) -> torch.Tensor:
    with torch.no_grad():
        return handle.logits(handle.batch([handle.ids("The capital of Dorvan is Kelmar")]))


@pytest.mark.parametrize("family", tiny.relatives())
def test_every_part_is_a_projection_that_is_used_once_in_the_order_of_the_layers(family: str) -> None:
    handle = tiny.handle(family)
    wanted = [handle.mlp_out(layer).module for layer in range(handle.layers)]
    ran: list[str] = []
    for name in wanted:
        handle.model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    before = logits(handle)
    assert ran == wanted
    for part in Part:
        for site in handle.sites(part, 1):
            assert site.module.startswith(handle.block(1))
            with EditSession(handle) as session:
                edit = Edit("test", ("a",), handle.identity, (tiny.low_rank(site, size=1.0),))
                session.apply(edit)
                assert not torch.equal(logits(handle), before), site
    assert torch.equal(logits(handle), before)
    assert {site.d_out for site in handle.sites(Part.MLP_OUT, 1)} == {tiny.WIDTH}


@pytest.mark.parametrize("family", SOME)
def test_v_star_is_the_same_with_what_stands_before_the_subject_kept(family: str) -> None:
    handle = tiny.handle(family)
    numbers = TargetHparams(v_num_grad_steps=4, v_lr=0.1, v_weight_decay=0.1, clamp_norm_factor=4)
    request = tiny.request(prompt="The work of {} is that of a")
    contexts = ("{}", "The quick. {}")
    kept, whole = (
        optimise(handle, handle.mlp_out(1).module, request, contexts, numbers, whole_rows=whole)
        for whole in (False, True)
    )
    torch.testing.assert_close(kept.value, whole.value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", SOME)
def test_an_edit_of_rome_sends_its_key_to_v_star_and_perplexity_enters_at_its_layer(
    family: str, tmp_path: Path
) -> None:
    kind = editors.load("rome")
    handle = tiny.handle(family)
    numbers = kind.Hparams(
        **{**material(kind, tmp_path), **NUMBERS["rome"], "v_num_grad_steps": 4, "mom2_damping": 1e-3}
    )
    editor = kind(handle, numbers, ArtifactStore(tmp_path / "store"), name="rome")
    editor.prepare()
    edit = editor.edit([tiny.request()])
    batch = handle.batch([handle.ids(text) for text in tiny.SENTENCES[:3]])
    with EditSession(handle) as session:
        session.apply(edit)
        with handle.engine.switched_off():
            plain = batch_nll(handle, batch)
        for _ in range(3):
            entered = batch_nll(handle, batch)
        real = batch.mask[:, 1:].bool()
        assert same_bits(entered[real], plain[real])
    assert handle.fingerprint() == handle.identity
