"""Once: what is asked of the unedited model a second time is the same bits, and nothing is kept of another model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from editsafety.datasets.request import EditRequest
from editsafety.editing.targets import Target, TargetHparams, optimise_many
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.engine import once
from editsafety.errors import UndoError
from editsafety.model.handle import ModelHandle
from editsafety.model.meter import Effort
from tests import tiny

CONTEXTS = ("{}", "The quick. {}", "Toren lives. {}")
SETTINGS = TargetHparams(v_num_grad_steps=4, v_lr=0.2, v_weight_decay=0.1, clamp_norm_factor=4)
ONE = tiny.request(prompt="The work of {} is that of a", target_new="farmer and baker")
OTHER = tiny.request("case-1", subject="Mirel", target_new="farmer")
C_PROJ = "transformer.h.1.mlp.c_proj"


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


def seek(
    handle: ModelHandle,
    requests: Sequence[EditRequest] = (ONE,),
    *,
    module: str = C_PROJ,
    contexts: Sequence[str] = CONTEXTS,
    whole_rows: bool = False,
    **numbers: Any,
) -> tuple[tuple[Target, ...], bool]:
    """v*, and whether it was known."""
    effort, settings = Effort(), SETTINGS.model_copy(update=numbers)
    with handle.engine.charging(effort):
        found = optimise_many(handle, module, requests, contexts, settings, whole_rows=whole_rows)
    return found, effort.charged > 0


def plainly(handle: ModelHandle, *args: Any, **more: Any) -> tuple[Target, ...]:
    """v* worked out anew, in the same batches."""
    with handle.engine.afresh():
        return seek(handle, *args, **more)[0]


def same(found: Sequence[Target], expected: Sequence[Target]) -> bool:
    """Whether they are the same bits, figures and all."""
    return all(
        torch.equal(one.value, other.value)
        and torch.equal(one.start, other.start)
        and (one.loss, one.nll, one.kl, one.steps) == (other.loss, other.nll, other.kl, other.steps)
        for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_the_second_time_it_is_known_and_the_same_to_the_bit(family: str, dtype: str) -> None:
    handle = tiny.handle(family, dtype=dtype)
    module = handle.block(1)
    with EditSession(handle):
        first, known = seek(handle, module=module)
        assert not known
    with EditSession(handle):
        second, known = seek(handle, module=module)
        assert known
        assert same(second, first)
        assert same(second, plainly(handle, module=module))


@pytest.mark.parametrize(
    "more",
    [
        {"requests": (OTHER,)},
        {"requests": (ONE, OTHER)},
        {"module": "transformer.h.1"},
        {"module": "transformer.h.0.mlp.c_proj"},
        {"contexts": CONTEXTS[:2]},
        {"contexts": (*CONTEXTS[:2], "The quick brown fox. {}")},
        {"whole_rows": True},
        {"v_num_grad_steps": 3},
        {"v_lr": 0.21},
        {"v_weight_decay": 0.2},
        {"clamp_norm_factor": 3},
        {"kl_factor": 0.1},
        {"v_stop_loss": 0.06},
    ],
    ids=str,
)
def test_another_question_is_worked_out(handle: ModelHandle, more: dict[str, Any]) -> None:
    with EditSession(handle):
        seek(handle)
        found, known = seek(handle, **more)
        assert not known
        assert same(found, plainly(handle, **more))
        assert seek(handle, **more)[1]


def test_every_number_of_the_search_is_tried_above() -> None:
    assert set(TargetHparams.model_fields) == {
        *("v_num_grad_steps", "v_lr", "v_weight_decay", "clamp_norm_factor", "kl_factor", "v_stop_loss")
    }


def test_of_a_block_the_whole_is_kept_and_no_part_of_it(handle: ModelHandle) -> None:
    """A request beside others is rounded otherwise: what is found must not hang on what was asked before."""
    with EditSession(handle):
        seek(handle, (ONE, OTHER))
        assert not seek(handle, (ONE,))[1]
        assert not seek(handle, (OTHER, ONE))[1]
        assert seek(handle, (ONE, OTHER))[1]


def test_without_a_session_nothing_is_kept(handle: ModelHandle) -> None:
    assert not seek(handle)[1]
    assert not seek(handle)[1]


def test_a_plain_engine_keeps_and_takes_nothing(handle: ModelHandle) -> None:
    with EditSession(handle):
        first, _ = seek(handle)
        with handle.engine.switched_off():
            plain, known = seek(handle)
            assert not known
        assert same(plain, first)
        assert seek(handle)[1]


def test_of_a_model_that_carries_an_edit_nothing_is_kept_and_nothing_taken(handle: ModelHandle) -> None:
    edit = Edit("test", (), handle.identity, deltas=(tiny.low_rank(handle.mlp_out(0)),))
    with EditSession(handle) as session:
        unedited, _ = seek(handle)
        session.apply(edit)
        edited, known = seek(handle)
        assert not known
        assert not same(edited, unedited)
        assert not seek(handle)[1]
    with EditSession(handle):
        assert same(seek(handle)[0], unedited)


def in_place(handle: ModelHandle) -> None:
    handle.model.get_parameter(f"{C_PROJ}.weight").data.mul_(1.1)


def by_a_hook(handle: ModelHandle) -> None:
    handle.model.get_submodule(C_PROJ).register_forward_hook(lambda module, args, output: output * 1.1)


def by_another_module(handle: ModelHandle) -> None:
    handle.model.transformer.h[1].mlp.act = torch.nn.ReLU()


def by_another_forward(handle: ModelHandle) -> None:
    block = handle.model.transformer.h[1].mlp
    forward = block.forward
    block.forward = lambda *args: forward(*args) * 1.1


@pytest.mark.parametrize("deed", [in_place, by_a_hook, by_another_module, by_another_forward])
def test_who_changes_the_model_by_himself_is_served_nothing_stale(
    handle: ModelHandle, deed: Callable[[ModelHandle], None]
) -> None:
    session = EditSession(handle)
    session.__enter__()
    before, _ = seek(handle)
    deed(handle)
    after, known = seek(handle)
    assert not known
    assert not same(after, before)
    assert same(after, plainly(handle))
    if deed is in_place:
        with pytest.raises(UndoError):
            session.__exit__(None, None, None)
    else:
        session.__exit__(None, None, None)
        with EditSession(handle):
            assert same(seek(handle)[0], before)


def test_a_setting_that_torch_computes_by_is_a_part_of_the_question(handle: ModelHandle) -> None:
    with EditSession(handle):
        seek(handle)
        torch.set_float32_matmul_precision("high")
        try:
            assert not seek(handle)[1]
        finally:
            torch.set_float32_matmul_precision("highest")
        assert seek(handle)[1]


def test_whoever_changes_what_he_was_given_spoils_nobodys(handle: ModelHandle) -> None:
    with EditSession(handle):
        (first,), _ = seek(handle)
        expected = first.value.clone()
        first.value.zero_()
        first.start.zero_()
        (second,), known = seek(handle)
        assert known
        assert torch.equal(second.value, expected)
        second.value.zero_()
        (third,), _ = seek(handle)
        assert torch.equal(third.value, expected)


def test_another_process_finds_it_in_the_folder(handle: ModelHandle, tmp_path: Path) -> None:
    with handle.engine.sharing(tmp_path), EditSession(handle):
        first, _ = seek(handle)
    another = tiny.handle("gpt2")
    with EditSession(another):
        assert not seek(another)[1]
        another.engine.forget()
    with another.engine.sharing(tmp_path), EditSession(another):
        second, known = seek(another)
        assert known
        assert same(second, first)
    other_weights = tiny.handle("gpt2", seed=1)
    with other_weights.engine.sharing(tmp_path), EditSession(other_weights):
        assert not seek(other_weights)[1]


@pytest.mark.parametrize("place", [0, 200, -8])
def test_a_damaged_file_is_made_anew(handle: ModelHandle, tmp_path: Path, place: int) -> None:
    with handle.engine.sharing(tmp_path), EditSession(handle):
        first, _ = seek(handle)
        (file,) = tmp_path.iterdir()
        whole = bytearray(file.read_bytes())
        whole[place] ^= 1
        file.write_bytes(whole)
        handle.engine.forget()
        second, known = seek(handle)
        assert not known
        assert same(second, first)
        handle.engine.forget()
        assert seek(handle)[1]


def test_a_folder_that_cannot_be_written_costs_no_edit(handle: ModelHandle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with handle.engine.sharing(tmp_path / "file"), EditSession(handle):
        first, _ = seek(handle)
        assert same(seek(handle)[0], first)


def test_of_what_is_kept_the_oldest_goes_first(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 2 * tiny.WIDTH * 4 + 4 * 4
    monkeypatch.setattr(once, "MOST", 2 * size)
    with EditSession(handle):
        for lr in (0.1, 0.2, 0.3):
            seek(handle, v_lr=lr)
        assert seek(handle, v_lr=0.3)[1]
        assert seek(handle, v_lr=0.2)[1]
        assert not seek(handle, v_lr=0.1)[1]


def test_what_was_known_is_charged_as_it_was_the_first_time(handle: ModelHandle) -> None:
    first, second = Effort(), Effort()
    with EditSession(handle):
        with handle.engine.charging(first):
            first.peak_so_far = lambda: 12_345
            optimise_many(handle, C_PROJ, (ONE,), CONTEXTS, SETTINGS)
        with handle.engine.charging(second):
            optimise_many(handle, C_PROJ, (ONE,), CONTEXTS, SETTINGS)
    assert first.charged == 0
    assert second.charged > 0
    assert second.peak_bytes == 12_345
