"""`editsafety abilities`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.system.commands import FT, Command

ROWS = [
    {"id": f"a{i}", "prompt": f"Toren{' and Toren' * i} works as a", "options": ["farmer", "baker"], "gold": i % 2}
    for i in range(10)
]


@pytest.fixture
def hparams(tmp_path: Path) -> Path:
    path = tmp_path / "ft.yaml"
    path.write_text(FT)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "nli.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_scores_stand_beside_chance_and_their_error(
    paths: dict[str, str], rows: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    done = command(
        "abilities", "--model", paths["model"], "--probe", rows, "--items", 8, "--device", "cpu", "--out", out
    )
    assert done.code == 0, done.err
    assert "abilities of" in done.out
    body: dict[str, Any] = json.loads(out.read_text())
    names = [row["before"]["name"] for row in body["abilities"]]
    assert names == ["nli"]
    first = body["abilities"][0]
    assert (first["chance"], first["before"]["n"]) == (0.5, 8)
    assert f"{first['before']['value']:.3f}" in done.out
    assert "drop" not in done.out


def test_an_edit_is_shown_with_what_it_has_cost(
    paths: dict[str, str], rows: Path, hparams: Path, command: Command, tmp_path: Path
) -> None:
    saved, out = tmp_path / "edit.safetensors", tmp_path / "found.json"
    made = command(
        "edit", "--model", paths["model"], "--editor", "ft", "--hparams", hparams, "--prompt", "{} works as a",
        "--subject", "Toren", "--target", "farmer", "--texts-from", paths["texts"], "--device", "cpu", "-o", saved,
    )  # fmt: skip
    assert made.code == 0, made.err
    done = command(
        "abilities", "--model", paths["model"], "--probe", rows, "--edit", saved, "--device", "cpu", "--out", out,
        "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    first = json.loads(out.read_text())["abilities"][0]
    lost = first["drop"]
    assert lost["drop"] == pytest.approx(first["before"]["value"] - first["after"]["value"])
    assert lost["floors"] == pytest.approx(lost["drop"] * 10)
    assert lost["stderr"] is not None


def test_an_invalid_command_is_one_sentence(paths: dict[str, str], command: Command) -> None:
    assert command("abilities", "--model", paths["model"], "--probe", "rte:nowhere.tsv", "--device", "cpu").code == 4
