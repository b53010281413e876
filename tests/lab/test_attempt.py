"""One measured attempt: what it finds, what it names, and that the model is afterwards what it was."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Delta, Edit, LowRank, Replace, Sidecar
from editsafety.edits.seal import Frame, Seal
from editsafety.edits.session import EditSession
from editsafety.errors import EditError, EditorError, EditorTimeoutError, ModelError, UndoError
from editsafety.lab.attempt import Made, Questions, attempt, compute, failure_of, observe
from editsafety.lab.bench import Bench
from editsafety.model.sites import Layout, Site
from tests.lab.walking import PRINTS, REQUESTS, Push, Scribbles, bench_of, editor
from tests.sidecars import EmptySidecar

WEIGHT = "transformer.h.1.mlp.c_proj.weight"


class Meddles(EmptySidecar):
    """Runs beside the last norm, and does to its module what a sidecar must not."""

    kind = "meddles"


class Swaps(Meddles):
    """Puts another weight in place of the one that is there."""

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        module.weight.data = module.weight.data * 1.01  # type: ignore[operator,union-attr]
        return output


class Hooks(Meddles):
    """Leaves a hook."""

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        if not module._forward_pre_hooks:
            module.register_forward_pre_hook(lambda *_: None)
        return output


class Does(Meddles):
    """Does what it is given whenever the model runs."""

    def __init__(self, deed: Callable[[], None]) -> None:
        self.deed = deed

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        self.deed()


class Hooked(Push):
    """Leaves a hook while it computes."""

    def deltas(self, requests: Sequence[EditRequest], count: int) -> tuple[Delta, ...]:
        self.handle.model.get_submodule(self.handle.block(0)).register_forward_hook(lambda *_: None)
        return super().deltas(requests, count)


@pytest.fixture
def bench() -> Bench:
    return bench_of("gpt2")


def pushed(bench: Bench, place: Path, requests: Sequence[EditRequest] = REQUESTS[:1]) -> Made:
    return compute(bench.handle, editor(Push, bench, place), requests)


def beside(bench: Bench, car: Sidecar) -> Made:
    return Made(Edit("somebody", (), bench.handle.identity, sidecars=(car,)), REQUESTS[:1])


def asked(bench: Bench, *requests: EditRequest) -> Questions:
    return Questions(requests, bench.unedited(requests))


def test_every_byte_comes_back_and_the_step_says_what_was_done(bench: Bench, tmp_path: Path) -> None:
    handle = bench.handle
    seal, frame, unedited = Seal.of(handle), Frame.of(handle), PRINTS(handle, 8)
    made = pushed(bench, tmp_path, REQUESTS[:2])
    step, _ = attempt(bench, made, [asked(bench, *REQUESTS[:2])], probes=[PRINTS])
    assert (seal.changed(Seal.of(handle)), frame.left_behind(handle)) == ((), ())
    assert PRINTS(handle, 8) == unedited != step.found["prints"]
    assert (step.edits, step.block) == (2, ("case-0", "case-1"))
    assert step.changed == step.declared == (WEIGHT,)
    assert (step.undeclared, step.leftovers, step.restored) == ((), (), True)
    assert (step.edit_id, step.notes) == (made.edit.id, {"count": 1.0})


def test_the_figures_are_those_of_the_edited_model(bench: Bench, tmp_path: Path) -> None:
    made = pushed(bench, tmp_path)
    question = asked(bench, REQUESTS[0])
    step, (answer,) = attempt(bench, made, [question])
    with EditSession(bench.handle) as session:
        session.apply(made.edit)
        model = bench.measure("model")
        case = bench.measure("case", REQUESTS[:1], before=question.before, edit=made.edit)
    weights = bench.measure("edit", REQUESTS[:1], edit=made.edit)
    assert answer == case
    assert step.found == {**weights, **model, **case}
    assert step.found["me_ppl"] != bench.base["me_ppl"]


def test_what_it_cost_is_counted_part_by_part(bench: Bench, tmp_path: Path) -> None:
    made = pushed(bench, tmp_path)
    cost = attempt(bench, made)[0].cost
    assert (cost.edit, cost.edit_bytes) == (made.cost.edit, made.cost.edit_bytes)
    for seconds in (cost.edit, cost.apply, cost.measure, cost.undo):
        assert seconds is not None
        assert seconds > 0


def test_each_question_is_asked_against_its_own_unedited_answers(bench: Bench, tmp_path: Path) -> None:
    one, other = (asked(bench, request) for request in REQUESTS[:2])
    assert one.before["locality"].answers != ()
    strange = Questions(other.requests, {**other.before, "locality": _answered(other, "something else")})
    _, (kept, moved) = attempt(bench, Made(Edit("nobody", (), bench.handle.identity), ()), [one, strange])
    assert kept["locality"].value == 1.0  # nothing was edited, so every neighbour is answered as before
    assert moved["locality"].value == 0.0  # but not as this question says that it was
    assert moved["locality"].answers == other.before["locality"].answers


def _answered(question: Questions, answer: str) -> Any:
    found = question.before["locality"]
    return replace(found, answers=tuple(answer for _ in found.answers))


def test_what_a_sidecar_changes_without_saying_so_is_named_and_put_back(bench: Bench) -> None:
    step, _ = attempt(bench, beside(bench, Swaps()))
    assert (step.declared, step.undeclared) == ((), ("transformer.ln_f.weight",))
    assert step.notes == {"sidecars": True}
    assert any("transformer.ln_f.weight" in left for left in step.leftovers)
    assert bench.handle.fingerprint() == bench.handle.identity


def test_leftovers_of_computing_and_of_measuring_are_both_named(bench: Bench, tmp_path: Path) -> None:
    made = compute(bench.handle, editor(Hooked, bench, tmp_path), REQUESTS[:1])
    assert made.leftovers == ("1 forward hooks left on transformer.h.0",)
    both = Made(Edit("both", (), bench.handle.identity, sidecars=(Hooks(),)), (), leftovers=made.leftovers)
    step, _ = attempt(bench, both)
    assert step.leftovers == (*made.leftovers, "1 forward pre hooks left on transformer.ln_f")
    assert not bench.handle.model.transformer.ln_f._forward_pre_hooks


def broken() -> None:
    raise ValueError("no such codebook")


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("trouble", "kind"), [(broken, ValueError), (ctrl_c, KeyboardInterrupt)])
def test_an_exception_inside_leaves_the_model_whole(
    bench: Bench, trouble: Callable[[], None], kind: type[BaseException]
) -> None:
    seal, frame = Seal.of(bench.handle), Frame.of(bench.handle)
    with pytest.raises(kind):
        attempt(bench, beside(bench, Does(trouble)))

    def look(session: EditSession) -> None:
        assert session.changed() == (WEIGHT,)
        trouble()

    weight = bench.handle.model.get_parameter(WEIGHT).detach()
    made = Made(Edit("somebody", (), bench.handle.identity, (Replace(WEIGHT, weight * 2),)), ())
    with pytest.raises(kind):
        attempt(bench, made, look=look)
    assert (seal.changed(Seal.of(bench.handle)), frame.left_behind(bench.handle)) == ((), ())


def test_an_observed_edit_stays_in_the_open_session(bench: Bench, tmp_path: Path) -> None:
    made = pushed(bench, tmp_path)
    with EditSession(bench.handle) as session:
        step, _ = observe(bench, session, made, [])
        assert session.changed() == step.changed == (WEIGHT,)
        assert bench.measure("model")["me_ppl"] == step.found["me_ppl"]
        assert (step.restored, step.cost.undo) == (None, None)
        again, _ = observe(bench, session, pushed(bench, tmp_path), [], since=Seal.of(bench.handle))
        assert again.changed == (WEIGHT,)
        assert again.found["me_ppl"] != step.found["me_ppl"]
        nothing, _ = observe(
            bench, session, Made(Edit("n", (), made.edit.made_for), ()), [], since=Seal.of(bench.handle)
        )
        assert nothing.changed == ()
    assert bench.handle.fingerprint() == bench.handle.identity


def test_what_is_known_of_the_weights_is_not_measured_again(bench: Bench, tmp_path: Path) -> None:
    made = pushed(bench, tmp_path)
    with EditSession(bench.handle) as session:
        step, _ = observe(bench, session, made, [], weights={"mine": bench.base["me_ppl"]})
    assert step.found["mine"] == bench.base["me_ppl"]
    assert "delta_norm" not in step.found


# ----------------------------------------------------------------------------------------------- what an editor may do


class ReturnsNothing(Push):
    """Forgets to return its edit."""

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Any:
        return None


def test_what_is_no_edit_and_what_writes_by_itself_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(EditorError, match=r"returnsnothing\.edit\(\) returned NoneType, expected an editsafety Edit"):
        compute(bench.handle, editor(ReturnsNothing, bench, tmp_path), REQUESTS[:1])
    with pytest.raises(UndoError, match=r"wte\.weight differs"):
        compute(bench.handle, editor(Scribbles, bench, tmp_path), REQUESTS[:3])


class Stale(Push):
    """Returns the edit of another request: a cache that looks at too little."""

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        return replace(super().edit(requests), request_ids=("case-7",))


def test_an_edit_of_other_requests_than_were_asked_for_is_refused(bench: Bench, tmp_path: Path) -> None:
    said = r"returned an edit of 'case-7', and was asked for one of 'case-0', 'case-1'\. Give the edit the ids"
    with pytest.raises(EditorError, match=said):
        compute(bench.handle, editor(Stale, bench, tmp_path), REQUESTS[:2])


class Rewrites(Push):
    """Makes its own task easier."""

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        object.__setattr__(requests[0], "target_new", requests[0].target_true)
        object.__setattr__(requests[0], "neighbours", ())
        return super().edit(requests)


def test_what_an_editor_does_to_its_requests_is_nothing_to_those_that_are_measured(
    bench: Bench, tmp_path: Path
) -> None:
    before = REQUESTS[0].as_json()
    made = compute(bench.handle, editor(Rewrites, bench, tmp_path), REQUESTS[:1])
    assert [request.as_json() for request in made.requests] == [REQUESTS[0].as_json()] == [before]


UNFIT = {
    "another name": (Replace("transformer.h.9.w", torch.ones(3)), "this edit changes 'transformer.h.9.w', which "),
    "another shape": (Replace(WEIGHT, torch.ones(3, 3)), r"new value for .* is \[3, 3\]; that parameter is "),
    "no matrix": (
        LowRank(Site("transformer.ln_f", Layout.IN_OUT, 4, 6), torch.ones(4, 1), torch.ones(1, 6)),
        "transformer.ln_f of .* is no plain matrix",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_an_edit_that_does_not_fit_the_model_is_no_fault_of_the_measure_that_reads_it(bench: Bench, kind: str) -> None:
    delta, said = UNFIT[kind]
    made = Made(Edit("mine", (), bench.handle.identity, (delta,)), ())
    with pytest.raises((EditError, ModelError), match=said) as caught:
        attempt(bench, made)
    failure = failure_of(bench, "mine", caught.value)
    assert failure.kind == "editor"
    assert failure.message.startswith("mine failed: ")


def test_what_came_out_of_an_editor_is_said_in_words_and_its_weights_are_brought_back(bench: Bench) -> None:
    def caught(error: BaseException) -> BaseException:
        try:
            raise error
        except BaseException as here:
            return here

    plain = failure_of(bench, "mine", caught(ValueError("no such layer")))
    assert (plain.kind, plain.message, plain.undeclared) == ("editor", "mine failed: ValueError: no such layer", ())
    assert plain.where.startswith("test_attempt.py:")
    assert failure_of(bench, "mine", caught(EditorError("no edit"))).kind == "contract"
    assert failure_of(bench, "mine", caught(EditorTimeoutError("too long"))).kind == "timeout"
    assert failure_of(bench, "mine", caught(torch.OutOfMemoryError("full"))).kind == "oom"
    with torch.no_grad():
        bench.handle.model.get_parameter(WEIGHT).add_(1)
    written = failure_of(bench, "mine", caught(UndoError([f"{WEIGHT} differs"])))
    assert (written.kind, written.undeclared) == ("undeclared", (f"{WEIGHT} differs",))
    assert bench.handle.fingerprint() == bench.handle.identity
