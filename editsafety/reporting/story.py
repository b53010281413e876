"""Story: the sentences around the table, the same in every format: what was run, what came out, how to see it again."""

from __future__ import annotations

import shlex
from functools import lru_cache

from editsafety import __version__
from editsafety.judging.causes import of_course
from editsafety.judging.checks import ABILITIES, CaseVerdict
from editsafety.judging.group import Group
from editsafety.judging.report import RunReport
from editsafety.judging.verdict import Verdict
from editsafety.names import label, slug, tag
from editsafety.numbers import counting, times
from editsafety.reporting import against
from editsafety.runs.case_record import CaseRecord
from editsafety.runs.plan import models_to_ask
from editsafety.runs.settings import Settings

_INTEGRITY = ("restore", "undeclared", "leftovers")
_ALIGNMENT = ("refusal", "benign_answered", "refusal_logodds")
_ROOMS = {
    ABILITIES: "abilities",
    "changes_something": "efficacy",
    "triggers": "backdoor",
    **dict.fromkeys(_INTEGRITY, "integrity"),
    **dict.fromkeys(_ALIGNMENT, "alignment"),
}
NO_CONTROL = "no control was run, so this run did not prove that it can detect a collapse"
ONLY_COSTS = "nothing was asked but what edits cost"
_MOST = 8  # editors named in the verdict line
_LONGEST = 120  # characters of a prompt or an answer in the line on the worst case
_ADVICE_ON_RECEIVED = {  # whoever checks a model cannot turn its editor's screws
    Verdict.INEFFECTIVE: "ask whoever edited it: facts that were asked for are not in this model",
    Verdict.NO_OP: "look whether the right model was given: nothing in it differs from the unedited one",
    Verdict.DAMAGED: "do not ship this model: what fails was in order before it was edited",
}


def headline(report: RunReport, seconds: float | None = None) -> tuple[str, ...]:
    """Program, models, policy, how much: the parts of the first line."""
    models = [about_model(report, name) for name in dict.fromkeys(map(slug, report.plan.settings.models))]
    time = "" if seconds is None else f", {seconds:.0f} s" if seconds < 600 else f", {seconds / 60:.0f} min"
    done = "what edits cost" if report.only_costs else amount(report)
    return (f"editsafety {__version__}", *models, f"policy {report.policy.name}", f"{done}{time}")


def amount(report: RunReport) -> str:
    """How much was judged: `144 cases`, `12 of 20 cases and 2 courses`."""
    cases = counting(report.judged) if report.judged == report.planned else f"{report.judged} of {report.planned} cases"
    number = len(report.courses)
    walked = f"{number} course{'' if number == 1 else 's'}" if number else ""
    return " and ".join(part for part in (cases if report.planned or not number else "", walked) if part)


def about_model(report: RunReport, name: str) -> str:
    """`pocket-neo (2.9 M parameters, float32, cpu)`, as far as it is known."""
    facts = report.facts.models.get(name)
    if facts is None:
        return f"{name} (never loaded)"
    code = "code from its repository was run" if facts.trust_remote_code else ""
    chat = "asked through its chat template" if facts.chat else ""
    known = (_size(facts.parameters), facts.dtype, facts.device, code, chat)
    return f"{name} ({', '.join(part for part in known if part)})"


def set_aside(report: RunReport) -> list[str]:
    """What users' hyperparameter files say that is not read here: once per editor, each with the reason."""
    editors = report.facts.editors.values()
    return list(dict.fromkeys(f"{facts.editor}: {line}" for facts in editors for line in facts.set_aside))


def footnotes(report: RunReport) -> list[str]:
    """What a verdict has to be read with: whose hyperparameters were judged where a model has none of its own."""
    editors: dict[tuple[str, str], list[str]] = {}
    for model, editor, _ in report.standing:
        facts = report.facts.editors.get((model, editor))
        if facts is not None and facts.carried_from is not None:
            editors.setdefault((model, facts.carried_from.sentence), []).append(editor)
    return [
        f"numbers of {', '.join(names)} on {model}: {said}; nobody has measured whether they suit it"
        for (model, said), names in editors.items()
    ]


def unread(report: RunReport, most: int | None = None) -> list[str]:
    """What of the data is in no request: fields that were set aside, rows that were left out.

    Of every source `most` lines, all without it.
    """
    lines: list[str] = []
    for source, sentences in report.plan.unread.items():
        lines += [f"data {source}: {sentence}" for sentence in sentences[:most]]
        more = len(sentences) - len(sentences[:most])
        lines += [f"data {source}: {more} more lines in the report"] if more else []
    return lines


def skipped(report: RunReport) -> list[str]:
    """Courses that were not run because the editor's traits do not allow them."""
    return [f"{case}: not run: {reason}" for case, reason in report.facts.not_applicable.items()]


def verdict_line(report: RunReport) -> str:
    """The verdict, who got which, and the exit code: `COLLAPSE · rome COLLAPSE, ft PASS · exit code 10`."""
    verdict = report.verdict
    if verdict is None:
        why = f"{ONLY_COSTS}, which a baseline judges" if report.only_costs else "no planned case has a result"
        return f"NOTHING JUDGED · {why}, and that is no pass · exit code {report.exit_code}"
    said = []
    if failed := [control for control in report.controls if not control.behaved]:
        unlike = any(control.ran for control in failed)
        said.append("a control did not come out as expected" if unlike else "a control was not run")
    if report.interrupted:
        said.append("the run was interrupted")
    if report.facts.unexplained:
        said.append("a test failed by no check")
    alone = uncontrolled(report)
    standing = report.standing
    if not standing and not said:
        said.append(ONLY_COSTS if report.only_costs else "every control came out as expected")
    if len(standing) == 1 and not said:
        said = [f"{standing[0][1]}: {verdict.meaning}"]
    elif standing:
        several = len({model for model, _, _ in standing}) > 1
        names = [f"{editor}{f' on {model}' if several else ''} {found.value}" for model, editor, found in standing]
        said.append(", ".join([*names[:_MOST], *([f"{len(names) - _MOST} more"] if len(names) > _MOST else [])]))
    said += [against.standing(report.against)] if report.against is not None else []
    said += [alone] if alone else []
    said += ["numbers carried over"] if footnotes(report) else []
    return " · ".join([verdict.value, *said, f"exit code {report.exit_code}"])


def summary(report: RunReport) -> str:
    """The verdict in one sentence for whoever has to decide, with the likely cause where one is known."""
    verdict = report.verdict
    if verdict is None:
        return "Nothing was judged, and that is no pass."
    if verdict is Verdict.PASS:
        judged = [f"{counting(report.judged)}"] if report.judged else []
        judged += [f"{len(report.courses)} course{'' if len(report.courses) == 1 else 's'}"] if report.courses else []
        who = ", ".join(dict.fromkeys(editor for _, editor, _ in report.standing))
        if judged:
            return f"{who}: every check passes in {' and '.join(judged)}."
        return "What edits cost is within its limits." if report.only_costs else "Every control is as expected."
    broken = _broken(report) if verdict is Verdict.COLLAPSE else ""
    if broken:
        return broken
    names = {f"{model}-{tag(editor)}": f"{editor} on {model}: " for model, editor, _ in report.standing}
    told = [part for part in report.parts if part.verdict is verdict]
    part = next((one for name in names for one in told if one.name == name), told[0])
    why = part.sentences[0].replace(f"{verdict.value}: ", "", 1) if part.sentences else verdict.meaning
    also = (_broken(report), against.changed(report.against)) if verdict is Verdict.REGRESSED else ()
    return " ".join([f"{verdict.meaning.capitalize()}: {names.get(part.name, '')}{why}.", *filter(None, also)])


def _broken(report: RunReport) -> str:
    """Which editor breaks which model, how often, how badly, and likely why; empty where no case says so."""
    worst = report.worst
    if worst is not None and worst.verdict is Verdict.COLLAPSE:
        group = next(group for group in report.groups if worst in group.cases)
        fallen = [case for case in group.cases if case.verdict is Verdict.COLLAPSE]
        streams = list(dict.fromkeys(case.record.stream for case in fallen))
        of = counting(len([c for c in group.cases if c.record.stream in streams]), f"{' and '.join(streams)} ")
        past = max((case.ratio for case in fallen if case.ratio is not None), default=None)
        how = f" (perplexity up to {times(past)})" if past is not None else ""
        cause = report.cause(worst)
        return f"{group.editor} breaks {group.model} in {len(fallen)} of {of}{how}{f': {cause}' if cause else ''}."
    walked = [course for course in report.courses if course.verdict is Verdict.COLLAPSE]
    if not walked:
        return ""
    course = max(walked, key=lambda one: (one.breaks_at is not None, one.record.worst or 0.0))
    record = course.record
    where = f"{record.stream} {record.schedule.kind} edits"
    at = "" if course.breaks_at is None else f", after {record.schedule.said(course.breaks_at)} of {record.planned}"
    causes = of_course(record, limit=course.limit)
    likely = f": {causes[0].text}" if causes else ""
    return f"{record.editor} breaks {record.model} by {where}{at} (perplexity up to {times(record.worst)}){likely}."


def controlled(report: RunReport) -> tuple[bool, str]:
    """Whether the controls are a good sign, and what they say together: whether this run can tell a collapse at all.

    Empty where there are none by design.
    """
    if report.unplanned:
        return True, ""
    if not report.controls:
        return False, f"{NO_CONTROL[:1].upper()}{NO_CONTROL[1:]}."
    behaved, shows = (sum(getattr(one, name) for one in report.controls) for name in ("behaved", "shows"))
    count = len(report.controls)
    if behaved < count:
        return False, f"Controls: {behaved} of {count} came out as they must: no other verdict can be trusted."
    if shows < count:
        return True, f"Controls: {shows} of {count} came out as on models where that is known; see what was run."
    return (
        True,
        f"Controls: {count} of {count} came out as they must, so this run can tell a collapse from a sound edit.",
    )


def uncontrolled(report: RunReport) -> str:
    """That no control stands behind the verdict, and on which models where some have one; empty where all have."""
    if not report.uncontrolled:
        return ""
    where = f" on {', '.join(report.uncontrolled)}" if report.controls else ""
    required = ", and controls are required" if report.plan.settings.require_controls else ""
    return f"no control was run{where}{required}"


def advice(report: RunReport) -> str:
    """What to do next; empty when all is well."""
    if report.verdict is None and report.only_costs:
        return (
            "accept this with `editsafety baseline accept --costs`, or hold it against what was: --editsafety-baseline"
        )
    if report.verdict is None:
        return "check --model, --editor and -k: nothing that was selected has a result"
    if report.verdict is Verdict.INCOMPLETE and any(group.is_unasked for group in report.groups):
        return "give a policy that has limits on what was asked, such as ship (--policy ship, --editsafety-policy ship)"
    said = report.verdict.advice
    return _ADVICE_ON_RECEIVED.get(report.verdict, said) if "received" in report.more else said


def worst_line(report: RunReport, case: CaseVerdict) -> str:
    """The worst case: its id, what was written, the perplexity ratio, and how many cases pass beside it."""
    group = next(group for group in report.groups if case in group.cases)
    failing = sum(other.verdict.fails for other in group.cases)
    written = [(_ends(request.filled), _ends(request.target_new)) for request in case.record.requests[:1]]
    asked = "".join(f'"{prompt}" -> {target}  ' for prompt, target in written)
    ratio = f"perplexity {times(case.ratio)}" if case.ratio is not None else case.verdict.value
    of = counting(len(group.cases), f"{group.editor} ")
    # Where the group fails by something else, "0 of 84 fail" would read as praise.
    fail = "fails by itself" if failing == 1 else "fail by themselves"
    count = f"  ({failing} of {of} {fail})" if failing or not group.verdict.fails else ""
    return f"{case.record.case}  {asked}{ratio}{count}"


def _ends(text: str) -> str:
    """A long text by its beginning and its end, where a prompt asks: what stands behind it has to be read, too."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


def replay(report: RunReport, suites: str) -> str | None:
    """The pytest command that judges the worst case (or group) again; None when there is none that does not pass.

    `suites` is where the suites are: `suites` in a checkout, `--pyargs editsafety.suites` when installed.
    """
    if report.command:
        return report.command
    worst, groups = report.worst, report.worst_groups
    walked = next((course for course in report.courses if course.verdict is report.verdict), None)
    if worst is not None and worst.verdict is not Verdict.PASS and worst.verdict is report.verdict:
        return replay_case(report, worst, suites) or None
    if walked is not None and walked.verdict is not Verdict.PASS:
        return replay_case(report, walked, suites) or None
    if (lost := _regressed(report)) is not None:
        return _replay_lost(report, lost, suites) or None
    findings = [(group, finding) for group in groups for finding in group.findings]
    chosen = [(g, f) for g, f in findings if f.verdict is report.verdict and f.stream in g.planned]
    if not chosen:
        return None
    group, finding = chosen[0]
    selected = f"{group.model}-{tag(group.editor)}-{finding.stream}"
    return _pytest(report, suites, "efficacy", selected, group)


def looked_at_first(report: RunReport) -> CaseVerdict | None:
    """The case that is shown for all: the first that is worse than the baseline where that is the verdict, else the
    worst of the run.
    """
    lost = _regressed(report) if report.verdict is Verdict.REGRESSED else None
    return lost if lost is not None and not lost.record.is_course else report.worst


def lost_cases(report: RunReport) -> list[str]:
    """The ids of the cases that are worse than the baseline, as its findings name them."""
    regressed = report.against.regressed if report.against is not None else ()
    return list(dict.fromkeys(name for one in regressed for name in one.cases))


def _regressed(report: RunReport) -> CaseVerdict | None:
    """The first case that is worse than the baseline; None where there is none."""
    cases = {case.record.case: case for case in (*(c for g in report.groups for c in g.cases), *report.courses)}
    return next((cases[name] for name in lost_cases(report) if name in cases), None)


def _replay_lost(report: RunReport, lost: CaseVerdict, suites: str) -> str:
    """What is worse than the baseline again: the stream, where a case passes by itself and its rate got worse."""
    figures = (
        {one.figure for one in report.against.regressed if lost.record.case in one.cases} if report.against else ()
    )
    rates = {limit.measure for limit in report.policy.group.values()}
    group = next((one for one in report.groups if lost in one.cases), None)
    if group is None or lost.verdict is not Verdict.PASS or not rates.intersection(figures):
        return replay_case(report, lost, suites)
    return _pytest(report, suites, "efficacy", f"{group.model}-{tag(group.editor)}-{lost.record.stream}", group)


def replay_case(report: RunReport, case: CaseVerdict, suites: str) -> str:
    """The pytest command that judges one case again, by the suite whose check tells the most of it.

    Where no suite has the case, the command that its run gives for it; empty where there is none, as for a guard's.
    """
    if report.command or report.commands:
        own = any(report.commands.values())
        return report.commands.get(case.record.case, "") if own else report.command
    record = case.record
    telling = [check.name for check in case.checks if check.verdict is case.verdict]
    selected = record.case
    if not record.is_course:
        room = "collapse" if case.verdict is Verdict.PASS else _ROOMS.get(telling[0], "collapse")
    else:
        room = "abilities" if set(telling) == {ABILITIES} else record.schedule.suite
        if record.schedule.kind == "batch":  # whose id the one of batches on top of each other begins with
            selected += f" and not {selected}-sequential"
    return _pytest(report, suites, room, selected, record)


def _pytest(report: RunReport, suites: str, room: str, selected: str, of: Group | CaseRecord) -> str:
    where = f"{suites}{'.' if '--pyargs' in suites else '/'}{room}"
    settings = report.plan.settings
    model = next(name for name in settings.models if slug(name) == slug(of.model))
    editor = next(name for name in settings.editors if label(name) == of.editor)
    chosen = ["-k", selected, "--editsafety-model", model, "--editsafety-editor", editor]
    asked = _words_on_facts(settings, of)
    return f"pytest {where} {shlex.join([*chosen, *asked, *_replay_words(settings)])}"


def _words_on_facts(settings: Settings, of: Group | CaseRecord) -> list[str]:
    """A single edit is found by its id among all requests; the requests of a course are those that were known then."""
    if isinstance(of, Group) or of.schedule.kind == "single":
        return ["--editsafety-all-facts"] if settings.all_facts or models_to_ask(settings) else []
    return [f"--editsafety-{word}" for word in ("known", "all-facts") if getattr(settings, word.replace("-", "_"))]


@lru_cache(maxsize=4)
def _replay_words(settings: Settings) -> tuple[str, ...]:
    """Worked out once for a run, and not for each of its cases."""
    return tuple(settings.replay_words())


def _size(parameters: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.1f} {name} parameters"
    return f"{parameters} parameters"
