"""JUnit: what a judged case, a check or a part of a verdict says about itself in an XML report, as pairs of strings."""

from __future__ import annotations

import math
from typing import Any

from editsafety.escaping import xml
from editsafety.judging.checks import CaseVerdict, Check
from editsafety.judging.parts import RUN, VerdictPart
from editsafety.judging.report import RunReport
from editsafety.names import tag


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


def of_part(report: RunReport, part: VerdictPart) -> list[tuple[str, str]]:
    """The same of a part of a report's verdict, with what it was found with: editor, model, weights, policy, versions.

    The part that concerns the run itself has the exit code in place of an editor.
    """
    pairs: list[tuple[str, Any]] = []
    for model, editor, _ in report.standing:
        if part.name == f"{model}-{tag(editor)}":
            loaded, made = report.facts.models.get(model), report.facts.editors.get((model, editor))
            pairs += [("editor", editor), ("editor.code", made and made.code), ("model", model)]
            pairs += [("model.fingerprint", loaded and loaded.fingerprint), ("model.dtype", loaded and loaded.dtype)]
    if part.name == RUN:
        pairs += [("exit_code", report.exit_code)]
        pairs += [(f"model.fingerprint.{name}", model.fingerprint) for name, model in report.facts.models.items()]
    pairs += [("policy", report.policy.name), ("policy.digest", report.policy.digest())]
    pairs += [(f"version.{name}", version) for name, version in report.facts.software.items()]
    known = [(xml(f"editsafety.{name}"), xml(value)) for name, value in pairs if value is not None]
    return [*properties(part), *known]


def _of_check(check: Check) -> list[tuple[str, str]]:
    name = xml(f"editsafety.{check.name}")
    pairs = [(name, check.verdict.value), (f"{name}.sentence", xml(check.sentence))]
    return [*pairs, (f"{name}.figure", _figure(check.figure))] if check.figure is not None else pairs


def _figure(value: float) -> str:
    return f"{value:.10g}" if math.isfinite(value) else "not finite"
