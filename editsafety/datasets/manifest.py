"""The manifest of the shipped files: what `data/` must hold, so that an altered or missing file is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from editsafety import tensor_files
from editsafety.datasets.fetch import digest
from editsafety.errors import DataError

NAME = "manifest.json"


def write_manifest(folder: Path) -> Path:
    """Write `manifest.json`: sha256 of every file under the folder (Markdown apart), and the rows of each .jsonl."""
    body = {name: _entry(path) for name, path in _files(folder).items()}
    path = folder / NAME
    tensor_files.write_atomically(path, (json.dumps(body, indent=1, sort_keys=True) + "\n").encode())
    return path


def verify(folder: Path) -> list[str]:
    """What differs from the manifest, one sentence each; nothing when all is as it was shipped.

    Raises DataError when the manifest itself is missing or cannot be read.
    """
    expected = _read(folder / NAME)
    files = _files(folder)
    sentences = [f"{name}: is missing" for name in expected.keys() - files.keys()]
    sentences += [f"{name}: is not in {NAME}" for name in files.keys() - expected.keys()]
    for name in expected.keys() & files.keys():
        now = _entry(files[name])
        sentences += [
            f"{name}: {field} is {now.get(field)}, expected {value}"
            for field, value in expected[name].items()
            if now.get(field) != value
        ]
    return sorted(sentences)


def _files(folder: Path) -> dict[str, Path]:
    """Every file by its path under the folder; hidden ones, Markdown pages and the manifest itself left out."""
    places = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        place.as_posix(): path
        for place, path in places.items()
        if place.suffix != ".md" and place.as_posix() != NAME and not any(p.startswith(".") for p in place.parts)
    }


def _entry(path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"sha256": digest(path)}
    if path.suffix == ".jsonl":
        with path.open("rb") as file:
            entry["rows"] = sum(bool(line.strip()) for line in file)
    return entry


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Install editsafety again.") from error
    if not isinstance(body, dict) or not all(isinstance(entry, dict) for entry in body.values()):
        raise DataError(f"{path}: is no manifest. Install editsafety again.")
    return body
