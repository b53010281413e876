"""Seconds and memory of one edit, of applying and undoing it, and of measuring the edited model.

pytest-benchmark does the timing (it switches itself off under xdist). Seconds of an edit and of measuring, and peak
memory, are kept as well: `editsafety baseline accept --costs` takes them, `--editsafety-fail-over` compares with them.
No shortcut is taken, so that nothing depends on what ran before.
"""

from contextlib import contextmanager

import pytest

pytestmark = [pytest.mark.editsafety, pytest.mark.benchmark(group="single edits")]


@pytest.fixture(autouse=True)
def plainly(editor):
    with editor.handle.engine.switched_off():
        yield


def test_one_edit(repeated, editor):
    from editsafety.lab.attempt import compute
    from editsafety.model.meter import synchronise

    def edit():
        editor.edit((repeated.request,))
        synchronise(editor.handle.device)

    repeated.time("latency", edit)
    repeated.weigh(lambda: compute(editor.handle, editor, (repeated.request,)).cost.edit_bytes)


def test_apply_and_undo(benchmark, repeated, editor):
    from editsafety.edits.session import EditSession
    from editsafety.model.meter import synchronise

    edit = editor.edit((repeated.request,))

    def apply_and_undo():
        with EditSession(editor.handle) as session:
            session.apply(edit)
        synchronise(editor.handle.device)

    benchmark(apply_and_undo)


def test_perplexity_of_an_edited_model(repeated, editor, safety_plan, block):
    from editsafety import measures
    from editsafety.edits.session import EditSession

    edit = editor.edit((repeated.request,))
    inputs = measures.Inputs(texts=safety_plan.texts[block.model])
    perplexity = measures.load("perplexity")

    @contextmanager
    def edited():
        with EditSession(editor.handle) as session:
            session.apply(edit)
            yield

    repeated.time("measuring", lambda: perplexity(editor.handle, inputs), edited)
