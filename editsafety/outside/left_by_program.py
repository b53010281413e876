"""What a program left in its folder, as an edit of the model: a checkpoint, an adapter, a saved edit, changed tensors.

A file does not say that it is right: an edit that was saved has to be one of this model, and a checkpoint or an adapter
has to compute what its weights compute in this model, as for a model that is handed over (`received`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from editsafety.edits.edit import Edit, Replace
from editsafety.edits.session import EditSession
from editsafety.errors import EditorError
from editsafety.model.handle import ModelHandle
from editsafety.received.adapters import holds_adapter
from editsafety.received.receiving import receive, saved_edit, with_factors

PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
MOST = 5  # names in a sentence


def read_left(handle: ModelHandle, out: Path) -> Edit | None:
    """The edit that makes of the model, as it is now, what is in `out`; None for an empty folder.

    Factors stand in place of whole matrices where a few make them up. Raises EditSafetyError for what is no edit of
    this model, or more than one thing.
    """
    names = sorted(path.name for path in out.iterdir())
    tensors = [name for name in names if name.endswith(".safetensors")]
    if not names:
        return None
    if holds_adapter(out) or (out / "config.json").is_file():
        return _of_model(handle, out)
    if len(tensors) != 1:
        listed = ", ".join(names[:MOST]) + (" ..." if len(names) > MOST else "")
        pickled = any(Path(name).suffix in PICKLED for name in names)
        said = "Pickled weights are not loaded: save them as safetensors." if pickled else ""
        raise EditorError(
            f"{{out}} holds {listed}, expected a checkpoint (config.json and weights), an adapter of peft's, or one "
            f".safetensors file with an edit or the tensors that changed. {said}".rstrip()
        )
    path = out / tensors[0]
    edit = _saved(handle, path) if _is_ours(path) else _of_tensors(handle, path)
    return with_factors(handle, edit)


def _of_model(handle: ModelHandle, out: Path) -> Edit:
    """The difference of a checkpoint, or of the model with an adapter merged into it."""
    handed = receive(handle, str(out), ())
    if handed.untied:
        raise EditorError(
            f"embedding and head differ in what was left, and are one matrix in {handle.name}: no edit of it does that."
        )
    if handed.dropped:
        raise EditorError(handed.lost)
    edit = with_factors(handle, handed.edit)
    with EditSession(handle, prove="never") as session:
        session.apply(edit)
        handed.refuse_other_function(handle)
    return edit


def _is_ours(path: Path) -> bool:
    """Whether a file has our header, and so is an edit that was saved."""
    try:
        with safe_open(path, framework="pt") as file:
            return "editsafety" in (file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise EditorError(f"{path.name}: not a whole safetensors file ({error}).") from error


def _saved(handle: ModelHandle, path: Path) -> Edit:
    edit = saved_edit(path)
    if edit.sidecars:
        raise EditorError(
            f"{path.name}: is an edit that acts by code beside the model, which no program can hand over."
        )
    # A program knows the model that it was given; what that was made from it cannot know.
    if edit.made_for not in (handle.identity, handle.fingerprint()):
        raise EditorError(
            f"{path.name}: is an edit of a model with fingerprint {edit.made_for[:12]}; what was given is "
            f"{handle.fingerprint()[:12]}."
        )
    return replace(edit, made_for=handle.identity)


def _of_tensors(handle: ModelHandle, path: Path) -> Edit:
    parameters = dict(handle.model.named_parameters(remove_duplicate=False))
    found: dict[str, Tensor] = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no mapping)
            found[name] = _fitting(parameters, name, file.get_tensor(name), path)
    changed = {name: now for name, now in found.items() if not torch.equal(parameters[name].detach(), now)}
    return Edit(path.stem, (), handle.identity, tuple(Replace(name, now) for name, now in sorted(changed.items())))


def _fitting(parameters: Mapping[str, Tensor], name: str, value: Tensor, path: Path) -> Tensor:
    """A tensor of the file, where and as the parameter of that name is."""
    here = parameters.get(name)
    if here is None:
        raise EditorError(f"{path.name}: holds {name!r}, and the model has no weight of that name.")
    if here.shape != value.shape:
        raise EditorError(f"{path.name}: {name} is {list(value.shape)}; in the model it is {list(here.shape)}.")
    return value.to(here)
