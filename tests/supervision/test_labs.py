"""Labs: whom a run asks, also which facts its models know before it is laid out."""

from __future__ import annotations

from pathlib import Path

import pytest

from editsafety.progress import Progress
from editsafety.runs.facts import Known
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store
from editsafety.supervision import Labs
from tests import tiny


@pytest.mark.parametrize("made", [True, False], ids=["a model that knows nothing", "no model at all"])
def test_a_model_is_edited_where_it_knows_what_it_was_asked_or_cannot_be_asked(tmp_path: Path, made: bool) -> None:
    place = tiny.folder(tmp_path / "m", knows=True) if made else tmp_path / "nowhere"
    (tmp_path / "texts.txt").write_text("\n".join(tiny.SENTENCES))
    data = {"normal": "pocket-world/normal", "texts_from": str(tmp_path / "texts.txt")}
    plan = RunPlan.of(Settings((str(place),), ("noop",), known=True, device="cpu", **data))
    store = Store(tmp_path / "run" / "store.sqlite")
    labs = Labs(plan, store, Progress.quiet(), (), (), 1, tmp_path / "log", in_process=True)
    kept = labs.known_only()
    known = store.fact(Known, place.name)
    if made:
        assert kept.cases == ()
        assert known is not None
        assert list(known.answers.values()) == [False] * len(plan.cases)
    else:
        assert kept is plan, "the run itself says what is wrong with the model"
        assert known is None
