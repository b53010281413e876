"""A single edit: what is on record, whatever the editor did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from editsafety.datasets.request import EditRequest
from editsafety.edits.edit import Edit
from editsafety.errors import NotPreparedError, StoreError
from editsafety.lab import single
from editsafety.lab.attempt import Made, compute
from editsafety.lab.bench import Bench
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord
from tests.lab.walking import PRINTS, REQUESTS, Fails, Prints, Push, Scribbles, bench_of, editor

CASE = Case("tiny-gpt2", "push", "normal", REQUESTS[:1])
BAD = replace(CASE, requests=REQUESTS[2:3])  # the request with which `Fails` fails


@pytest.fixture
def bench() -> Bench:
    return bench_of("gpt2")


def run(bench: Bench, along: Push, case: Case, *probes: Prints) -> CaseRecord:
    def make(requests: tuple[EditRequest, ...]) -> Made:
        return compute(bench.handle, along, requests)

    return single.run(bench, along.name, case, make, probes)


def test_a_record_has_one_step_and_both_sides_of_every_figure(bench: Bench, tmp_path: Path) -> None:
    record = run(bench, editor(Push, bench, tmp_path), CASE)
    assert (record.case, record.model, record.editor, record.stream) == (CASE.id, "tiny-gpt2", "push", "normal")
    assert (len(record.steps), record.ended, record.failure) == (1, "complete", None)
    assert (record.step.edits, record.step.block, record.step.restored) == (1, ("case-0",), True)
    assert record.notes == {"count": 1.0}
    for name in ("me_ppl", "efficacy", "locality"):
        assert record.before[name].value is not None
        assert record.after[name].value is not None
    assert record.before["me_ppl"].items == ()  # per text they are kept once, with the run
    assert len(record.after["me_ppl"].items) == 2
    assert bench.handle.fingerprint() == bench.handle.identity
    assert CaseRecord.from_text(record.to_text()) == record


def test_abilities_are_measured_in_the_same_attempt_where_they_are_asked_for(bench: Bench, tmp_path: Path) -> None:
    push = editor(Push, bench, tmp_path)
    plain, probed = run(bench, push, CASE), run(bench, push, CASE, PRINTS)
    assert (plain.abilities, probed.abilities) == ((), ("prints",))
    assert "prints" not in {**plain.before, **plain.after}
    assert probed.before["prints"] == PRINTS(bench.handle, 8) != probed.after["prints"]
    assert {name: found for name, found in probed.after.items() if name != "prints"} == plain.after


@pytest.mark.parametrize(
    ("kind", "failure", "said", "undeclared"),
    [
        (Fails, "editor", "fails failed: RuntimeError: half way through", ()),
        (Scribbles, "undeclared", "wte.weight differs", ("transformer.wte.weight differs",)),
    ],
)
def test_what_an_editor_does_wrong_is_on_record_and_the_next_case_is_as_if_nothing_had_been(
    bench: Bench, tmp_path: Path, kind: type[Push], failure: str, said: str, undeclared: tuple[str, ...]
) -> None:
    along = editor(kind, bench, tmp_path)
    before = run(bench, along, CASE)
    record = run(bench, along, BAD)
    assert (record.ended, record.steps) == ("failed", ())
    assert record.failure is not None
    assert record.failure.kind == failure
    assert said in record.failure.message
    assert record.undeclared == undeclared
    assert record.requests == BAD.requests
    assert run(bench, along, CASE).after == before.after


def test_an_edit_of_another_model_is_an_error_of_its_case(bench: Bench, tmp_path: Path) -> None:
    class Stranger(Push):
        """Its edits are made for some other model."""

        def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
            return replace(super().edit(requests), made_for="0" * 64)

    record = run(bench, editor(Stranger, bench, tmp_path), CASE)
    assert record.failure is not None
    assert "was made for a model with fingerprint 000000000000" in record.failure.message


@pytest.mark.parametrize(
    "error",
    [NotPreparedError("push", "tiny-gpt2", "a covariance"), StoreError("an edit cannot be kept"), KeyboardInterrupt()],
)
def test_what_concerns_more_than_one_case_passes_through(bench: Bench, error: BaseException) -> None:
    def make(requests: tuple[EditRequest, ...]) -> Made:
        raise error

    with pytest.raises(type(error)):
        single.run(bench, "push", CASE, make)
