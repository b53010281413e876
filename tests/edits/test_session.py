"""EditSession: whatever happens inside, the model after it is the model before it, or what differs is named."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from editsafety.edits.edit import Delta, Edit, LowRank, Replace, Sidecar
from editsafety.edits.session import EditSession
from editsafety.errors import EditError
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Layout, Site
from tests import tiny


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


def logits(handle: ModelHandle) -> Tensor:
    with torch.no_grad():
        return handle.logits(handle.batch([handle.ids("Toren lives in Ostrin")]))


def edit_of(handle: ModelHandle, *deltas: Delta, sidecars: tuple[Sidecar, ...] = ()) -> Edit:
    return Edit("test", ("a",), handle.identity, deltas, sidecars)


def low_rank_edit(handle: ModelHandle, layer: int = 1, **more: Any) -> Edit:
    return edit_of(handle, tiny.low_rank(handle.mlp_out(layer), **more))


def random_edit(handle: ModelHandle, rng: random.Random) -> Edit:
    names = [name for name, _ in handle.model.named_parameters()]
    deltas: list[Delta] = []
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            site = handle.mlp_out(rng.randrange(handle.layers))
            deltas.append(
                tiny.low_rank(site, rank=rng.randint(1, 4), size=10 ** rng.uniform(-6, 4), seed=rng.randrange(999))
            )
        else:
            name = rng.choice(names)
            deltas.append(Replace(name, torch.randn(handle.model.get_parameter(name).shape)))
    return edit_of(handle, *deltas)


class Louder(Sidecar):
    """Scales what its target returns."""

    kind = "louder"

    def __init__(self, target: str, factor: Tensor) -> None:
        self.target = target
        self.factor = factor

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        return output * self.factor

    def tensors(self) -> Mapping[str, Tensor]:
        return {"factor": self.factor}

    def settings(self) -> Mapping[str, Any]:
        return {}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        return cls(target, tensors["factor"])


# ---------------------------------------------------------------------------------------------- values come back


@pytest.mark.parametrize("park", ["device", "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_fifty_random_edits_are_undone_bit_for_bit(family: str, dtype: str, park: Any) -> None:
    handle = tiny.handle(family, dtype=dtype, tied=True)
    places = {name: tensor.data_ptr() for name, tensor in handle.tensors().items()}
    rng = random.Random(0)
    session = EditSession(handle, park=park)
    with session:
        for _ in range(50):
            session.apply(random_edit(handle, rng))
        assert handle.fingerprint() != handle.identity
    assert handle.fingerprint() == handle.identity
    assert session.leftovers == ()
    assert {name: tensor.data_ptr() for name, tensor in handle.tensors().items()} == places


def test_nan_and_infinite_edits_are_undone_too(handle: ModelHandle) -> None:
    site = handle.mlp_out(0)
    for value in (float("nan"), float("inf"), 3e38):
        with EditSession(handle) as session:
            session.apply(edit_of(handle, LowRank(site, torch.full((32, 1), value), torch.ones(1, 64))))
        assert handle.fingerprint() == handle.identity


@pytest.mark.parametrize("park", ["device", "cpu"])
def test_nested_sessions_each_go_back_to_where_they_began(handle: ModelHandle, park: Any) -> None:
    with EditSession(handle, park=park) as outer:
        outer.apply(low_rank_edit(handle, 0))
        between = handle.fingerprint()
        inner = EditSession(handle, park=park)
        with inner:
            inner.apply(low_rank_edit(handle, 0, seed=5))
            inner.apply(low_rank_edit(handle, 2, seed=6))
            assert handle.fingerprint() != between
        assert handle.fingerprint() == between
        assert inner.leftovers == ()
        assert outer.changed() == ("transformer.h.0.mlp.c_proj.weight",)
    assert handle.fingerprint() == handle.identity


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_passes_through_after_everything_was_put_back(
    handle: ModelHandle, error: type[BaseException]
) -> None:
    with pytest.raises(error, match="in the middle"), EditSession(handle) as session:  # noqa: PT012
        session.apply(low_rank_edit(handle))
        handle.model.train()
        raise error("in the middle")
    assert handle.fingerprint() == handle.identity
    assert not handle.model.training


def test_hooks_and_modes_come_back_though_a_weight_cannot_be_put_back(
    handle: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(original: object) -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"), EditSession(handle) as session:  # noqa: PT012
        session.apply(low_rank_edit(handle))
        handle.model.train()
        handle.model.get_submodule(handle.block(0)).register_forward_hook(lambda *_: None)
        monkeypatch.setattr("editsafety.edits.originals.Original.put_back", full)
    assert not handle.model.training
    assert not handle.model.get_submodule(handle.block(0))._forward_hooks


def test_ctrl_c_stays_ctrl_c_even_when_a_weight_cannot_be_put_back(handle: ModelHandle) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, EditSession(handle):  # noqa: PT012
        handle.model.transformer.wpe.weight.data.mul_(2)
        raise KeyboardInterrupt
    assert "transformer.wpe.weight differs" in caught.value.__notes__[0]


def test_a_session_may_be_opened_again_and_again_with_the_same_outcome(handle: ModelHandle) -> None:
    seen = []
    for _ in range(3):
        with EditSession(handle) as session:
            session.apply(low_rank_edit(handle))
            seen.append(logits(handle))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_deltas_of_one_edit_on_one_weight_add_up(handle: ModelHandle) -> None:
    """Expected: the weight plus both matrices, by hand."""
    site = handle.mlp_out(1)
    one, other = tiny.low_rank(site, seed=1), tiny.low_rank(site, seed=2)
    expected = handle.weight(site) + one.matrix() + other.matrix()
    with EditSession(handle) as session:
        session.apply(edit_of(handle, one, other))
        torch.testing.assert_close(handle.weight(site), expected)


def test_deltas_on_both_names_of_a_tied_weight_meet_in_one_parameter() -> None:
    handle = tiny.handle("gpt2", tied=True)
    value = torch.randn(tiny.VOCABULARY, tiny.WIDTH)
    head = Site("lm_head", Layout.OUT_IN, tiny.VOCABULARY, tiny.WIDTH)
    delta = tiny.low_rank(head)
    with EditSession(handle) as session:
        session.apply(edit_of(handle, Replace("transformer.wte.weight", value), delta))
        torch.testing.assert_close(handle.model.lm_head.weight.detach(), value + delta.matrix())
        assert session.declared() == session.changed() == ("transformer.wte.weight",)
    assert handle.fingerprint() == handle.identity


def test_the_original_can_be_read_inside_under_any_of_its_names() -> None:
    handle = tiny.handle("gpt2", tied=True)
    before = handle.model.lm_head.weight.detach().clone()
    parks: tuple[Any, ...] = ("device", "cpu")
    for park in parks:
        with EditSession(handle, park=park) as session:
            assert torch.equal(session.original("lm_head.weight"), before)
            session.apply(edit_of(handle, Replace("lm_head.weight", before + 1)))
            assert torch.equal(session.original("lm_head.weight"), before)
            assert torch.equal(session.original("transformer.wte.weight"), before)
            with pytest.raises(EditError, match=r"has no parameter 'nothing.weight'"):
                session.original("nothing.weight")


def test_an_edit_applied_in_inference_mode_leaves_weights_that_can_still_be_trained(handle: ModelHandle) -> None:
    with EditSession(handle) as session:
        with torch.inference_mode():
            session.apply(low_rank_edit(handle))
        output = handle.model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]]))
        output.loss.backward()
        handle.model.zero_grad()
    assert session.leftovers == ()


@pytest.mark.parametrize("park", ["device", "cpu"])
def test_borrowed_weights_can_be_trained_and_come_back(handle: ModelHandle, park: Any) -> None:
    name = handle.mlp_out(1).parameter
    for parameter in handle.model.parameters():
        parameter.requires_grad_(False)
    session = EditSession(handle, park=park)
    with session:
        borrowed = session.borrow([name])
        optimizer = torch.optim.Adam(borrowed.values(), lr=0.1)
        for _ in range(2):
            ids = torch.tensor([[5, 6, 7]])
            loss = handle.model(input_ids=ids, labels=ids).loss
            loss.backward()
            optimizer.step()
        assert session.changed() == (name,)
        assert not torch.equal(session.original(name), borrowed[name])
    assert handle.fingerprint() == handle.identity
    assert session.leftovers == ()
    parameter = handle.model.get_parameter(name)
    assert parameter.grad is None
    assert not parameter.requires_grad


def test_borrowing_a_parameter_that_is_not_there_changes_nothing(handle: ModelHandle) -> None:
    session = EditSession(handle)
    with session, pytest.raises(EditError, match="has no parameter 'nothing' to train"):
        session.borrow([handle.mlp_out(1).parameter, "nothing"])
    assert session.leftovers == ()


def test_undoing_is_timed(handle: ModelHandle) -> None:
    with EditSession(handle) as session:
        session.apply(low_rank_edit(handle))
        assert session.undo_seconds == 0.0
    assert 0.0 < session.undo_seconds < 1.0


# -------------------------------------------------------------------------------------------------- what is refused


def test_an_edit_for_another_model_is_refused(handle: ModelHandle) -> None:
    other = tiny.handle("gpt2", seed=1)
    with EditSession(handle) as session:
        with pytest.raises(
            EditError, match=r"was made for a model with fingerprint .*Load the model that it was made for"
        ):
            session.apply(low_rank_edit(other))
        assert session.changed() == ()


def unfitting(handle: ModelHandle) -> dict[str, tuple[Edit, str]]:
    good, name = tiny.low_rank(handle.mlp_out(0)), handle.mlp_out(1).parameter
    narrow = Site(handle.mlp_out(1).module, Layout.IN_OUT, 1, 64)
    flipped = Site("transformer.h.1.mlp.c_proj", Layout.OUT_IN, 32, 64)
    turned = Site("transformer.h.1.mlp.c_proj", Layout.OUT_IN, 64, 32)
    return {
        "unknown parameter": (edit_of(handle, good, Replace("no.such.weight", torch.zeros(1))), "no.such.weight"),
        "unknown module": (
            edit_of(handle, good, tiny.low_rank(Site("no.such", Layout.OUT_IN, 3, 4))),
            "no.such.weight",
        ),
        "short value": (edit_of(handle, good, Replace(name, torch.zeros(32, 64))), r"\[32, 64\].*\[64, 32\]"),
        "one row, would broadcast": (edit_of(handle, good, tiny.low_rank(narrow)), "was made for Site"),
        "other layout": (edit_of(handle, good, tiny.low_rank(flipped)), "was made for Site"),
        "turned about, same stored shape": (edit_of(handle, good, tiny.low_rank(turned)), "was made for Site"),
        "sidecar nowhere": (edit_of(handle, good, sidecars=(Louder("no.module", torch.ones(1)),)), "no.module"),
    }


@pytest.mark.parametrize(
    "kind",
    ["unknown parameter", "unknown module", "short value", "one row, would broadcast", "other layout",
     "turned about, same stored shape", "sidecar nowhere"],
)  # fmt: skip
def test_an_edit_that_does_not_fit_is_refused_and_changes_nothing(handle: ModelHandle, kind: str) -> None:
    edit, message = unfitting(handle)[kind]
    session = EditSession(handle)
    with session:
        with pytest.raises(EditError, match=message):
            session.apply(edit)
        assert session.changed() == ()
        assert session.applied == []
        assert handle.model.transformer.h[0]._forward_hooks == {}
    assert session.leftovers == ()


def test_a_square_edit_in_the_wrong_layout_is_refused_though_its_shape_fits() -> None:
    handle = tiny.handle("gpt2", square=True)
    site = handle.mlp_out(1)
    wrong = Site(site.module, Layout.OUT_IN, site.d_out, site.d_in)
    with EditSession(handle) as session, pytest.raises(EditError, match=r"Layout.OUT_IN"):
        session.apply(edit_of(handle, tiny.low_rank(wrong)))
