"""A report that has every part a page can show: hard and normal cases, courses, abilities, warnings, a baseline."""

from dataclasses import replace

from editsafety.judging.baselines.comparison import Comparison, Difference, Shift
from editsafety.judging.report import RunReport
from editsafety.runs.case import Case
from editsafety.runs.case_record import Breaking
from editsafety.runs.facts import EditorFacts, RunFacts, Software
from tests import builders
from tests.builders import measured, probe, record, step

UNEDITED = (probe("reasoning", 90), probe("nli", 96))
CONTROLS = {"rome": "COLLAPSE", "noop": "NO-OP"}
PLUGIN = {"plug-in measures: sureness": "their-package 2.0"}


def probed(one, reasoning, nli):
    """A single edit whose abilities were measured as well."""
    after = {**one.after, "reasoning": probe("reasoning", reasoning), "nli": probe("nli", nli)}
    before = {**one.before, **{found.name: found for found in UNEDITED}}
    return replace(builders.stepped(one, found=after), before=before, abilities=("reasoning", "nli"))


def fallen(number):
    """A hard case that collapses, with what the editor noted and what the model said."""
    notes = {"denominator": 0.002 + number / 1e4, "first_token": True, "numerator": 40.0}
    one = record("rome", "hard", number, ratio=500.0 - number, notes=notes, takes=0.0, local=0.2, answer="the the the")
    wild = measured("efficacy_wild", 0.0, answers=["the the the the farmer the the"])
    near = measured("locality", 0.0, answers=["the baker the the"])
    after = {**one.after, "efficacy_wild": wild, "locality": near}
    before = {**one.before, "locality": measured("locality", 1.0, answers=["baker"])}
    return replace(builders.stepped(one, found=after), before=before)


def courses():
    """One that breaks at its 17th edit, and one that stands."""
    breaking = Breaking(17, (builders.request("hard", 16),), 512.0, 1.03, 498.0, "e" * 64, "edits/e.safetensors")
    broken = builders.course(
        step(10, ratio=1.02, reasoning=88, nli=95), step(20, ratio=600.0, kept=0.1, reasoning=2, nli=51),
        abilities=UNEDITED, ended="collapsed", breaking=breaking,
    )  # fmt: skip
    stands = builders.course(
        step(10, reasoning=90, nli=96), step(20, reasoning=90, nli=96), step(30, reasoning=89, nli=96),
        abilities=UNEDITED, editor="ft",
    )  # fmt: skip
    return [broken, stands]


def report(**more):
    """ROME collapses on six of six hard cases and breaks at edit 17 of a course; FT does not take behind a prefix."""
    records = [fallen(i) for i in range(6)]
    records += [record("rome", "normal", i, ratio=1 + i / 100, notes={"denominator": 2.0 + i}) for i in range(8)]
    records += [record("ft", "hard", i, prefixed=0.0, norm=0.9) for i in range(6)]
    records += [record("ft", "normal", i, norm=0.9) for i in range(8)]
    records[0], records[6] = probed(records[0], 0, 52), probed(records[6], 90, 95)
    walked = courses()
    controls = [fallen(0), record("noop", "hard", 0, changed=())]
    every = [*controls, *records, *walked]  # a control's record is that of the case, where both are run
    cases = [Case(one.model, one.editor, one.stream, one.requests, one.schedule) for one in (*records, *walked)]
    wanted = [builders.case_of(name, "hard", 0, control=expected) for name, expected in CONTROLS.items()]
    facts = [*builders.FACTS.models.values(), *builders.FACTS.editors.values()]
    facts += [EditorFacts("pocket-neo", "ft", {"layers": [1]}, "d" * 64), Software({"torch": "2.13.0", **PLUGIN})]
    known = replace(RunFacts.of(facts), columns=builders.FACTS.columns)
    plan = builders.plan(cases, wanted)
    made = RunReport.of(plan, builders._policy("default"), {one.case: one for one in every}, known, planned=cases)
    return replace(made, **more)


def compared():
    """The same, worse than a baseline in one way."""
    said = "2 cases PASS before, COLLAPSE now: pocket-neo-rome-hardcf-0000 and 1 more"
    worse = Difference(
        Shift.REGRESSED, "blocking", "pocket-neo", "rome", said, "verdict", ("pocket-neo-rome-hardcf-0000",)
    )
    return report(against=Comparison("accepted.json", (worse,), compared=20))
