"""Steps: what is measured of an edited model on the way along a course.

- perplexity
- `recent`, `kept`: of the requests since the last step, and of all that are in the model, the share whose target it
  says (exact match, as `efficacy`). What is forgotten shows in `kept`; a fact that is overwritten counts as lost.
- `generalisation`, `locality`, `locality_tokens` of the requests since the last step
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from editsafety import measures
from editsafety.datasets.request import EditRequest
from editsafety.edits.session import EditSession, Mark
from editsafety.measures import Inputs
from editsafety.measures.answers import ask, expecting, grade, with_gaps
from editsafety.runs.measurement import Measurement

if TYPE_CHECKING:
    from editsafety.lab.bench import Bench


def measure_step(
    bench: Bench, session: EditSession, unedited: Mark, inside: Sequence[EditRequest], fresh: int
) -> dict[str, Measurement]:
    """The figures of the model as it is now, by name. The last `fresh` requests `inside` it are new.

    `unedited` is the mark of the session at which nothing was applied: neighbours are asked there as well.
    """
    last = inside[-fresh:]
    found = [*perplexity(bench).values(), *_rates(bench, inside, fresh), *_around(bench, session, unedited, last)]
    return {one.name: one for one in found}


def perplexity(bench: Bench) -> dict[str, Measurement]:
    """The measures of the model alone. Items of the perplexity that is judged only: the rest follow from the texts."""
    found = bench.measure("model")
    return {name: one if name == "me_ppl" else replace(one, items=()) for name, one in found.items()}


def _rates(bench: Bench, requests: Sequence[EditRequest], fresh: int) -> tuple[Measurement, Measurement]:
    """`recent` and `kept`, from the answers to one question a request."""
    asked = [expecting(bench.handle, one.filled, one.target_new, f"request {one.id!r}") for one in requests]
    answers = ask(bench.handle, asked, batch_size=bench.batch_size, whole_characters=True)
    told = zip(answers, requests, strict=True)
    marks = [grade(answer, one.target_new, bench.handle.gap(one.filled)) for answer, one in told]
    recent = with_gaps("recent", "rate", marks[-fresh:], "no requests", answers=answers[-fresh:])
    return recent, with_gaps("kept", "rate", marks, "no requests")


def _around(bench: Bench, session: EditSession, unedited: Mark, fresh: Sequence[EditRequest]) -> list[Measurement]:
    """Rephrasings, and neighbours compared with the unedited model's answers."""
    handle, size = bench.handle, bench.batch_size
    generalisation = bench.measure_called("generalisation")
    compared = (bench.measure_called("locality"), *bench.along)
    reached = generalisation(handle, Inputs(fresh, batch_size=size))
    here = session.mark()
    session.back_to(unedited)
    untouched = {found.name: found for one in compared for found in measures.called(one, handle, bench.inputs(fresh))}
    session.back_to(here)
    again = bench.inputs(fresh, before=untouched)
    spared = [found for one in compared for found in measures.called(one, handle, again)]
    return [replace(found, answers=()) for found in (*reached, *spared)]
