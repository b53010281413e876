"""Model files: whether what a model is loaded from is still what it was, told without reading it. No torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def state_of_files(model: str) -> str:
    """sha256 over names, sizes and times of a local model's files; empty for a name that is no file or folder here.

    The same state means the same weights. Another one may be a copy or a `touch`: then the model has to be loaded, and
    its fingerprint compared.
    """
    place = Path(model.removeprefix("random:").rpartition(":")[0] if ".py:" in model else model.removeprefix("random:"))
    place = place.expanduser()
    files = sorted(path for path in place.iterdir() if path.is_file()) if place.is_dir() else [place]
    seen = [(path.name, *_size_and_time(path)) for path in files if path.is_file()]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest() if seen else ""


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
