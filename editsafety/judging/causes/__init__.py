"""Causes: why an edit collapsed a model, as far as the evidence of its record says. No torch here.

A rule compares what is known about the edit (its notes, its weight figures) with the same figures of the edits of its
group that stay, or, where none stays, with a mark that needs no comparison. Causes come strongest first; strength is
the decimal logarithm of how far a figure is from the usual one. Weights that are not finite count as 1.5: a certain
fact, but one that a denominator 100 times too small explains. Where no rule applies, that is said, with the figures.
"""

from __future__ import annotations

from collections.abc import Iterable

from editsafety.judging.causes._courses import of_course
from editsafety.judging.causes._evidence import Beside, Cause, Evidence
from editsafety.judging.causes._rules import ranked
from editsafety.runs.case_record import CaseRecord

__all__ = ["Beside", "Cause", "of_case", "of_course", "those_that_stay"]

# The measurements that any rule looks at.
READ = frozenset(
    {
        *("denominator", "numerator", "update_norm", "key_agreement", "value_norm", "neurons", "layers", "epsilon"),
        *("delta_norm", "delta_relative", "delta_large_share", "norm_growth", "weights_finite", "locality"),
        *("me_ppl", "nll_per_token", "loss_at_stop", "nll_before", "steps"),
    }
)


def those_that_stay(records: Iterable[CaseRecord]) -> Beside:
    """Cases of one editor and model that did not collapse, to compare others with."""
    return Beside((one.notes, one.after) for one in records)


def of_case(record: CaseRecord, stays: Iterable[CaseRecord] | Beside) -> tuple[Cause, ...]:
    """Likely causes of the collapse of a single edit, the strongest first; never empty.

    `stays` are the other cases of the same editor and model that did not collapse.
    """
    if not isinstance(stays, Beside):
        stays = those_that_stay(one for one in stays if one.case != record.case)
    changed = bool(record.step.changed) or not record.notes.get("sidecars")
    return ranked(Evidence(record.notes, record.after, stays, changed))
