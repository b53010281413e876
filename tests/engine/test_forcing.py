"""Targets: how probable given tokens are behind their prompts, in the passes of what is continued."""

from __future__ import annotations

import math

import pytest
import torch

from editsafety.engine.continuing import TargetIds, Wish, announce, continue_greedily, force, unchanged
from editsafety.model.handle import ModelHandle
from tests import tiny
from tests.engine.test_continuing import FAMILIES, LENGTHS, counted, ids_of, naive, wish


def targets_of(handle: ModelHandle) -> list[TargetIds]:
    prompt, other = ids_of(handle)[0], ids_of(handle)[2]
    pairs = [(prompt, "farmer"), (prompt, "teacher in the north"), (other, "Tarnic"), (prompt, "farmer and")]
    return [TargetIds(ids, tuple(handle.target_ids(text))) for ids, text in pairs]


def by_hand(handle: ModelHandle, target: TargetIds) -> tuple[float, float]:
    """One row, no mask, softmax in float64."""
    with torch.no_grad():
        logits = handle.model(input_ids=torch.tensor([[*target.prompt, *target.ids]])).logits[0].double()
    at = range(len(target.prompt) - 1, len(target.prompt) + len(target.ids) - 1)
    nats = [float(torch.logsumexp(logits[p], 0) - logits[p, t]) for p, t in zip(at, target.ids, strict=True)]
    hits = [float(int(logits[p].argmax()) == t) for p, t in zip(at, target.ids, strict=True)]
    return math.fsum(nats) / len(nats), math.fsum(hits) / len(hits)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_targets_are_scored_as_by_hand(family: str, plain: bool) -> None:
    handle = tiny.handle(family)
    handle.engine.plain = plain
    for found, target in zip(force(handle, targets_of(handle)), targets_of(handle), strict=True):
        nll, hits = by_hand(handle, target)
        assert found.nll == pytest.approx(nll, rel=1e-5)
        assert found.hits == hits


def test_a_target_that_is_drafted_is_read_off_in_the_same_row(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    targets = targets_of(handle)
    shapes = counted(handle, monkeypatch)
    with unchanged(handle):
        announce(handle, [Wish(targets[3].prompt, lambda said: 1 if said else 9, targets[3].ids)], targets)
        rows = sum(rows for rows, width in shapes if width > 1)
        assert rows == 3  # the long one and, within it, the short one; and two others
        assert force(handle, targets) == force(handle, targets)
    alone = [force(handle, [target])[0] for target in targets]
    with unchanged(handle):
        announce(handle, [Wish(targets[3].prompt, lambda said: 9, targets[3].ids)], targets)
        for found, other in zip(force(handle, targets), alone, strict=True):
            assert found.nll == pytest.approx(other.nll, rel=1e-5)
            assert found.hits == other.hits


def test_a_target_of_a_model_that_broke_has_no_figures() -> None:
    handle = tiny.handle("gpt2")
    with torch.no_grad():
        handle.model.get_parameter(handle.mlp_out(2).parameter).fill_(torch.nan)
    for found in force(handle, targets_of(handle)):
        assert math.isnan(found.nll)
        assert math.isnan(found.hits)


def test_what_was_announced_is_known_and_what_was_not_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = tiny.handle("gpt2")
    expected = naive(handle)
    wishes = [wish(*row) for row in zip(ids_of(handle), LENGTHS, strict=True)]
    shapes = counted(handle, monkeypatch)
    with unchanged(handle):
        announce(handle, wishes[:4], targets_of(handle))
        before = len(shapes)
        assert [one.said for one in continue_greedily(handle, wishes[:4])] == expected[:4]
        assert len(force(handle, targets_of(handle))) == 4
        assert len(shapes) == before
        assert continue_greedily(handle, wishes[4:])[0].said == expected[4]
        assert len(shapes) > before
