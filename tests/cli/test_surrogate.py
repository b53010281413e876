"""`editsafety surrogate` on stores as runs leave them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editsafety.cli.app import app
from editsafety.errors import UsageError
from editsafety.runs.folders import STORE
from editsafety.runs.store import Store
from tests import builders
from tests.research.test_surrogate import walked


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """6 collapsed and 20 harmless edits with their denominators, and a walked sequence of another model."""
    store = Store(tmp_path / STORE)
    for number in range(6):
        notes = {"denominator": 0.001 * (number + 1)}
        ratio = math.inf if number == 0 else 100.0 + number
        store.put(f"h{number}", builders.record("rome", "hard", number, ratio=ratio, local=0.2, notes=notes))
    for number in range(20):
        notes = {"denominator": 1 + 0.01 * number}
        record = builders.record("rome", "normal", number, ratio=1 + number / 100, local=0.9, notes=notes)
        store.put(f"n{number}", record)
    store.put("c", walked())
    store.close()
    return tmp_path


def test_both_tables_are_printed_per_model(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    done = CliRunner().invoke(app, ["surrogate", str(run), "--measurement", "locality", "--out", str(output)])
    assert done.exit_code == 0, done.output
    first, second = done.output.split("\npocket-neo: ")
    assert "m: 10 edited models" in first
    assert "nli" in first
    assert "one measured step before" in first
    assert "26 edited models, 1 of them without a finite perplexity" in second
    assert "below 0.503" in second
    assert "no figure for locality 2x to 10x (spearman)" in second.replace("\n", " ")
    models = {one["model"]: one for one in json.loads(output.read_text())["models"]}
    (denominator,) = [one for one in models["pocket-neo"]["predictions"] if one["signal"] == "|denominator|"]
    assert denominator["auc"] == 1.0
    assert denominator["gap"] == [1.0, pytest.approx(0.006)]


def test_one_model_can_be_asked_for(run: Path) -> None:
    done = CliRunner().invoke(app, ["surrogate", str(run), "--model", "pocket-neo", "--editor", "rome"])
    assert done.exit_code == 0
    assert "nli" not in done.output
    assert "no abilities were measured" in done.output


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--model", "gpt2"], "no edited model with a perplexity in .* for that model"), (["nowhere"], "no store.sqlite")],
)
def test_what_cannot_be_found_is_said(run: Path, more: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["surrogate", str(run), *more])
    assert isinstance(done.exception, UsageError)
    assert done.exit_code == 1
    with pytest.raises(UsageError, match=said):
        raise done.exception
