"""What a guard refuses: every limit that an edit may break, alone and over all edits so far."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from editsafety.edits.edit import LowRank, Replace
from editsafety.guarding import audit
from editsafety.judging.alarms import Alarm
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.guarding.scripted import LAX, ask, guarded, nan, scripted, small
from tests.measures.conftest import by_heart


def test_losses_are_counted_from_the_first_model_on(handle: ModelHandle, tmp_path: Path) -> None:
    """Every edit alone is harmless; together they are not, and the one that goes too far is refused."""
    edits = [small(handle, 5, size=0.02) for _ in range(30)]
    with guarded(scripted(handle, tmp_path, *edits)) as one:
        decisions = []
        while not decisions or decisions[-1]:
            decisions.append(one.edit(ask(len(decisions))))
        assert len(decisions) > 3
        ratios = [decision.ratio or 0.0 for decision in decisions]
        assert all(later / earlier < 1.5 for earlier, later in pairwise(ratios))
        assert decisions[-1].verdict is Verdict.COLLAPSE


@pytest.mark.parametrize(
    ("make", "name"),
    [(nan, "finite"), (lambda handle: small(handle, size=10.0), "norm_growth")],
)
def test_weights_that_are_out_of_bounds_are_refused_before_they_are_applied(
    handle: ModelHandle, tmp_path: Path, make: Callable[[ModelHandle], Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, path = handle.fingerprint(), tmp_path / "audit.jsonl"
    with guarded(scripted(handle, tmp_path, make(handle)), audit=path) as one:
        monkeypatch.setattr(one._session, "apply", lambda edit: pytest.fail("it was applied"))
        decision = one.edit(ask())
        assert (decision.stage, decision.verdict, decision.kept) == ("preflight", Verdict.COLLAPSE, False)
        assert f"COLLAPSE: {name} " in decision.sentence
        assert decision.sentence.endswith("(refused before it was applied)")
        assert handle.fingerprint() == before
    assert audit.read(path)[2]["stage"] == "preflight"


def test_growth_is_that_over_all_edits(handle: ModelHandle, tmp_path: Path) -> None:
    name = handle.mlp_out(1).parameter
    weight = handle.model.get_parameter(name).detach().clone()
    editor = scripted(handle, tmp_path, Replace(name, weight * 1.3), Replace(name, weight * 1.69))
    with guarded(editor) as one:
        assert one.edit(ask(1)).found["norm_growth"].value == pytest.approx(1.3)
        second = one.edit(ask(2))
        assert second.stage == "preflight"
        assert second.found["norm_growth"].value == pytest.approx(1.69)


def test_an_alarm_that_was_found_before_refuses_an_edit(handle: ModelHandle, tmp_path: Path) -> None:
    alarms = ["delta_norm above 0.05", Alarm("spectral_norm", "above", 100.0)]
    with guarded(scripted(handle, tmp_path, small(handle), small(handle, size=0.01)), alarms=alarms) as one:
        assert one.edit(ask(1)).kept
        decision = one.edit(ask(2))
        assert decision.stage == "preflight"
        assert "delta_norm is 0.483" in decision.sentence  # 0.01 |left| |right|
        assert "collapse is expected delta_norm above 0.05" in decision.sentence


def test_a_canary_that_changes_its_answer_refuses_an_edit(handle: ModelHandle, tmp_path: Path) -> None:
    lax = LAX.model_copy(update={"case": {"finite": LAX.case["finite"]}})
    editor = scripted(handle, tmp_path, small(handle, size=1e-6), small(handle, 1, size=1.0))
    canaries = ("Mirel works as a", ask(1, subject="Toren"))
    with guarded(editor, policy=lax, canaries=canaries) as one:
        assert one.edit(ask(1)).kept
        decision = one.edit(ask(2))
        assert decision.verdict is Verdict.DAMAGED
        assert "of 2 canaries changed, first " in decision.sentence


def test_earlier_facts_have_to_be_said_still(handle: ModelHandle, tmp_path: Path) -> None:
    """A model that answers by heart, and forgets while the third edit is computed."""
    policy = LAX.model_copy(update={"case": {"finite": LAX.case["finite"]}, "course": Policy.read("default").course})
    known = tiny.request("known", prompt="The capital of {} is", subject="Dorvan", target_new="Kelmar")

    def forgetting() -> LowRank:
        answers.clear()
        return small(handle, 3)

    answers = {known.filled: " Kelmar."}
    by_heart(handle, answers)
    editor = scripted(handle, tmp_path, small(handle), small(handle, 1), forgetting, small(handle, 2))
    with guarded(editor, policy=policy) as one:
        assert one.edit(known).kept
        assert one.edit(ask(2, subject="Mirel")).found["kept"].items == (1.0,)
        forgotten = one.edit(ask(3))
        assert forgotten.verdict is Verdict.DAMAGED
        assert "kept 0.00 of 2 earlier requests (lost: known, r2), expected" in forgotten.sentence


def test_what_the_suites_ask_of_a_group_is_asked_of_a_transaction(handle: ModelHandle, tmp_path: Path) -> None:
    policy = LAX.model_copy(update={"group": {"efficacy": Policy.read("default").group["efficacy"]}})
    with guarded(scripted(handle, tmp_path, small(handle)), policy=policy) as one:
        decision = one.edit([ask(1), ask(2, subject="Mirel")])
    assert decision.verdict is Verdict.INEFFECTIVE
    assert "efficacy 0.00 over 1 case" in decision.sentence


def test_an_edit_that_changes_nothing_is_not_kept(handle: ModelHandle, tmp_path: Path) -> None:
    with guarded(scripted(handle, tmp_path, ([], ()))) as one:
        assert one.edit(ask()).verdict is Verdict.NO_OP
