"""What concerns an editor on a model as a whole, beside its cases: their order, the model itself, its preparation."""

from __future__ import annotations

from editsafety.judging.checks import Check
from editsafety.judging.verdict import Verdict
from editsafety.runs.facts import RunFacts


def checks_of_block(model: str, editor: str, facts: RunFacts, *, complete: bool) -> list[Check]:
    """What concerns a block as a whole."""
    checks = []
    order = facts.orders.get((model, editor))
    if order is not None and order.compared:
        checks.append(Check("order", Verdict.PASS if order.holds else Verdict.ERROR, order.sentence))
    if (model, editor) in facts.drifted:
        checks.append(Check("restore", Verdict.ERROR, "the model's fingerprint had changed after the last case"))
    problem = facts.problems.get((model, editor))
    if problem and not complete:  # with every case there, it has been mended since
        checks.append(Check("prepared", Verdict.ERROR, problem))
    return checks
