"""Steps: what is measured of an edited model on the way along a course.

- perplexity
- `recent`, `kept`: of the requests since the last step, and of all that are in the model, the share whose target it
  says (exact match, as `efficacy`). What is forgotten shows in `kept`; a fact that is overwritten counts as lost.
- `generalisation`, `locality`, `locality_tokens` of the requests since the last step
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from editsafety.datasets.request import EditRequest
from editsafety.edits.session import EditSession, Mark
from editsafety.lab.asking import as_asked
from editsafety.lab.bench import Bench, measure
from editsafety.measures import Inputs, called
from editsafety.measures.answers import grade, with_gaps
from editsafety.measures.questions import ask, asked_together, expecting
from editsafety.runs.measurement import Measurement


def measure_step(
    bench: Bench, session: EditSession, unedited: Mark, inside: Sequence[EditRequest], fresh: int
) -> dict[str, Measurement]:
    """The figures of the model as it is now, by name. The last `fresh` requests `inside` it are new.

    `unedited` is the mark of the session at which nothing was applied: neighbours are asked there as well.
    """
    last = inside[-fresh:]
    found = [*perplexity(bench).values(), *_said(bench, inside, last), *_around(bench, session, unedited, last)]
    return {one.name: one for one in found}


def perplexity(bench: Bench) -> dict[str, Measurement]:
    """The measures of the model alone. Items of the perplexity that is judged only: the rest follow from the texts."""
    found = bench.measure("model", before=bench.base)
    return {name: one if name == "me_ppl" else replace(one, items=(), answers=()) for name, one in found.items()}


def _said(bench: Bench, inside: Sequence[EditRequest], last: Sequence[EditRequest]) -> tuple[Measurement, ...]:
    """`recent` and `kept`, from the answers to one question a request, and what the last ones' rephrasings come to."""
    handle, size, generalisation = bench.handle, bench.batch_size, bench.measure_called("generalisation")
    inside, last = as_asked(handle, inside), as_asked(handle, last)
    inputs = Inputs(last, batch_size=size)
    asked = [expecting(handle, one.filled, one.target_new, f"request {one.id!r}") for one in inside]
    with asked_together(handle, [generalisation], inputs, asked):
        answers = ask(handle, asked, batch_size=size)
        reached = called(generalisation, handle, inputs)
    told = zip(answers, inside, strict=True)
    marks = [grade(answer, one.target_new, handle.gap(one.filled)) for answer, one in told]
    recent = with_gaps("recent", "rate", marks[-len(last) :], "no requests", answers=answers[-len(last) :])
    kept = with_gaps("kept", "rate", marks, "no requests")
    return (recent, kept, *(replace(found, answers=()) for found in reached))


def _around(bench: Bench, session: EditSession, unedited: Mark, fresh: Sequence[EditRequest]) -> list[Measurement]:
    """Neighbours, compared with the unedited model's answers."""
    compared = (bench.measure_called("locality"), *bench.along)
    here = session.mark()
    session.back_to(unedited)
    untouched = measure(compared, bench.handle, bench.inputs(fresh), "case")
    session.back_to(here)
    spared = measure(compared, bench.handle, bench.inputs(fresh, before=untouched), "case")
    return [replace(found, answers=()) for found in spared.values()]
