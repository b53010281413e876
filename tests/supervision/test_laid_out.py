"""A plan on its way to the process of a lab."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from editsafety.supervision.laid_out import as_message, from_message
from tests.system import world


def test_a_plan_comes_out_as_it_was_laid_out_whatever_has_become_of_the_files(tmp_path: Path) -> None:
    paths = world.write(tmp_path)
    plan = world.plan(paths, "Nudge", "noop", limit=2, size=(1, 2), timeout=3.5)
    plan = replace(plan, cases=tuple(replace(case, probed=case.stream == "hard") for case in plan.cases))
    Path(paths["hard"]).unlink()
    message = json.loads(json.dumps(as_message(plan)))
    found = from_message(message)
    assert found.every == plan.every
    assert found.settings == plan.settings
    assert dict(found.texts) == dict(plan.texts)
    assert found.digest() == plan.digest()
    assert len(message["requests"]) == 4, "every request is sent once"
