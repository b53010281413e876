"""The fixtures of the plugin: cases and groups to be judged, what was found about them, the live edited model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from editsafety.escaping import line
from editsafety.plugin.sentences import LONGEST, Said
from editsafety.plugin.stash import lacks_probes, safety_of
from editsafety.reporting import junit

if TYPE_CHECKING:
    from editsafety.editors import Editor
    from editsafety.edits.session import EditSession
    from editsafety.judging.checks import Check
    from editsafety.model.handle import ModelHandle
    from editsafety.plugin.repeated import RepeatedEdit
    from editsafety.plugin.selection import GroupKey
    from editsafety.runs.case import Case
    from editsafety.runs.case_record import CaseRecord
    from editsafety.runs.plan import RunPlan

Judge = Callable[[str], None]


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """One planned case: a single edit, or what the mark `schedule` names.

    Parametrised; ids like `pocket-neo-rome-hardcf-0017`, `pocket-neo-rome-hard-sequential`. Skipped where the editor's
    traits do not allow the schedule, and under the mark `probed` where the model comes with no abilities to measure.
    """
    case: Case = _multiplied_by(request)
    if lacks_probes(request.node, safety_of(request.config)):
        pytest.skip(f"{case.model} comes with no abilities to measure; name some: --editsafety-probe READER:FILE")
    with Said():
        refused = safety_of(request.config).refuses(case)
    if refused:
        pytest.skip(refused)
    return case


@pytest.fixture
def group(request: pytest.FixtureRequest) -> GroupKey:
    """One editor on one model and stream. Parametrised; ids like `pocket-neo-rome-hard`."""
    found: GroupKey = _multiplied_by(request)
    return found


@pytest.fixture
def block(request: pytest.FixtureRequest) -> GroupKey:
    """One editor on one model. Parametrised; ids like `pocket-neo-rome`."""
    found: GroupKey = _multiplied_by(request)
    return found


@pytest.fixture
def control(request: pytest.FixtureRequest) -> GroupKey:
    """One control editor on one model with hard cases."""
    found: GroupKey = _multiplied_by(request)
    return found


@pytest.fixture
def result(case: Case, request: pytest.FixtureRequest) -> CaseRecord:
    """The stored record of the case; computed or gone on with, with its block, where it is missing or unfinished."""
    with Said():
        return safety_of(request.config).record(case)


@pytest.fixture
def judged(case: Case, result: CaseRecord, request: pytest.FixtureRequest) -> Judge:
    """`judged("perplexity")` fails with the verdict's sentence when the case does not pass that check."""

    def judge(name: str) -> None:
        check = safety_of(request.config).check(result, name)
        if check is None:
            pytest.skip(f"{case.id}: {name}: the policy has no such limit, or nothing was measured that it is on")
        _settle(request, check, f"{case.id}: ")

    return judge


@pytest.fixture
def judged_group(group: GroupKey, request: pytest.FixtureRequest) -> Judge:
    """`judged_group("efficacy")` fails when the rate over all cases of the group does not pass."""

    def judge(name: str) -> None:
        with Said():
            check = safety_of(request.config).group_check(group, name)
        if isinstance(check, str):
            pytest.skip(line(f"{group.id}: {name} is not judged: {check}", LONGEST))
        _settle(request, check, f"{group.id}: ")

    return judge


@pytest.fixture
def same_in_any_order(block: GroupKey, request: pytest.FixtureRequest) -> None:
    """Fails when the first and last case come out differently alone, in reverse order, by a new editor."""
    with Said():
        order = safety_of(request.config).same_in_any_order(block)
    if not order.holds:
        pytest.fail(f"ERROR {order.editor} on {order.model}: {order.sentence}", pytrace=False)


@pytest.fixture
def judged_control(control: GroupKey, request: pytest.FixtureRequest) -> Callable[[], None]:
    """`judged_control()` fails when a control editor did not come out as it must."""

    def judge() -> None:
        with Said():
            found = safety_of(request.config).control(control)
        if not found.behaved:
            pytest.fail(f"ERROR {found.sentence}", pytrace=False)
        if not found.found:
            pytest.skip(found.sentence)

    return judge


@pytest.fixture(scope="session")
def safety_plan(request: pytest.FixtureRequest) -> RunPlan:
    """Every case of this run, and the texts of each model."""
    return safety_of(request.config).plan


@pytest.fixture(scope="session")
def handle(request: pytest.FixtureRequest) -> ModelHandle:
    """The (first) model of this run, loaded."""
    with Said():
        return safety_of(request.config).handle()


@pytest.fixture
def editor(request: pytest.FixtureRequest) -> Editor:
    """The editor of the item's case or block, or the first of the run; made for its model."""
    params = getattr(request.node, "callspec", None)
    chosen = (
        next((params.params[n] for n in ("case", "group", "block") if n in params.params), None) if params else None
    )
    with Said():
        return safety_of(request.config).editor(chosen)


@pytest.fixture
def repeated(block: GroupKey, editor: Editor, safety_plan: RunPlan, request: pytest.FixtureRequest) -> RepeatedEdit:
    """One request of the block, edited again and again: `repeated.time("latency", work)`, `repeated.weigh(work)`."""
    from editsafety.plugin.repeated import RepeatedEdit

    cases = [case for case in safety_plan.cases if case.block == (block.model, block.editor)]
    # An ordinary one where there is one: the cost of an edit does not depend on whether it collapses.
    asked = next((case for case in cases if case.stream == "normal"), cases[0]).request
    note = safety_of(request.config).store.note
    return RepeatedEdit(block, editor.handle, asked, request.getfixturevalue("benchmark"), note)


@pytest.fixture
def edited(case: Case, request: pytest.FixtureRequest) -> Iterator[EditSession]:
    """A live, open session around the edited model; undone afterwards, and checked."""
    with Said():
        session = safety_of(request.config).edited(case)
    with session:
        yield session
    if session.leftovers:
        pytest.fail(f"ERROR {case.id}: left behind: {', '.join(session.leftovers)}", pytrace=False)


def _multiplied_by(request: pytest.FixtureRequest) -> Any:
    """What this one of several like tests is about."""
    if not hasattr(request, "param"):
        pytest.fail(
            f"the fixture {request.fixturename!r} makes one test into several, one for each that the run plans. "
            "This test could not be: it is a method of unittest.TestCase, or asks by getfixturevalue. Name the fixture "
            "(or one that rests on it, such as judged) among the arguments of a function, or of a method of a plain "
            "class.",
            pytrace=False,
        )
    return request.param


def _settle(request: pytest.FixtureRequest, check: Check, where: str = "") -> None:
    """Put a check into the item's JUnit properties, and fail the item when the check does."""
    request.node.user_properties += junit.properties(check)
    if check.verdict.fails:
        pytest.fail(line(f"{check.verdict.value} {where}{check.sentence}", LONGEST), pytrace=False)
