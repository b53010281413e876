"""Averages, the file and the picture of a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editsafety.errors import UsageError
from editsafety.research.tracing import drawing
from editsafety.research.tracing.effects import AverageEffects, CausalTrace, TracedFact
from editsafety.research.tracing.facts import CLASSES


def traces() -> CausalTrace:
    effects = {"state": {CLASSES[2]: (0.1, 0.3), CLASSES[5]: (0.0, 0.5)}, "mlp": {CLASSES[2]: (0.2, 0.0)}}
    other = {"state": {CLASSES[2]: (0.3, 0.3), CLASSES[5]: (0.0, 0.1)}, "mlp": {CLASSES[2]: (0.4, 0.0)}}
    facts = (TracedFact("a", 0.9, 0.1, effects), TracedFact("b", 0.5, 0.3, other))
    return CausalTrace("m", "f" * 64, 2, 0.3, 10, 10, 0, facts)


def test_averages_are_over_facts_with_the_error_of_the_mean() -> None:
    made = traces()
    assert made.total_effect == pytest.approx(0.5)
    assert made.averages[0] == AverageEffects(
        "state", CLASSES[2], 2, pytest.approx((0.2, 0.3)), pytest.approx((0.1, 0.0))
    )  # two values 0.2 apart: s = 0.1414, over the root of two
    assert [(one.kind, one.tokens) for one in made.averages] == [
        ("state", CLASSES[2]), ("state", CLASSES[5]), ("mlp", CLASSES[2]),
    ]  # fmt: skip


def test_what_is_saved_holds_every_fact_and_the_averages(tmp_path: Path) -> None:
    traces().save(tmp_path / "trace.json")
    found = json.loads((tmp_path / "trace.json").read_text())
    assert found["total_effect"] == pytest.approx(0.5)
    assert [fact["id"] for fact in found["facts"]] == ["a", "b"]
    assert found["averages"][0]["mean"] == pytest.approx([0.2, 0.3])
    assert (found["samples"], found["window"], found["noise"]) == (10, 10, 0.3)


def test_the_picture_has_a_map_for_each_kind_and_is_the_same_for_the_same_trace() -> None:
    picture = drawing.draw(traces(), "svg")
    assert picture == drawing.draw(traces(), "svg")
    assert b"<svg" in picture
    assert drawing.draw(traces(), "png").startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'editsafety\[maps\]'"):
        drawing.draw(traces(), "svg")
