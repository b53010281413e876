"""Sidecars in a session, and many edits on top of each other: what stays, what is dropped, and the way back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from editsafety.edits.edit import Replace, Sidecar, nothing
from editsafety.edits.session import EditSession
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.edits.test_session import Louder, edit_of, logits, low_rank_edit


@pytest.fixture
def handle() -> ModelHandle:
    return tiny.handle("gpt2")


# --------------------------------------------------------------------------------------------------------- sidecars


def test_a_sidecar_changes_what_it_should_and_leaves_no_trace(handle: ModelHandle) -> None:
    """Expected: the projection's own output times three; logits before and after without the sidecar."""
    before, target = logits(handle), handle.mlp_out(1).module
    module, x = handle.model.get_submodule(target), torch.randn(2, 64)
    with torch.no_grad():
        plain = module(x)
        session = EditSession(handle)
        with session:
            session.apply(edit_of(handle, sidecars=(Louder(target, torch.tensor(3.0)),)))
            assert torch.equal(module(x), plain * 3)
            assert not torch.equal(logits(handle), before)
            assert session.changed() == ()  # no weight is touched
        assert torch.equal(module(x), plain)
    assert session.leftovers == ()
    assert torch.equal(logits(handle), before)
    assert not module._forward_hooks


class Shifted(Sidecar):
    """Adds to what its target receives and multiplies what it returns."""

    kind = "shifted"

    def __init__(self, target: str, shift: float, factor: float) -> None:
        self.target, self.shift, self.factor = target, shift, factor

    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (args[0] + self.shift, *args[1:]), kwargs

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        return output * self.factor

    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    def settings(self) -> Mapping[str, Any]:
        return {"shift": self.shift, "factor": self.factor}

    @classmethod
    def rebuild(cls, target: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        return cls(target, **settings)


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


def test_the_sidecar_applied_last_is_the_outermost(handle: ModelHandle) -> None:
    """Expected: factor2 * (factor1 * f((x + shift2) + shift1)); shifts do not commute with a square in between."""
    block: Any = handle.model.transformer.h[1].mlp
    block.act = Square()
    x = torch.tensor([1.0, 2.0])
    seen: list[Tensor] = []
    target = "transformer.h.1.mlp.act"
    one, two = Shifted(target, 1.0, 3.0), Shifted(target, 10.0, 5.0)
    for car in (one, two):
        plain = car.before

        def noting(*asked: Any, plain: Any = plain) -> Any:
            seen.append(asked[1][0])
            return plain(*asked)

        car.before = noting  # type: ignore[method-assign]
    session = EditSession(handle)
    with session:
        session.apply(edit_of(handle, sidecars=(one,)))
        session.apply(edit_of(handle, sidecars=(two,)))
        assert torch.equal(block.act(x), 5 * 3 * (x + 10 + 1) ** 2)
        assert [s.tolist() for s in seen] == [x.tolist(), (x + 10).tolist()]
    assert torch.equal(block.act(x), x * x)
    assert session.leftovers == ()
    assert not block.act._forward_pre_hooks
    assert not block.act._forward_pre_hooks_with_kwargs


def test_a_sidecar_may_stand_around_the_whole_model(handle: ModelHandle) -> None:
    class Reader(Shifted):
        kind = "reader"

        def before(
            self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return args, {**kwargs, "input_ids": kwargs["input_ids"].flip(1)}

        def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
            output.logits = output.logits.flip(1)
            return output

    ids = handle.ids("Toren lives in Ostrin")
    with torch.no_grad():
        expected = handle.logits(handle.batch([ids[::-1]])).flip(1)
        before = logits(handle)
        session = EditSession(handle)
        with session:
            session.apply(edit_of(handle, sidecars=(Reader("", 0.0, 1.0),)))
            assert torch.equal(logits(handle), expected)
        assert torch.equal(logits(handle), before)
    assert session.leftovers == ()
    assert not handle.model._forward_pre_hooks
    assert not handle.model._forward_hooks


def test_a_sidecar_that_takes_its_input_as_it_comes_has_no_hook_before_its_target(handle: ModelHandle) -> None:
    target = handle.mlp_out(1).module
    with EditSession(handle) as session:
        session.apply(edit_of(handle, sidecars=(Louder(target, torch.tensor(3.0)),)))
        assert not handle.model.get_submodule(target)._forward_pre_hooks
        assert Louder(target, torch.tensor(3.0)).before(nn.Identity(), (1,), {"a": 2}) == ((1,), {"a": 2})


def test_an_edit_that_changes_nothing_is_seen_as_such(handle: ModelHandle) -> None:
    with EditSession(handle) as session:
        session.apply(nothing("noop", ["a"], handle.identity))
        assert session.changed() == ()


# ------------------------------------------------------------------------------------------- many edits, and back again


class Line(Louder):
    """One of a line that goes on growing: it is silent when a later one of its lineage is there."""

    kind = "line"

    def __init__(self, target: str, scale: Tensor, lineage: int) -> None:
        super().__init__(target, scale)
        self.lineage = lineage

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        riders = [getattr(hook, "__self__", None) for hook in module._forward_hooks.values()]
        own = [rider for rider in riders if isinstance(rider, Line) and rider.lineage == self.lineage]
        return super().after(module, args, kwargs, output) if own[-1] is self else output

    def settings(self) -> Mapping[str, Any]:
        return {"lineage": self.lineage}


def test_of_a_lineage_only_the_last_sidecar_stays_and_the_model_says_what_it_said_with_all(handle: ModelHandle) -> None:
    target = handle.mlp_out(1).module
    other = handle.mlp_out(0).module
    cars = [
        Line(target, torch.tensor(2.0), 1),
        Line(target, torch.tensor(5.0), 2),
        Louder(target, torch.tensor(7.0)),
        Line(other, torch.tensor(11.0), 1),
        Line(target, torch.tensor(3.0), 1),
    ]
    module = {car.target: handle.model.get_submodule(car.target) for car in cars}
    hooks = [module[car.target].register_forward_hook(car.after, with_kwargs=True) for car in cars]
    with_all = logits(handle)
    for hook in hooks:
        hook.remove()
    with EditSession(handle) as session:
        for car in cars:
            session.apply(edit_of(handle, sidecars=(car,)))
        assert session.sidecars == tuple(cars[1:])
        assert torch.equal(logits(handle), with_all)
        assert len(module[target]._forward_hooks) == 3
    assert module[target]._forward_hooks == {}


def test_the_tensors_of_earlier_edits_do_not_stay_in_memory(handle: ModelHandle) -> None:
    target = handle.mlp_out(1).module
    with EditSession(handle) as session:
        alive: list[weakref.ref[Any]] = []
        for number in range(3):
            edit = edit_of(handle, tiny.low_rank(handle.mlp_out(0)), sidecars=(Line(target, torch.ones(1), 1),))
            alive += [weakref.ref(edit.deltas[0]), weakref.ref(edit.sidecars[0])]
            session.apply(edit)
            assert session.applied[number].parameters == edit.parameters
            del edit
        gc.collect()
        assert [ref() is None for ref in alive] == [True, True, True, True, True, False]  # the last sidecar runs


@pytest.mark.parametrize("park", ["device", "cpu"])
def test_a_session_goes_back_to_a_mark_and_forth_again_bit_for_bit(handle: ModelHandle, park: Any) -> None:
    target = handle.mlp_out(1).module
    with EditSession(handle, park=park) as session:
        start = session.mark()
        session.apply(low_rank_edit(handle, 0))
        session.apply(edit_of(handle, sidecars=(Line(target, torch.tensor(2.0), 1),)))
        middle, between, said = session.mark(), handle.fingerprint(), logits(handle)
        session.apply(low_rank_edit(handle, 0, seed=3))
        session.apply(low_rank_edit(handle, 2, seed=4))
        session.apply(edit_of(handle, sidecars=(Line(target, torch.tensor(9.0), 1), Louder(target, torch.tensor(2.0)))))
        end, after, said_after = session.mark(), handle.fingerprint(), logits(handle)
        for _ in range(2):
            session.back_to(middle)
            assert handle.fingerprint() == between
            assert torch.equal(logits(handle), said)
            assert len(session.applied) == 2
            session.back_to(start)
            assert handle.fingerprint() == handle.identity
            assert session.changed() == session.declared() == ()
            session.back_to(end)
            assert handle.fingerprint() == after
            assert torch.equal(logits(handle), said_after)
        session.back_to(middle)
        session.apply(low_rank_edit(handle, 0, seed=3))
        assert len(session.applied) == 3
        session.back_to(end)
        assert handle.fingerprint() == after
    assert handle.fingerprint() == handle.identity
    assert session.leftovers == ()


def test_a_value_is_laid_out_like_the_weight_that_it_replaces(handle: ModelHandle) -> None:
    name = handle.mlp_out(1).parameter
    weight = handle.model.get_parameter(name)
    turned = torch.randn(weight.shape[::-1]).T
    with EditSession(handle) as session:
        session.apply(edit_of(handle, Replace(name, turned)))
        assert weight.is_contiguous()
        assert torch.equal(weight, turned)


@pytest.mark.parametrize("park", ["device", "cpu"])
def test_what_happens_behind_a_mark_never_changes_it(handle: ModelHandle, park: Any) -> None:
    """Back to a mark, on from there, and back again: the mark is a state and no memory that is worked in."""
    name = handle.mlp_out(1).parameter
    place = handle.model.get_parameter(name).data_ptr()
    with EditSession(handle, park=park) as session:
        session.apply(low_rank_edit(handle, 1))
        middle, between = session.mark(), handle.fingerprint()
        for seed in (3, 4):
            session.apply(low_rank_edit(handle, 1, seed=seed))
            session.back_to(middle)
            assert handle.fingerprint() == between
        if park == "cpu":  # the model's own memory, whose originals are away
            assert handle.model.get_parameter(name).data_ptr() == place
    assert handle.fingerprint() == handle.identity
