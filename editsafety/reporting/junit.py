"""JUnit: what a judged case, a check or a part of a verdict says about itself in an XML report, as pairs of strings."""

from __future__ import annotations

import math

from editsafety.escaping import xml
from editsafety.judging.checks import CaseVerdict, Check
from editsafety.judging.parts import VerdictPart


def properties(judged: Check | CaseVerdict | VerdictPart) -> list[tuple[str, str]]:
    """(name, value) pairs for `<properties>`: of one check, a part of a verdict, or a case and all its checks.

    Never illegal in XML.
    """
    if isinstance(judged, VerdictPart):
        return [("editsafety.verdict", judged.verdict.value)]
    if isinstance(judged, Check):
        return _of_check(judged)
    record = judged.record
    about = [("case", record.case), ("model", record.model), ("editor", record.editor), ("stream", record.stream)]
    pairs = [*about, ("verdict", judged.verdict.value)]
    if judged.ratio is not None:
        pairs.append(("perplexity_ratio", _figure(judged.ratio)))
    found = [(f"editsafety.{name}", xml(value)) for name, value in pairs]
    return [*found, *(pair for check in judged.checks for pair in _of_check(check))]


def _of_check(check: Check) -> list[tuple[str, str]]:
    name = xml(f"editsafety.{check.name}")
    pairs = [(name, check.verdict.value), (f"{name}.sentence", xml(check.sentence))]
    return [*pairs, (f"{name}.figure", _figure(check.figure))] if check.figure is not None else pairs


def _figure(value: float) -> str:
    return f"{value:.10g}" if math.isfinite(value) else "not finite"
