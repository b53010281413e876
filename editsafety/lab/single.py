"""A single edit: the case of one request, made, measured and undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from editsafety.datasets.request import EditRequest
from editsafety.errors import NotPreparedError, StoreError
from editsafety.lab.attempt import Made, Questions, attempt, failure_of
from editsafety.lab.bench import Bench
from editsafety.measures import AbilityProbe
from editsafety.runs.case import Case
from editsafety.runs.case_record import CaseRecord

Make = Callable[[tuple[EditRequest, ...]], Made]  # an edit of the unedited model


def run(bench: Bench, editor: str, case: Case, make: Make, probes: Sequence[AbilityProbe] = ()) -> CaseRecord:
    """The record of a single edit, whatever the editor did. The model is afterwards what it was.

    NotPreparedError, StoreError (results cannot be kept: no editor's doing) and Ctrl-C pass through.
    """
    names = tuple(probe.name for probe in probes)
    record = CaseRecord.begun(case, bench.handle.name, editor, abilities=names)
    try:
        # Per-text figures of the unedited model are kept once, with the run, not with every case.
        before = {name: replace(found, items=()) for name, found in bench.base.items()}
        before |= bench.unedited(case.requests)
        question = Questions(case.requests, before)
        step, _ = attempt(bench, make(case.requests), [question], probes=probes)
        before |= {probe.name: bench.probed(probe) for probe in probes}
        return replace(record, before=before, steps=(step,), ended="complete")
    except (NotPreparedError, StoreError):
        raise
    except Exception as error:  # the boundary: an editor is somebody else's code, anything may come
        return replace(record, failure=failure_of(bench, editor, error), ended="failed")
