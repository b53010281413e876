"""Folders: files with weights beside a checkpoint that nothing of it reads, such as a side memory saved apart."""

from __future__ import annotations

import re
from pathlib import Path

WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".npy", ".pkl", ".pickle"}
# What transformers and peft read, the same weights in other formats, and what a trainer leaves behind.
KNOWN = re.compile(
    r"(model|pytorch_model|adapter_model|consolidated|diffusion_pytorch_model)([-._]\d+.*|[-.]fp\d+.*)?\.\w+"
    r"|optimizer.*|scheduler.*|scaler.*|rng_state.*|training_args.*|tokenizer.*"
)


def unread(folder: Path) -> tuple[str, ...]:
    """Names of the files in a local folder that look like weights and are read by nobody, sorted."""
    if not folder.is_dir():
        return ()
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix in WEIGHTS)
    return tuple(name for name in names if not KNOWN.fullmatch(name))
