"""An edit as an adapter of peft's: a folder that peft, vLLM and others put beside the model, rank by rank.

A low-rank edit W + L R is what LoRA serves with A = R, B = L and a scale of 1. Whole parameters become factors where a
few give the same matrix (`edits/factors`); what has none, and what runs beside the model, cannot be served so.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from editsafety.edits.edit import Edit, LowRank
from editsafety.errors import EditError, UsageError
from editsafety.model.handle import ModelHandle
from editsafety.model.sites import Layout
from editsafety.received import refuse_to_write
from editsafety.received.adapters import CONFIG, WEIGHTS
from editsafety.received.receiving import with_factors


def in_factors(handle: ModelHandle, edit: Edit) -> dict[str, LowRank]:
    """Every delta of an edit in factors, by module; several of one module are one.

    Raises EditError, naming the parameter, for one that is no product of thin factors.
    """
    found: dict[str, LowRank] = {}
    for factors in with_factors(handle, edit).deltas:
        if not isinstance(factors, LowRank):
            raise EditError(
                f"this edit by {edit.editor} changes {factors.parameter} in a way that no few factors make up, so no "
                "adapter can hold it. Write the whole checkpoint instead: leave --adapter out."
            )
        before = found.get(factors.site.module)
        if before is not None:
            both = torch.cat([before.left, factors.left], 1), torch.cat([before.right, factors.right])
            factors = LowRank(factors.site, *both)
        found[factors.site.module] = factors
    return found


def write_adapter(handle: ModelHandle, edit: Edit, folder: Path) -> None:
    """Write an edit of this model as an adapter to `folder`, whole or not at all; the model is not touched.

    Raises EditError for an edit of another model, with sidecars, or with a change that has no factors; UsageError for a
    folder that is there, or cannot be written.
    """
    refuse_to_write(edit, folder)
    if edit.made_for != handle.identity:
        raise EditError(
            f"this edit was made for a model with fingerprint {edit.made_for[:12]}; {handle.name} is "
            f"{handle.identity[:12]}. Load the model that it was made for."
        )
    factors = in_factors(handle, edit)
    tensors: dict[str, Tensor] = {}
    for module, delta in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = delta.right.detach().float().cpu().contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = delta.left.detach().float().cpu().contiguous()
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
            whole = Path(place) / folder.name
            whole.mkdir()
            save_file(tensors, whole / WEIGHTS, {"format": "pt"})
            (whole / CONFIG).write_text(json.dumps(_config(handle, factors), indent=1) + "\n", encoding="utf-8")
            whole.replace(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror or error}). Give another --out.") from error


def _config(handle: ModelHandle, factors: Mapping[str, LowRank]) -> dict[str, Any]:
    ranks = {module: delta.left.shape[1] for module, delta in factors.items()}
    most = max(ranks.values(), default=1)
    others = {module: rank for module, rank in ranks.items() if rank != most}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": handle.spec.name,
        "r": most,
        "lora_alpha": most,  # its scale is alpha / r: 1 everywhere
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "fan_in_fan_out": any(delta.site.layout is Layout.IN_OUT for delta in factors.values()),
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    }
