"""Sessions in a row: less is read, and what is found is what sessions find that read everything."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from editsafety.edits import seal
from editsafety.edits.edit import Edit
from editsafety.edits.seal import Keepsake, Seal
from editsafety.edits.session import EditSession
from editsafety.edits.starting_point import StartingPoint
from editsafety.errors import UndoError
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.edits.test_leftovers import LEFTOVERS
from tests.lab.test_attempt import Swaps

NORM = "transformer.ln_f.weight"


@pytest.fixture
def handle() -> Iterator[ModelHandle]:
    made = tiny.handle("gpt2")
    with made.engine.in_a_row():
        yield made


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the tensors that were read for a seal."""
    sizes: list[int] = []
    plain = seal.checksum

    def counted(tensor: torch.Tensor) -> str:
        sizes.append(tensor.numel())
        return plain(tensor)

    monkeypatch.setattr(seal, "checksum", counted)
    return sizes


def edit_of(handle: ModelHandle) -> Edit:
    return Edit("test", (), handle.identity, deltas=(tiny.low_rank(handle.mlp_out(1)),))


def run_session(handle: ModelHandle) -> None:
    with EditSession(handle) as session:
        session.apply(edit_of(handle))


def test_every_byte_is_read_before_the_first_and_at_the_end_of_each(handle: ModelHandle, read: list[int]) -> None:
    every = len(handle.tensors())
    for expected in (2 * every, every, every):
        read.clear()
        run_session(handle)
        assert len(read) == expected


def test_outside_of_a_row_and_with_a_plain_engine_it_is_read_twice_each_time(
    handle: ModelHandle, read: list[int]
) -> None:
    every = len(handle.tensors())
    handle.engine.plain = True
    for _ in range(2):
        read.clear()
        run_session(handle)
        assert len(read) == 2 * every
    alone = tiny.handle("gpt2")
    for _ in range(2):
        read.clear()
        run_session(alone)
        assert len(read) == 2 * every
    assert alone.engine.proved is None


@pytest.mark.parametrize("kind", LEFTOVERS)
def test_what_is_left_behind_is_said_as_by_a_session_that_reads_everything(kind: str) -> None:
    said = []
    for plain in (True, False):
        handle = tiny.handle("gpt2")
        handle.engine.plain = plain
        if kind == "hook removed":
            handle.model.get_submodule(handle.block(1)).register_forward_hook(lambda *_: None)
        with handle.engine.in_a_row():
            run_session(handle)
            assert (handle.engine.proved is None) is plain
            session = EditSession(handle)
            with session:
                LEFTOVERS[kind][0](handle)
            said.append(session.leftovers)
            assert handle.engine.proved is None  # what was put back is not taken on trust
    assert said[0] == said[1] != ()


def test_a_weight_that_torch_does_not_see_written_is_an_error_by_name(handle: ModelHandle) -> None:
    run_session(handle)
    weight = handle.model.get_parameter(NORM)
    version = weight._version
    with pytest.raises(UndoError, match=f"{NORM} differs"), EditSession(handle):  # noqa: PT012
        weight.data.add_(1e-4)
        assert weight._version == version
    assert handle.engine.proved is None


def test_what_is_seen_to_be_written_between_two_sessions_is_what_the_next_one_finds(handle: ModelHandle) -> None:
    run_session(handle)
    weight = handle.model.get_parameter(NORM)
    with torch.no_grad():
        weight.fill_(1)
    run_session(handle)
    weight.data = weight.data + 1
    run_session(handle)
    handle.dropped = ("something",)
    run_session(handle)
    assert bool((weight == 2).all())


def test_what_is_not_seen_to_be_written_between_two_sessions_is_no_secret_after_the_next(handle: ModelHandle) -> None:
    run_session(handle)
    handle.model.get_parameter(NORM).data.add_(1)
    with pytest.raises(UndoError, match=f"{NORM} differs"), EditSession(handle):
        pass


def test_random_states_are_those_from_before_this_session_and_not_from_before_the_first(handle: ModelHandle) -> None:
    run_session(handle)
    torch.manual_seed(7)
    random.seed(7)
    expected = torch.get_rng_state(), random.getstate()
    with EditSession(handle):
        torch.rand(3)
        random.random()
    assert torch.equal(torch.get_rng_state(), expected[0])
    assert random.getstate() == expected[1]


def test_after_an_error_a_kept_edit_or_bytes_brought_back_everything_is_read(handle: ModelHandle) -> None:
    with pytest.raises(RuntimeError, match="half way"), EditSession(handle):
        raise RuntimeError("half way")
    assert handle.engine.proved is None
    keepsake = Keepsake.of(handle)
    run_session(handle)
    assert handle.engine.proved is not None
    keepsake.restore(handle)
    assert handle.engine.proved is None
    with EditSession(handle) as session:
        session.apply(edit_of(handle))
        session.commit()
    assert handle.engine.proved is None


def test_a_session_that_does_not_look_around_proves_nothing(handle: ModelHandle) -> None:
    with EditSession(handle, prove="never"):
        pass
    assert handle.engine.proved is None


def test_a_session_in_another_reads_only_what_is_in_other_memory(handle: ModelHandle, read: list[int]) -> None:
    weight = handle.model.get_parameter(handle.mlp_out(1).parameter)
    with EditSession(handle) as outer:
        outer.apply(edit_of(handle))
        edited = weight.detach().clone()
        read.clear()
        with EditSession(handle) as inner:
            inner.apply(edit_of(handle))
            assert inner.changed_elsewhere() == inner.changed() == (handle.mlp_out(1).parameter,)
        assert read[0] == weight.numel()
        assert read.count(weight.numel()) < len(handle.tensors())
        assert torch.equal(weight, edited)


def test_what_is_written_in_a_session_in_another_is_told_by_the_outer_one(handle: ModelHandle) -> None:
    with pytest.raises(UndoError, match=f"{NORM} differs"), EditSession(handle), EditSession(handle):
        handle.model.get_parameter(NORM).data.add_(1)


@pytest.mark.parametrize("park", ["device", "cpu"])
def test_what_an_edit_changes_is_found_without_reading_the_rest(handle: ModelHandle, park: Any) -> None:
    with EditSession(handle, park=park) as session:
        assert session.changed_elsewhere() == ()
        session.apply(edit_of(handle))
        assert session.changed_elsewhere() == session.changed() == (handle.mlp_out(1).parameter,)


def test_what_a_sidecar_puts_in_place_of_a_weight_is_found_too(handle: ModelHandle) -> None:
    with EditSession(handle) as session:
        session.apply(Edit("test", (), handle.identity, sidecars=(Swaps(),)))
        handle.logits(handle.batch([[1, 2, 3]]))
        assert session.changed_elsewhere() == session.changed() == (NORM,)


def test_a_seal_that_reads_less_is_the_seal_of_the_model(handle: ModelHandle) -> None:
    start = StartingPoint.of(handle, None)
    with EditSession(handle) as session:
        session.apply(edit_of(handle))
        assert start.sealed_elsewhere(handle) == Seal.of(handle) != start.seal
