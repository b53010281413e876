"""Testimony: whether a model is what it was, for those who remember what they found on it."""

from __future__ import annotations

import pytest
import torch

from editsafety.edits.edit import Edit
from editsafety.edits.seal import Keepsake, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import UndoError
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.edits.test_bindings import DEEDS
from tests.edits.test_leftovers import LEFTOVERS

AROUND = {"default dtype", "gradient mode"}  # of torch, not of the model: they are a part of every question
DONE = {name: deed for name, (deed, _) in {**LEFTOVERS, **DEEDS}.items() if name not in AROUND}


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


def unedited(handle: ModelHandle) -> str | None:
    assert handle.engine.witness is not None
    return handle.engine.witness.unedited()


def edit_of(handle: ModelHandle, size: float = 0.1) -> Edit:
    return Edit("test", (), handle.identity, deltas=(tiny.low_rank(handle.mlp_out(1), size=size),))


def test_outside_of_every_session_there_is_no_witness(handle: ModelHandle) -> None:
    assert handle.engine.witness is None
    with EditSession(handle):
        assert handle.engine.witness is not None
    assert handle.engine.witness is None


def test_an_unedited_model_goes_by_its_bits(handle: ModelHandle) -> None:
    with EditSession(handle):
        first = unedited(handle)
        with EditSession(handle):
            assert unedited(handle) == first
    same, other = tiny.handle("gpt2"), tiny.handle("gpt2", seed=1)
    with EditSession(same), EditSession(other):
        assert unedited(same) == first == Seal.of(same).digest
        assert unedited(other) not in (None, first)


def test_a_model_with_an_edit_in_it_is_none_until_that_is_taken_back(handle: ModelHandle) -> None:
    with EditSession(handle) as outer:
        first = unedited(handle)
        mark = outer.mark()
        with EditSession(handle) as inner:
            inner.apply(edit_of(handle))
            assert unedited(handle) is None
        assert unedited(handle) == first
        outer.apply(edit_of(handle))
        assert unedited(handle) is None
        outer.back_to(mark)
        assert unedited(handle) == first


def test_a_weight_written_in_place_past_every_session_shows(handle: ModelHandle) -> None:
    weight = handle.model.get_parameter(handle.mlp_out(1).parameter)
    session = EditSession(handle)
    session.__enter__()
    assert unedited(handle) is not None
    weight.data.add_(1e-6)  # which the version counter of the tensor does not see
    assert unedited(handle) is None
    with pytest.raises(UndoError):
        session.__exit__(None, None, None)


@pytest.mark.parametrize("kind", DONE)
def test_whatever_a_session_would_name_shows(handle: ModelHandle, kind: str) -> None:
    if kind == "hook removed":
        pytest.skip("a model that was found with hooks is never one of which anything is known")
    session = EditSession(handle)
    with session:
        assert unedited(handle) is not None
        DONE[kind](handle)
        assert unedited(handle) is None
    assert session.leftovers


def test_of_a_model_that_was_found_with_a_hook_nothing_is_known(handle: ModelHandle) -> None:
    hook = handle.model.register_forward_hook(lambda *_: None)
    with EditSession(handle):
        assert unedited(handle) is None
    hook.remove()


def test_a_session_that_leaves_the_process_alone_is_not_asked(handle: ModelHandle) -> None:
    with EditSession(handle, prove="never"):
        assert handle.engine.witness is None


def test_what_is_kept_outlives_sessions_and_is_forgotten_with_the_model_it_was_of(handle: ModelHandle) -> None:
    with EditSession(handle):
        handle.engine.kept["mine"] = 1
    with EditSession(handle) as session:
        session.apply(edit_of(handle))
    with EditSession(handle):
        assert handle.engine.kept["mine"] == 1
    with torch.no_grad():
        handle.model.get_parameter(handle.mlp_out(0).parameter).mul_(1.5)
    with EditSession(handle):
        assert "mine" not in handle.engine.kept


def test_it_is_forgotten_when_another_part_was_put_in_between_sessions(handle: ModelHandle) -> None:
    with EditSession(handle):
        handle.engine.kept["mine"] = 1
    handle.model.transformer.h[1].mlp.act = torch.nn.ReLU()
    with EditSession(handle):
        assert "mine" not in handle.engine.kept


def test_it_is_forgotten_when_a_model_keeps_an_edit(handle: ModelHandle) -> None:
    with EditSession(handle) as session:
        handle.engine.kept["mine"] = 1
        session.apply(edit_of(handle))
        session.commit()
        assert "mine" not in handle.engine.kept
        assert handle.engine.witness is None


def test_it_is_forgotten_when_every_byte_is_brought_back(handle: ModelHandle) -> None:
    keepsake = Keepsake.of(handle)
    with EditSession(handle):
        handle.engine.kept["mine"] = 1
    keepsake.restore(handle)
    assert handle.engine.kept == {}
