"""Folders that are given for a model and hold none: what is wrong with them, and which folder is probably meant."""

from __future__ import annotations

from pathlib import Path

CONFIG, ADAPTER = "config.json", "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
SHOWN = 3


def why_no_model(place: Path) -> str:
    """A sentence on a path that holds no model as `save_pretrained` writes one; "" where it may hold one."""
    if place.is_file():
        return f"it is a file, not a folder. Give the folder that save_pretrained made{_beside(place)}."
    if not place.is_dir() or (place / CONFIG).is_file():
        return ""
    inside = sorted(path.name for path in place.iterdir() if any((path / name).is_file() for name in (CONFIG, ADAPTER)))
    if inside:
        shown = ", ".join(inside[-SHOWN:])
        return f"the folder itself holds no {CONFIG}. Give the folder in it that is meant: {shown}."
    if (place / ADAPTER).is_file():
        return f"it is an adapter ({ADAPTER}), not a model. Give the model that it was made from."
    if any((place / name).is_file() for name in ADAPTER_WEIGHTS):
        return f"it holds the weights of an adapter and no {ADAPTER}. Save the adapter again, or copy that file to it."
    return f"the folder holds no {CONFIG}. Save the model again, or copy the one of the unedited model to it."


def _beside(file: Path) -> str:
    return f", {file.parent}" if any((file.parent / name).is_file() for name in (CONFIG, ADAPTER)) else ""
