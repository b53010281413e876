"""Labs: whom a run asks, also which facts its models know before it is laid out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from editsafety.progress import Progress
from editsafety.runs.facts import EditorFacts, Known, Problem, Wanted
from editsafety.runs.plan import RunPlan
from editsafety.runs.settings import Settings
from editsafety.runs.store import Store
from editsafety.supervision import Labs
from tests import tiny
from tests.system import world

PREPARED = """

class Prepared(Nudge):
    def missing(self):
        return None if self.artifact.is_file() else "what it needs"

    def prepare(self, progress=None, corpus=None):
        with self.artifact.open("a") as made, progress.task("what Prepared needs", 1) as task:
            made.write("made.")
            task.step()

    @property
    def artifact(self):
        from pathlib import Path
        return Path(__file__).with_name("artifact")


class Broken(Nudge):
    def prepare(self, progress=None, corpus=None):
        raise SystemExit("broken")

    def missing(self):
        return "more than there is"
"""


@pytest.mark.parametrize("made", [True, False], ids=["a model that knows nothing", "no model at all"])
def test_a_model_is_edited_where_it_knows_what_it_was_asked_or_cannot_be_asked(tmp_path: Path, made: bool) -> None:
    place = tiny.folder(tmp_path / "m", knows=True) if made else tmp_path / "nowhere"
    (tmp_path / "texts.txt").write_text("\n".join(tiny.SENTENCES))
    data = {"normal": "pocket-world/normal", "texts_from": str(tmp_path / "texts.txt")}
    plan = RunPlan.of(Settings((str(place),), ("noop",), known=True, device="cpu", **data))
    store = Store(tmp_path / "run" / "store.sqlite")
    out = io.StringIO()
    labs = Labs(plan, store, Progress(out), (), (), 1, tmp_path / "log", in_process=True)
    kept = labs.known_only()
    assert ("no fact is left out, as it could not be found out which ones are known: " in out.getvalue()) is not made
    known = store.fact(Known, place.name)
    if made:
        assert kept.cases == ()
        assert known is not None
        assert list(known.answers.values()) == [False] * len(plan.cases)
    else:
        assert kept is plan, "the run itself says what is wrong with the model"
        assert known is None


def test_what_every_worker_would_do_is_done_once_before_them_and_in_the_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITSAFETY_CACHE", str(tmp_path / "cache"))
    paths = world.write(tmp_path, hard=1, normal=1)
    nudge = Path(paths["nudge"])
    nudge.write_text(nudge.read_text() + PREPARED)
    plan = world.plan(paths, "Broken", "Prepared", "Nudge", prepare=True)
    store, out = Store(tmp_path / "run" / "store.sqlite"), io.StringIO()
    labs = Labs(plan, store, Progress(out), (), (), 1, tmp_path / "log", in_process=True)
    labs.make_ready()
    assert out.getvalue() == "", "nothing is wanted yet"
    store.note(Wanted(tuple(case.id for case in plan.cases if "Nudge" not in case.id)))
    for _ in range(2):  # a second session finds what the first one made
        labs.make_ready()
    assert (tmp_path / "artifact").read_text() == "made."
    said = out.getvalue()
    assert said.index("tiny-model, unedited: 2 of 2") < said.index("what Prepared needs: 1 of 1")
    assert store.fact(Problem, "tiny-model:Broken") is None, "whoever runs it says what is wrong"
    facts = [store.fact(EditorFacts, f"tiny-model:{name}") is not None for name in ("Broken", "Prepared", "Nudge")]
    assert facts == [True, True, False], "an editor of which no case is wanted is not made"
    (case, *_) = [case for case in plan.cases if "Prepared" in case.id]
    labs.computing.record(case)
    labs.close()
    out.truncate(0)
    store.note(Wanted((case.id,)))
    labs.make_ready()
    assert out.getvalue() == "", "what a case was run with is there"
