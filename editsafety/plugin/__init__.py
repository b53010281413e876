"""The pytest plugin: options, fixtures, hooks. Imports nothing heavy when pytest starts.

Items only judge; the lab computes. State lives in one `SafetySession` in pytest's stash.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from editsafety.escaping import line
from editsafety.plugin.escaped import clean_report, clean_warning
from editsafety.plugin.options import add_options, option, settings_of
from editsafety.plugin.sentences import Refused
from editsafety.plugin.stash import STASH, is_probed, lacks_probes, safety_of
from editsafety.plugin.workers import pick_auto, take_one_gpu
from editsafety.progress import Progress
from editsafety.supervision.stop_signals import stopping_like_ctrl_c

if TYPE_CHECKING:
    from editsafety.plugin.selection import Selected

FIXTURES = "editsafety.plugin.fixtures"
pytest_plugins = (FIXTURES,)
VERDICTS = "editsafety-verdicts"  # the name of a plugin of its own
MARKED = "editsafety_item"  # attribute of a test report: whether the test is one of ours
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
        named = ":" in (option(config, "device") or "") or option(config, "device_map")
        if worker is not None and not named:
            take_one_gpu(worker["workerid"])
        from editsafety.plugin.session import SafetySession

        with Refused():
            safety = config.stash[STASH] = SafetySession.of(config, option, worker)
        if worker is None:
            from editsafety.plugin.verdicts import Verdicts

            config.pluginmanager.register(Verdicts(safety), VERDICTS)
            signals = ExitStack()
            signals.enter_context(stopping_like_ctrl_c())
            config.add_cleanup(signals.close)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell every xdist worker which folder this run uses."""
    safety = node.config.stash.get(STASH, None)
    if safety is not None:
        with Refused():
            node.workerinput["editsafety_folder"] = str(safety.store.path.parent)  # it is this run's from now on
        node.workerinput["editsafety_workers"] = len(node.config.getoption("tx", None) or [1])


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """The process that hands out the tests has none itself: it hears of them here, before it hands out the first."""
    safety = node.config.stash.get(STASH, None)
    if safety is not None and ids:
        with Refused():
            safety.expect_tests()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Remember that an xdist worker died: the report must not look whole."""
    safety = node.config.stash.get(STASH, None)
    if safety is not None and error:
        safety.lose_worker()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto` for safety runs, by GPUs, or cores, memory and the size of the model; one line says why.

    xdist asks before anything is configured. A single worker is none: nothing is gained by a second process.
    """
    if not option(config, "model"):
        return None
    with Refused():
        picked = pick_auto(settings_of(lambda name: option(config, name)))
    if not option(config, "quiet"):
        said = f"-n auto: {picked.count} worker{'' if picked.count == 1 else 's'}: {picked.why}"
        Progress(sys.__stderr__ or sys.stderr).say(said)
    return picked.count if picked.count > 1 else 0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item per case, per (model, editor, stream), or per control, with stable ids in plan order."""
    wanted = [name for name in OURS if name in metafunc.fixturenames]
    if not wanted or not _ours(metafunc, wanted[0]):
        return
    safety = safety_of(metafunc.config)
    for name in wanted:
        kinds = [kind for mark in metafunc.definition.iter_markers("schedule") for kind in mark.args]
        probed = metafunc.definition.get_closest_marker("probed") is not None
        values = safety.share.parameters(name, kinds, probed=probed)
        metafunc.parametrize(name, values, ids=[line(value.id) for value in values], indirect=True)


@pytest.hookimpl(tryfirst=True)  # a worker of xdist tells that it is ready in the same hook
def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember which cases were selected: the lab computes only those, the report misses only those."""
    safety = session.config.stash.get(STASH, None)
    if safety is not None and not session.config.option.collectonly:
        with Refused():
            tests = [item for item in session.items if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
            safety.select([_selected(test) for test in tests if not lacks_probes(test, safety)])


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
    safety = session.config.stash.get(STASH, None)
    try:
        if verdicts is not None:
            with Refused():
                verdicts.conclude(session, exitstatus)
    finally:
        if safety is not None:
            safety.close()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the report under pytest's own results."""
    safety = config.stash.get(STASH, None)
    if safety is None or safety.report is None or option(config, "quiet"):
        return
    safety.show(terminalreporter._tw._file)


def _ours(metafunc: pytest.Metafunc, name: str) -> bool:
    """Whether a fixture called `case` is the one defined here and not a user's own."""
    definitions = metafunc._arg2fixturedefs.get(name, ())
    return bool(definitions) and definitions[-1].func.__module__ == FIXTURES


def _selected(test: pytest.Function) -> Selected:
    from editsafety.plugin.selection import Selected

    fixtures = frozenset(test.fixturenames)
    return Selected(test.callspec.params, is_probed(test), "edited" in fixtures, "same_in_any_order" in fixtures)
