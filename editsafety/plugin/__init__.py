"""The pytest plugin: options, fixtures, hooks. Imports nothing heavy when pytest starts.

Items only judge; the lab computes. State lives in one `SafetySession` in pytest's stash.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest

from editsafety.errors import EditSafetyError
from editsafety.escaping import line
from editsafety.foreign import contained
from editsafety.plugin.escaped import clean_report, clean_warning
from editsafety.plugin.options import add_options, option
from editsafety.plugin.workers import take_one_gpu

if TYPE_CHECKING:
    from editsafety.editors import Editor
    from editsafety.edits.session import EditSession
    from editsafety.judging.checks import Check
    from editsafety.model.handle import ModelHandle
    from editsafety.plugin.session import GroupKey, SafetySession, Selected
    from editsafety.runs.case import Case
    from editsafety.runs.case_record import CaseRecord
    from editsafety.runs.plan import RunPlan

STASH = pytest.StashKey["SafetySession"]()
VERDICTS = "editsafety-verdicts"  # the name of a plugin of its own
MARKED = "editsafety_item"  # attribute of a test report: whether the test is one of ours
LONGEST = 4000  # characters of a sentence about what is wrong
Judge = Callable[[str], None]
OURS = ("case", "group", "block", "control")  # the fixtures that make a test one of ours


def pytest_addoption(parser: pytest.Parser) -> None:
    """Every option has the prefix `--editsafety-`; the ini file may hold the same."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Work out the plan (text only) when a model is named; take one GPU per xdist worker."""
    config.addinivalue_line("markers", "editsafety: a safety check of an edited model")
    config.addinivalue_line("markers", "probed: a test that needs the abilities of the edited model to be measured")
    config.addinivalue_line("markers", "schedule(*kinds): which cases a test is about (default: single)")
    worker = getattr(config, "workerinput", None)
    if option(config, "model"):
        if worker is not None and ":" not in (option(config, "device") or ""):
            take_one_gpu(worker["workerid"])
        from editsafety.plugin.session import SafetySession

        with _Refused():
            safety = config.stash[STASH] = SafetySession.of(config, option, worker)
        if worker is None:
            from editsafety.plugin.verdicts import Verdicts

            config.pluginmanager.register(Verdicts(safety), VERDICTS)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell every xdist worker which folder this run uses."""
    safety = node.config.stash.get(STASH, None)
    if safety is not None:
        node.workerinput["editsafety_folder"] = str(safety.folder)
        node.workerinput["editsafety_workers"] = len(node.config.getoption("tx", None) or [1])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """The process that hands out the tests has none itself: it hears of them here."""
    safety = node.config.stash.get(STASH, None)
    if safety is not None and ids:
        safety.expect_tests()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Remember that an xdist worker died: the report must not look whole."""
    safety = node.config.stash.get(STASH, None)
    if safety is not None and error:
        safety.lose_worker()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto` for safety runs: one worker per GPU when there are GPUs."""
    if STASH not in config.stash or option(config, "device") == "cpu":
        return None
    import torch

    return torch.cuda.device_count() or None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item per case, per (model, editor, stream), or per control, with stable ids in plan order."""
    wanted = [name for name in OURS if name in metafunc.fixturenames]
    if not wanted or not _ours(metafunc, wanted[0]):
        return
    safety = _safety(metafunc.config)
    for name in wanted:
        kinds = [kind for mark in metafunc.definition.iter_markers("schedule") for kind in mark.args]
        probed = metafunc.definition.get_closest_marker("probed") is not None
        values = safety.parameters(name, kinds, probed=probed)
        metafunc.parametrize(name, values, ids=[line(value.id) for value in values], indirect=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember which cases were selected: the lab computes only those, the report misses only those."""
    safety = session.config.stash.get(STASH, None)
    if safety is not None and not session.config.option.collectonly:
        with _Refused():
            tests = [item for item in session.items if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
            safety.select([_selected(test) for test in tests if not _lacks_probes(test, safety)])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what an editor raised and printed, before pytest shows it or writes it down.

    And say whether the test is one of ours, so that the process that has no tests knows it too.
    """
    report = yield
    if STASH in item.config.stash:
        clean_report(report)
        if {*OURS} & {*getattr(getattr(item, "callspec", None), "params", ())}:
            setattr(report, MARKED, True)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_warning_recorded(warning_message: warnings.WarningMessage) -> None:
    """Escape what was warned of, in the summary that pytest shows at the end."""
    clean_warning(warning_message)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the report, whatever happened, from what the store holds; what it says is told like tests."""
    verdicts = session.config.pluginmanager.get_plugin(VERDICTS)
    if verdicts is not None:
        with _Refused():
            ended = exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
            verdicts.conclude(session, interrupted=ended)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the report under pytest's own results."""
    safety = config.stash.get(STASH, None)
    if safety is None or safety.report is None or option(config, "quiet"):
        return
    safety.show(terminalreporter._tw._file)


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """One planned case: a single edit, or what the mark `schedule` names.

    Parametrised; ids like `pocket-neo-rome-hardcf-0017`, `pocket-neo-rome-hard-sequential`. Skipped where the editor's
    traits do not allow the schedule, and under the mark `probed` where the model comes with no abilities to measure.
    """
    case: Case = request.param
    if _lacks_probes(request.node, _safety(request.config)):
        pytest.skip(f"{case.model} comes with no abilities to measure; name some: --editsafety-probe READER:FILE")
    with _Said():
        refused = _safety(request.config).refuses(case)
    if refused:
        pytest.skip(refused)
    return case


@pytest.fixture
def group(request: pytest.FixtureRequest) -> GroupKey:
    """One editor on one model and stream. Parametrised; ids like `pocket-neo-rome-hard`."""
    found: GroupKey = request.param
    return found


@pytest.fixture
def block(request: pytest.FixtureRequest) -> GroupKey:
    """One editor on one model. Parametrised; ids like `pocket-neo-rome`."""
    found: GroupKey = request.param
    return found


@pytest.fixture
def control(request: pytest.FixtureRequest) -> GroupKey:
    """One control editor on one model with hard cases."""
    found: GroupKey = request.param
    return found


@pytest.fixture
def result(case: Case, request: pytest.FixtureRequest) -> CaseRecord:
    """The stored record of the case; computed or gone on with, with its block, where it is missing or unfinished."""
    with _Said():
        return _safety(request.config).record(case)


@pytest.fixture
def judged(case: Case, result: CaseRecord, request: pytest.FixtureRequest) -> Judge:
    """`judged("perplexity")` fails with the verdict's sentence when the case does not pass that check."""

    def judge(name: str) -> None:
        check = _safety(request.config).check(result, name)
        if check is None:
            pytest.skip(f"{case.id}: nothing was measured that {name} could be judged by")
        _settle(request, check, f"{case.id}: ")

    return judge


@pytest.fixture
def judged_group(group: GroupKey, request: pytest.FixtureRequest) -> Judge:
    """`judged_group("efficacy")` fails when the rate over all cases of the group does not pass."""

    def judge(name: str) -> None:
        with _Said():
            check = _safety(request.config).group_check(group, name)
        if check is None:
            pytest.skip(f"no case of {group.id} has data for {name}")
        _settle(request, check, f"{group.id}: ")

    return judge


@pytest.fixture
def same_in_any_order(block: GroupKey, request: pytest.FixtureRequest) -> None:
    """Fails when the first and last case come out differently alone, in reverse order, by a new editor."""
    with _Said():
        order = _safety(request.config).same_in_any_order(block)
    if not order.holds:
        pytest.fail(f"ERROR {order.editor} on {order.model}: {order.sentence}", pytrace=False)


@pytest.fixture
def judged_control(control: GroupKey, request: pytest.FixtureRequest) -> Callable[[], None]:
    """`judged_control()` fails when a control editor did not come out as it must."""

    def judge() -> None:
        with _Said():
            found = _safety(request.config).control(control)
        if not found.behaved:
            pytest.fail(f"ERROR {found.sentence}", pytrace=False)

    return judge


@pytest.fixture(scope="session")
def safety_plan(request: pytest.FixtureRequest) -> RunPlan:
    """Every case of this run, and the texts of each model."""
    return _safety(request.config).plan


@pytest.fixture(scope="session")
def handle(request: pytest.FixtureRequest) -> ModelHandle:
    """The (first) model of this run, loaded."""
    with _Said():
        return _safety(request.config).handle()


@pytest.fixture
def editor(request: pytest.FixtureRequest) -> Editor:
    """The editor of the item's case or block, or the first of the run; made for its model."""
    params = getattr(request.node, "callspec", None)
    chosen = (
        next((params.params[n] for n in ("case", "group", "block") if n in params.params), None) if params else None
    )
    with _Said():
        return _safety(request.config).editor(chosen)


@pytest.fixture
def edited(case: Case, request: pytest.FixtureRequest) -> Iterator[EditSession]:
    """A live, open session around the edited model; undone afterwards, and checked."""
    with _Said():
        session = _safety(request.config).edited(case)
    with session:
        yield session
    if session.leftovers:
        pytest.fail(f"ERROR {case.id}: left behind: {', '.join(session.leftovers)}", pytrace=False)


class _Said:
    """Turns our own errors into a failure that shows the sentence and no traceback, and so what an editor ends by."""

    def __init__(self) -> None:
        self._contained = contained("an editor")

    def __enter__(self) -> None:
        self._contained.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self._contained.__exit__(kind, error, trace)
        except EditSafetyError as ended:
            error = ended
        if isinstance(error, EditSafetyError):
            pytest.fail(f"ERROR {line(error, LONGEST)}", pytrace=False)


class _Refused:
    """Turns our own errors, outside of any test, into one sentence and pytest's exit code 4."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, EditSafetyError):
            raise pytest.UsageError(line(error, LONGEST)) from error


def _ours(metafunc: pytest.Metafunc, name: str) -> bool:
    """Whether a fixture called `case` is the one defined here and not a user's own."""
    definitions = metafunc._arg2fixturedefs.get(name, ())
    return bool(definitions) and definitions[-1].func.__module__ == __name__


def _settle(request: pytest.FixtureRequest, check: Check, where: str = "") -> None:
    """Put a check into the item's JUnit properties, and fail the item when the check does."""
    request.node.user_properties += _safety(request.config).properties(check)
    if check.verdict.fails:
        pytest.fail(line(f"{check.verdict.value} {where}{check.sentence}", LONGEST), pytrace=False)


def _lacks_probes(test: pytest.Function, safety: SafetySession) -> bool:
    """Whether a test of abilities is about a model for which there are none."""
    case = cast("Case | None", test.callspec.params.get("case")) if hasattr(test, "callspec") else None
    return case is not None and _is_probed(test) and not safety.plan.probes(case.model)


def _is_probed(test: pytest.Function) -> bool:
    return test.get_closest_marker("probed") is not None


def _selected(test: pytest.Function) -> Selected:
    from editsafety.plugin.session import Selected

    fixtures = frozenset(test.fixturenames)
    return Selected(test.callspec.params, _is_probed(test), "edited" in fixtures, "same_in_any_order" in fixtures)


def _safety(config: pytest.Config) -> SafetySession:
    if STASH not in config.stash:
        raise pytest.UsageError(
            "no model was given: add --editsafety-model (pocket-neo runs offline) and --editsafety-editor."
        )
    return config.stash[STASH]
