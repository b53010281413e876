"""Provenance: what the numbers of a run were computed with."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import torch

from editsafety import __version__
from editsafety.model.handle import ModelHandle


def of_model(handle: ModelHandle) -> dict[str, Any]:
    """A loaded model, as JSON values."""
    device = torch.cuda.get_device_name(handle.device) if handle.device.type == "cuda" else handle.device.type
    return {
        "fingerprint": handle.identity,
        "parameters": handle.parameters,
        "device": device,
        "attention": str(handle.model.config._attn_implementation),
        "family": handle.architecture.model_type,
        "threads": torch.get_num_threads(),
        **{name: value for name, value in asdict(handle.spec).items() if name not in ("device", "offline")},
    }


def of_software() -> dict[str, str]:
    """Versions and machine."""
    from transformers import __version__ as transformers

    system = f"{platform.system()} {platform.machine()}"
    found = {"editsafety": __version__, "python": platform.python_version(), "torch": torch.__version__}
    return {**found, "transformers": transformers, "system": system}
