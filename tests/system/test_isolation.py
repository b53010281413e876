"""A case alone and the same case behind another are the same, bit for bit, for every shipped editor."""

from __future__ import annotations

import pytest
import yaml

from editsafety import editors
from editsafety.lab.lab import Lab
from editsafety.progress import Progress
from editsafety.runs.store import Store
from tests.editors.conftest import NUMBERS, material
from tests.lab.walking import timeless
from tests.system import world


@pytest.fixture
def laboratory(paths, tmp_path):
    """laboratory(editor, "a"): a lab with a store of its own, in which every editor has numbers and texts."""

    def made(name, place, *only):
        kind = editors.load(name)
        numbers = {**NUMBERS[kind.folder or name], **kind.overrides, **material(kind, tmp_path)}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(numbers))
        plan = world.plan(paths, name, prepare=True, hparams=(str(path),))
        wanted = [plan.cases[at] for at in only] or None
        return Lab(plan, Store(tmp_path / place / "store.sqlite"), Progress.quiet(), wanted=wanted)

    return made


# One of each kind; the others' edits are compared bit for bit in another order in tests/test_every_editor.py.
SOME = ("rome", "memit", "ft", "grace", "mend")


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=() if one in SOME else pytest.mark.thorough) for one in editors.names()]
)
def test_a_case_is_the_same_alone_and_behind_another(laboratory, name):
    alone, after = laboratory(name, "alone", -1), laboratory(name, "after")
    *_, last = alone.plan.cases
    lonely = alone.record(last)
    assert lonely.failure is None
    records = [after.record(case) for case in after.plan.cases]  # all in one block, the last one behind three others
    assert timeless(records[-1]) == timeless(lonely)
    edits = {record.step.edit_id for record in records}
    assert len(edits) == 1 if name == "noop" else len(edits) >= 2  # two subjects; what is drawn belongs to the request
    for one in (alone, after):
        handle = one.tools.bench(last.model).handle
        assert handle.fingerprint() == handle.identity
