"""A case alone and the same case behind another are the same, bit for bit, for every shipped editor."""

from __future__ import annotations

from dataclasses import replace

import pytest

from editsafety import editors
from editsafety.lab import Lab
from editsafety.progress import Progress
from editsafety.record import Cost
from editsafety.store import Store
from tests import tiny
from tests.system import world
from tests.system.commands import FT, ROME

NUMBERS = {"rome": ROME, "ft": FT, "": ""}


@pytest.fixture
def laboratory(paths, tmp_path):
    """laboratory(editor, "a"): a lab with a store of its own, in which every editor has numbers and texts."""
    (tmp_path / "corpus.txt").write_text("\n".join(tiny.SENTENCES * 12))

    def made(name, place):
        text = NUMBERS[editors.load(name).folder or (name if name in NUMBERS else "")]
        more = {}
        if text:
            path = tmp_path / f"{name}.yaml"
            path.write_text(text + (f"mom2_corpus: {tmp_path / 'corpus.txt'}\n" if text is ROME else ""))
            more["hparams"] = (str(path),)
        plan = world.plan(paths, name, prepare=True, **more)
        return Lab(plan, Store(tmp_path / place / "store.sqlite"), Progress.quiet())

    return made


@pytest.mark.parametrize("name", editors.names())
def test_a_case_is_the_same_alone_and_behind_another(laboratory, name):
    alone, after = laboratory(name, "alone"), laboratory(name, "after")
    *_, last = alone.plan.cases
    alone.wanted = [last]
    lonely = alone.record(last)
    assert lonely.failure is None
    records = [after.record(case) for case in after.plan.cases]  # all in one block, the last one behind three others
    assert [replace(records[-1], cost=Cost())] == [replace(lonely, cost=Cost())]
    assert len({record.edit_id for record in records}) == (1 if name == "noop" else 2)  # two subjects, two edits
    for one in (alone, after):
        handle = one.bench(last.model).handle
        assert handle.fingerprint() == handle.identity
