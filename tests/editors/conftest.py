"""Editors on tiny models, ready to edit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from editsafety import editors
from editsafety.artifacts import ArtifactStore
from editsafety.model.handle import ModelHandle
from tests import tiny

Make = Callable[..., editors.Editor]

NUMBERS: dict[str, dict[str, Any]] = {
    "rome": {
        "layers": [1], "v_num_grad_steps": 12, "v_lr": 0.5, "v_weight_decay": 0.01, "clamp_norm_factor": 10,
        "mom2_adjustment": True, "context_template_length_params": [[8, 3]],
    },
    "memit": {
        "layers": [0, 1], "v_num_grad_steps": 8, "v_lr": 0.5, "v_weight_decay": 0.01, "clamp_norm_factor": 10,
        "mom2_update_weight": 1, "context_template_length_params": [[8, 3]],
    },
    "emmet": {
        "layers": [1], "v_num_grad_steps": 8, "v_lr": 0.5, "v_weight_decay": 0.01, "clamp_norm_factor": 10,
        "mom2_update_weight": 1, "emmet_lambda": 0.1, "context_template_length_params": [[8, 3]],
    },
    "alphaedit": {
        "layers": [0, 1], "v_num_grad_steps": 8, "v_lr": 0.5, "v_weight_decay": 0.01, "clamp_norm_factor": 10,
        "nullspace_threshold": 0.02, "L2": 0.01, "context_template_length_params": [[8, 3]],
    },
    "ft": {"layers": [1], "num_steps": 15, "lr": 0.01, "norm_constraint": None, "loss": "target_new"},
    "kn": {"steps": 5, "adaptive_threshold": 0.2, "p": 0.4},
    "lora": {
        "layers": [1], "target_modules": ["attention_out", "mlp_in"], "lora_type": "lora", "rank": 2, "lora_alpha": 8,
        "lora_dropout": 0.1, "num_steps": 8, "lr": 0.02,
    },
    "serac": {
        "training": "pocket-world/pool", "width": 16, "num_layers": 1, "num_heads": 2, "num_steps": 2, "batch_size": 4,
        "lr": 0.001,
    },
    "ike": {"k": 1, "demonstrations": "pocket-world/pool", "select": "lines"},
    "mend": {
        "layers": [0, 1], "parts": ["mlp_in", "mlp_out"], "rank": 8, "edit_lr": -0.003, "lr": 0.001, "lr_lr": 0.001,
        "cedit": 1.0, "cloc": 1.0, "max_iters": 12, "accumulate_bs": 4, "val_interval": 4, "val_steps": 4,
        "early_stop_patience": 100, "training_requests": "pocket-world/normal",
    },
    "grace": {"layer": 1, "part": "mlp_out", "edit_lr": 1.0, "n_iter": 12, "eps": 0.1, "val_init": "cold"},
    "wise": {
        "layer": 1, "part": "mlp_out", "scope": "subject", "mask_ratio": 0.5, "edit_lr": 0.5, "n_iter": 12,
        "norm_constraint": 1.0, "act_margin": [1, 5, 2], "act_ratio": 0.8, "save_freq": 2, "merge_freq": 4,
        "densities": 0.53, "context_template_length_params": [[8, 3]],
    },
    "noop": {},
}  # fmt: skip


def material(kind: type[editors.Editor], place: Path) -> dict[str, Any]:
    """The hyperparameters that name a file to prepare from: texts that the tiny tokenizers know."""
    if "mom2_corpus" not in kind.Hparams.model_fields:
        return {}
    corpus = place / "texts.txt"
    corpus.write_text("\n".join(tiny.SENTENCES), encoding="utf-8")
    return {"mom2_corpus": str(corpus)}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(name, handle, seed=0, **changed numbers): an editor, prepared on a small corpus unless told not to."""

    def made(name: str, handle: ModelHandle, *, seed: int = 0, prepare: bool = True, **changes: Any) -> editors.Editor:
        kind = editors.load(name)
        values = {**material(kind, tmp_path), **NUMBERS[kind.folder or name], **kind.overrides, **changes}
        editor = kind(handle, kind.Hparams(**values), ArtifactStore(tmp_path / "store"), name=name, seed=seed)
        if prepare:
            editor.prepare()
        return editor

    return made
