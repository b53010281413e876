"""Questions of all measures are put to a model together, and each is answered as if it were asked alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from editsafety import measures
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.errors import DataError
from editsafety.lab.bench import measure
from editsafety.measures import Inputs
from editsafety.measures.questions import ScoredTarget, ask, asked_together, expecting, score
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement
from tests import tiny
from tests.engine.test_continuing import FAMILIES, counted

ASKING = ("efficacy", "generalisation", "locality")
REQUESTS = (
    tiny.request(),
    tiny.request("case-1", subject="Toren", prompt="The mother tongue of {} is", target_new="Tarnic", target_true=None),
)
PREFIXES = ("A farmer grows wheat. ", "Mirel plays the violin every evening. ")


def figures(handle: ModelHandle, edit: Edit, *, plain: bool) -> list[Measurement]:
    """All figures of the unedited model, and of the edited one."""
    chosen = [measures.load(name) for name in ASKING]
    inputs = Inputs(REQUESTS, prefixes=PREFIXES)
    handle.engine.plain = plain
    before = measure(chosen, handle, inputs, "case")
    with EditSession(handle, prove="never") as session:
        session.apply(edit)
        after = measure(chosen, handle, replace(inputs, edit=edit, before=before), "case")
    handle.engine.plain = False
    return [*before.values(), *after.values()]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_case_has_the_figures_and_answers_that_it_has_plainly(family: str) -> None:
    handle = tiny.handle(family)
    edit = Edit("test", ("case-0",), handle.identity, (tiny.low_rank(handle.mlp_out(1), size=1.0),))
    plain, fast = (figures(handle, edit, plain=one) for one in (True, False))
    assert len(plain) == 2 * (7 + 1 + 2)
    probabilities = [numbers(one) for one in plain if one.name == "target_probability"]
    assert probabilities[0] != probabilities[1]  # the edit is felt
    for one, other in zip(fast, plain, strict=True):
        assert (one.name, one.answers) == (other.name, other.answers)
        assert numbers(one) == pytest.approx(numbers(other), rel=1e-5, nan_ok=True)


def numbers(found: Measurement) -> list[float]:
    return [math.nan if one is None else one for one in (found.value, *found.items)]


def passes(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch, names: Sequence[str]) -> int:
    with monkeypatch.context() as patch:
        shapes = counted(handle, patch)
        measure([measures.load(name) for name in names], handle, Inputs(REQUESTS, prefixes=PREFIXES), "case")
    return len(shapes)


def test_three_measures_take_hardly_more_passes_than_the_longest_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    alone = [passes(handle, monkeypatch, [name]) for name in ASKING]
    together = passes(handle, monkeypatch, ASKING)
    assert together <= max(alone) + 2 < sum(alone)


def test_nothing_is_run_for_what_was_asked_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    question = expecting(handle, "Ashurn works as a", "farmer", "here")
    target = ScoredTarget("Ashurn works as a", "teacher")
    alone = ask(handle, [question]), score(handle, [target, None])
    with asked_together(handle, [], Inputs(), [question, target]):
        shapes = counted(handle, monkeypatch)
        assert ask(handle, [question]) == alone[0]
        found, nothing = score(handle, [target, None])
        assert shapes == []
    assert nothing is None
    assert found is not None
    assert alone[1][0] is not None
    assert found.nll == pytest.approx(alone[1][0].nll, rel=1e-5)


def test_a_prompt_that_does_not_fit_is_named_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    shapes = counted(handle, monkeypatch)
    long = tiny.request("long", prompt="{} " + "works as a " * handle.context)
    with pytest.raises(DataError, match="request 'long'"):
        measure([measures.load("efficacy")], handle, Inputs((REQUESTS[0], long)), "case")
    assert shapes == []


def test_a_measure_that_announces_nothing_is_asked_all_the_same() -> None:
    class Own:
        name, version, scope = "own", 1, "case"

        def __call__(self, handle: ModelHandle, inputs: Inputs) -> tuple[Measurement, ...]:
            (answer,) = ask(handle, [expecting(handle, inputs.requests[0].filled, "farmer", "here")])
            return (Measurement("own", 1, "rate", 1.0, n=1, answers=(answer or "",)),)

    handle = tiny.handle("gpt2")
    chosen: list[Any] = [measures.load("efficacy"), Own()]
    found = measure(chosen, handle, Inputs(REQUESTS), "case")
    (alone,) = ask(handle, [expecting(handle, REQUESTS[0].filled, "farmer", "here")])
    assert found["own"].answers == (alone,)


def test_a_sidecar_is_asked_with_whole_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    widths: list[int] = []

    def note(module: object, args: object, output: Tensor) -> None:
        widths.append(output.shape[1])

    hook = handle.model.transformer.wte.register_forward_hook(note)
    measure([measures.load("generalisation")], handle, Inputs(REQUESTS), "case")
    hook.remove()
    assert min(widths) > 1
