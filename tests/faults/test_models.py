"""Models whose weights lie in memory in an unusual way: tied, side by side, in one place, or nowhere."""

from __future__ import annotations

import pytest
import torch

from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.errors import ModelError
from editsafety.model.handle import ModelHandle
from tests import tiny

ONE, OTHER = "transformer.h.1.mlp.c_proj.weight", "transformer.h.2.mlp.c_proj.weight"


def taken_over(model: torch.nn.Module) -> ModelHandle:
    return ModelHandle.of(model, tiny.tokenizer(), name="odd")


def test_weights_that_are_parts_of_one_long_tensor_are_edited_apart_and_come_back():
    """As flattened and fused checkpoints keep them; each is where it was afterwards."""
    model = tiny.model("gpt2")
    parts = [model.get_parameter(name) for name in (ONE, OTHER)]
    long = torch.cat([part.detach().reshape(-1) for part in parts])
    for part, piece in zip(parts, long.split([part.numel() for part in parts]), strict=True):
        part.data = piece.view_as(part)
    handle = taken_over(model)
    before = long.clone()
    with EditSession(handle) as session:
        session.apply(Edit("test", ("r",), handle.identity, (tiny.low_rank(handle.mlp_out(1)),)))
        assert session.changed() == (ONE,)
        assert torch.equal(long, before)
    assert handle.fingerprint() == handle.identity
    assert parts[0].data_ptr() == long.data_ptr()


def test_two_parameters_in_one_place_are_refused_since_an_edit_of_one_would_be_lost_in_the_other():
    model = tiny.model("gpt2")
    model.get_parameter(OTHER).data = model.get_parameter(ONE).data
    with pytest.raises(ModelError, match=f"{ONE} and {OTHER} of odd are two parameters in the same memory"):
        taken_over(model)


def test_parameters_that_overlap_in_part_are_refused_too():
    model = tiny.model("gpt2")
    one, other = model.get_parameter(ONE), model.get_parameter(OTHER)
    long = torch.randn(one.numel() * 3 // 2)
    one.data, other.data = long[: one.numel()].view_as(one), long[-other.numel() :].view_as(other)
    with pytest.raises(ModelError, match="in the same memory"):
        taken_over(model)


def test_tied_weights_are_one_parameter_and_are_taken():
    handle = tiny.handle("gpt2", tied=True)
    assert handle.model.get_output_embeddings().weight is handle.model.get_input_embeddings().weight


@pytest.mark.parametrize("part", ["", "transformer.h.2.mlp"])
def test_a_model_that_is_not_in_memory_or_not_all_of_it_is_refused(part):
    """`device_map` with too little memory leaves some layers on the meta device."""
    model = tiny.model("gpt2")
    model.get_submodule(part).to("meta")
    with pytest.raises(ModelError, match=r"of odd is on the meta device \(not loaded, or offloaded\)"):
        taken_over(model)
