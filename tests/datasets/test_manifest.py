"""The manifest notices whatever differs from what was shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editsafety.datasets.manifest import NAME, verify, write_manifest
from editsafety.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with its manifest."""
    world = tmp_path / "data" / "world"
    world.mkdir(parents=True)
    (world / "a.jsonl").write_text('{"x": 1}\n\n{"x": 2}\n')
    (world / "model.bin").write_bytes(b"\x00\x01")
    (world.parent / "SOURCES.md").write_text("about")
    (world / ".hidden.lock").write_text("")
    write_manifest(world.parent)
    return world.parent


def test_what_was_shipped_passes(folder: Path) -> None:
    assert verify(folder) == []
    body = json.loads((folder / NAME).read_text())
    assert sorted(body) == ["world/a.jsonl", "world/model.bin"]
    assert body["world/a.jsonl"]["rows"] == 2
    assert "rows" not in body["world/model.bin"]


def test_writing_it_again_gives_the_same_bytes(folder: Path) -> None:
    before = (folder / NAME).read_bytes()
    assert write_manifest(folder).read_bytes() == before


def test_a_flipped_bit_a_lost_row_a_missing_and_a_new_file_are_named(folder: Path) -> None:
    (folder / "world" / "model.bin").write_bytes(b"\x00\x03")
    (folder / "world" / "a.jsonl").write_text('{"x": 1}\n')
    (folder / "extra.jsonl").write_text("")
    findings = verify(folder)
    assert [finding.split(" is ")[0] for finding in findings] == [
        "extra.jsonl:",
        "world/a.jsonl: rows",
        "world/a.jsonl: sha256",
        "world/model.bin: sha256",
    ]
    assert "world/a.jsonl: rows is 1, expected 2" in findings
    (folder / "world" / "a.jsonl").unlink()
    assert "world/a.jsonl: is missing" in verify(folder)


@pytest.mark.parametrize("text", [None, "", "[1]", '{"a": 3}', "{"])
def test_a_manifest_that_cannot_be_read_is_an_error(folder: Path, text: str | None) -> None:
    (folder / NAME).unlink()
    if text is not None:
        (folder / NAME).write_text(text)
    with pytest.raises(DataError, match="Install editsafety again"):
        verify(folder)
