"""Seconds and memory of one edit, of applying and undoing it, and of measuring the edited model.

pytest-benchmark does the timing (it switches itself off under xdist); peak memory is in `extra_info`, taken in a pass
of its own so that it does not disturb the times. No shortcut is taken, so that nothing depends on what ran before.
"""

import pytest

pytestmark = [pytest.mark.editsafety, pytest.mark.benchmark(group="single edits", min_rounds=3, warmup=False)]


@pytest.fixture
def request_of(block, safety_plan):
    """An ordinary request where there is one: the cost of an edit does not depend on whether it collapses."""
    cases = [case for case in safety_plan.cases if case.block == (block.model, block.editor)]
    return next((case for case in cases if case.stream == "normal"), cases[0]).request


@pytest.fixture(autouse=True)
def plainly(editor):
    with editor.handle.engine.switched_off():
        yield


def test_one_edit(benchmark, editor, request_of):
    from editsafety.lab.attempt import compute
    from editsafety.model.meter import synchronise

    def edit():
        editor.edit((request_of,))
        synchronise(editor.handle.device)

    benchmark(edit)
    benchmark.extra_info["peak_bytes"] = compute(editor.handle, editor, (request_of,)).cost.edit_bytes


def test_apply_and_undo(benchmark, editor, request_of):
    from editsafety.edits.session import EditSession
    from editsafety.model.meter import synchronise

    edit = editor.edit((request_of,))

    def apply_and_undo():
        with EditSession(editor.handle) as session:
            session.apply(edit)
        synchronise(editor.handle.device)

    benchmark(apply_and_undo)


def test_perplexity_of_an_edited_model(benchmark, editor, request_of, safety_plan, block):
    from editsafety import measures
    from editsafety.edits.session import EditSession

    inputs = measures.Inputs(texts=safety_plan.texts[block.model])
    with EditSession(editor.handle) as session:
        session.apply(editor.edit((request_of,)))
        benchmark(measures.load("perplexity"), editor.handle, inputs)
