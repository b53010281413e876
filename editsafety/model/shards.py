"""Shards: a checkpoint that lies in several files, and the index that says which tensor is in which of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from editsafety import tensor_files
from editsafety.errors import ModelError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def refuse_damaged(folder: Path) -> None:
    """Raise ModelError for an index that cannot be followed, and for a tensor that has two values.

    Loaders differ in which of two they take: what is judged here would not be what is served elsewhere.
    """
    index = folder / INDEX
    if (folder / WHOLE).is_file() or not index.is_file():
        return
    kept: dict[str, str] = {}
    for file in _files(index):
        with _opened(folder / file) as shard:
            for name in sorted(shard.keys()):
                if name in kept and _differ(name, folder / kept[name], folder / file):
                    raise ModelError(
                        f"{folder}: {kept[name]} and {file} hold different values of {name}, and loaders differ in "
                        "which of them they take. Make the checkpoint again, with one value of each tensor."
                    )
                kept[name] = file


def refuse_other_shapes(model: str, mismatched: Iterable[Any]) -> None:
    """Raise ModelError where tensors of a checkpoint have other shapes than its config makes them.

    `mismatched` is what transformers tells: name, shape and the one expected, before version 5 the name alone.
    """
    found = sorted((one,) if isinstance(one, str) else tuple(one) for one in mismatched)
    if not found:
        return
    name, *shapes = found[0]
    told = (
        f"as {list(shapes[0])}, and its config makes it {list(shapes[1])}"
        if shapes
        else "in another shape than its config"
    )
    raise ModelError(
        f"cannot load {model!r}: the checkpoint has {name} {told} ({len(found)} such in all). Make or fetch it again."
    )


def _files(index: Path) -> list[str]:
    """The files that an index names, sorted."""
    try:
        body = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise ModelError(f"{index}: cannot be read as JSON ({error}). Make or fetch the model again.") from error
    places = body.get("weight_map") if isinstance(body, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise ModelError(
            f"{index}: its weight_map is {places!r:.60}, expected an object that names the file of each tensor. Make "
            "or fetch the model again."
        )
    for name, file in sorted(places.items()):
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise ModelError(f"{index}: {name} is said to be in {file!r}, expected a file of the same folder.")
    return sorted(set(places.values()))


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path}: cannot be read, and {INDEX} beside it names it ({error}). Fetch it again."
        ) from error


def _differ(name: str, *paths: Path) -> bool:
    found = set()
    for path in paths:
        with _opened(path) as shard:
            found.add(tensor_files.digest(shard.get_tensor(name)))
    return len(found) > 1
