"""Provenance: what the numbers of a run were computed with."""

from __future__ import annotations

import platform

import torch

from editsafety import __version__, discovery
from editsafety.model.handle import ModelHandle
from editsafety.runs.facts import ModelFacts


def of_model(handle: ModelHandle) -> ModelFacts:
    """A loaded model; its noise is not measured here."""
    spec = handle.spec
    return ModelFacts(
        model=handle.name,
        fingerprint=handle.identity,
        parameters=handle.parameters,
        device=" + ".join(_name_of(device) for device in handle.devices),
        dtype=spec.dtype,
        attention=str(handle.model.config._attn_implementation),
        family=handle.kind,
        source=spec.name,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
        chat="" if handle.chat is None else str(handle.chat),
        threads=torch.get_num_threads(),
        layers=handle.layers,
        tokenizer=handle.spelling,
    )


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def of_software() -> dict[str, str]:
    """Versions and machine, and every plug-in that is installed: it takes part in a run without being asked for."""
    from transformers import __version__ as transformers

    system = f"{platform.system()} {platform.machine()}"
    found = {"editsafety": __version__, "python": platform.python_version(), "torch": torch.__version__}
    plugins = {f"plug-in {name}": said for name, said in discovery.plugins().items()}
    return {**found, "transformers": transformers, "system": system, **plugins}
