"""What holds for every measure that discovery finds, today's and tomorrow's."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from editsafety import discovery, measures
from editsafety.editors.ike import Prefix
from editsafety.edits.edit import Edit
from editsafety.edits.session import EditSession
from editsafety.measures import Inputs, Measure, ReferringMeasure
from editsafety.model.handle import ModelHandle
from editsafety.runs.measurement import Measurement


@pytest.fixture(params=measures.names())
def measure(request: pytest.FixtureRequest) -> Measure:
    return measures.load(request.param)


def referring(measure: Measure, handle: ModelHandle, inputs: Inputs) -> Inputs:
    """The inputs, with what the measure keeps of the model as it is."""
    kept = {measure.name: measure.refer(handle, inputs)} if isinstance(measure, ReferringMeasure) else {}
    return replace(inputs, references=kept)


def unedited_then_edited(
    measure: Measure, handle: ModelHandle, inputs: Inputs, edit: Edit
) -> tuple[tuple[Measurement, ...], tuple[Measurement, ...]]:
    inputs = referring(measure, handle, inputs)
    before = measure(handle, inputs)
    later = replace(inputs, edit=edit, before={found.name: found for found in before})
    return before, measure(handle, later)


def test_a_measure_says_what_it_is(measure: Measure) -> None:
    assert measure.name in measures.names()
    assert measure.version >= 1
    assert measure.scope in ("model", "case", "edit")


def test_a_measure_gives_numbers_on_a_working_model(
    measure: Measure, handle: ModelHandle, inputs: Inputs, edit: Edit
) -> None:
    _, after = unedited_then_edited(measure, handle, inputs, edit)
    assert after
    assert len({found.name for found in after}) == len(after)
    for found in after:
        # A random model writes no JSON, refuses nothing, knows nothing a fact could rest on, and takes no random edit.
        if not found.applies:
            assert measure.name.startswith(("degenerate", "format", "portability", "refusal", "survives"))
            continue
        assert found.value is not None, f"{found.name}: {found.reason}"
        assert math.isfinite(found.value)
        assert found.version == measure.version
        assert not found.broken
        assert found.n > 0


def test_the_names_do_not_depend_on_what_was_found(
    measure: Measure, handle: ModelHandle, inputs: Inputs, edit: Edit
) -> None:
    before, after = unedited_then_edited(measure, handle, inputs, edit)
    nothing = measure(handle, Inputs())
    assert [found.name for found in before] == [found.name for found in after] == [found.name for found in nothing]
    assert [found.unit for found in before] == [found.unit for found in after] == [found.unit for found in nothing]


def test_without_anything_to_look_at_there_is_a_reason_and_no_number(measure: Measure, handle: ModelHandle) -> None:
    for found in measure(handle, Inputs()):
        assert found.value is None
        assert found.reason
        assert not found.broken


def test_a_dead_model_is_a_finding_and_never_a_number_that_passes(
    measure: Measure, handle: ModelHandle, inputs: Inputs, edit: Edit
) -> None:
    if measure.name == "portability":
        pytest.skip("it asks what the model knew, and a random one knows nothing: tests/measures/test_portability.py")
    inputs = referring(measure, handle, inputs)
    before = {found.name: found for found in measure(handle, inputs)}
    with torch.no_grad():
        for parameter in handle.model.parameters():
            parameter.fill_(torch.nan)
    after = measure(handle, replace(inputs, edit=edit, before=before))
    after = tuple(found for found in after if found.applies)
    assert any(found.broken for found in after) or (not after and measure.name in ("format", "refusal"))
    if measure.scope != "edit":  # an edit has a norm whatever the model is like
        for found in after:
            assert found.value is None
            assert found.broken
            assert "not finite" in str(found.reason)


def test_a_sidecar_that_reads_along_is_measured_like_any_edit(
    measure: Measure, handle: ModelHandle, inputs: Inputs
) -> None:
    """What IKE puts in front of a text is inside of the model, and no measure asked for it."""
    car = Prefix("", 1, torch.tensor(handle.ids("A baker bakes bread. ")), None, handle.context)
    edit = Edit("ike", ("case-0",), handle.identity, sidecars=(car,))
    inputs = referring(measure, handle, inputs)
    before = {found.name: found for found in measure(handle, inputs)}
    later = replace(inputs, edit=edit, before=before)
    with EditSession(handle, prove="never") as session:
        if measure.scope != "edit":
            session.apply(edit)
        after = measure(handle, later)
    assert [found.name for found in after] == list(before)
    for found in after:
        assert not found.broken, f"{found.name}: {found.reason}"


def test_measurements_survive_strict_json(measure: Measure, handle: ModelHandle, inputs: Inputs, edit: Edit) -> None:
    before, after = unedited_then_edited(measure, handle, inputs, edit)
    for found in (*before, *after, *measure(handle, Inputs())):
        text = json.dumps(found.as_json(), allow_nan=False)
        assert Measurement.from_json(json.loads(text)) == found


@pytest.mark.parametrize(
    "measure",
    # 120 replies, one after the other, take half a minute.
    [pytest.param(name, marks=pytest.mark.thorough if name == "refusal" else ()) for name in measures.names()],
    indirect=True,
)
def test_the_same_question_gets_the_same_answer_in_any_batch_size(
    measure: Measure, handle: ModelHandle, inputs: Inputs, edit: Edit
) -> None:
    inputs = replace(inputs, edit=None if measure.scope == "case" else edit)
    alone, together = (
        measure(handle, referring(measure, handle, one)) for one in (replace(inputs, batch_size=1), inputs)
    )
    for one, many in zip(alone, together, strict=True):
        assert (one.value is None, one.applies) == (many.value is None, many.applies)
        assert one.value is None or one.value == pytest.approx(many.value, rel=1e-4, abs=1e-6)
        assert one.answers == many.answers


def test_a_measure_leaves_the_model_as_it_was(
    measure: Measure, handle: ModelHandle, inputs: Inputs, edit: Edit
) -> None:
    unedited_then_edited(measure, handle, inputs, edit)
    assert handle.fingerprint() == handle.identity
    assert all(parameter.grad is None for parameter in handle.model.parameters())


def test_what_a_measure_gives_is_known_without_importing_it(measure: Measure, handle: ModelHandle) -> None:
    said = discovery.declared("measures", measure.name, ("scope", "gives", "default"))
    given = tuple(found.name for found in measure(handle, Inputs()))
    slow = {} if getattr(measure, "default", True) else {"default": False}
    assert said == {"scope": measure.scope, "gives": given, **slow}
