"""Handed: an edited model that somebody hands over, whatever it comes as, turned into an edit of the unedited one.

A whole model or a peft adapter becomes the tensors that differ, to be put in place of the old ones; a saved edit is one
already. Before that is believed, the edited model has to compute what the model that was handed over computes: weights
are not everything, a config can differ where no tensor does.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from editsafety import editors, tensor_files
from editsafety.edits.behaviour import SENTENCE
from editsafety.edits.edit import Edit, Replace
from editsafety.errors import EditError, EditSafetyError, ModelError, UsageError, masked
from editsafety.model.handle import ModelHandle
from editsafety.received import difference

CLOSE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 5e-3}  # of the largest logit; equal weights give equal bits
PROBED = 8  # positions whose logits are compared


@dataclass(frozen=True, eq=False)
class Handed:
    """What was handed over, as an edit of the unedited model.

    `kind` is "model", "edit" or "adapter"; `compared` the number of tensors that were looked at. `probe` are ids and
    the logits that the model handed over gave for them; None for a saved edit, which is nothing but its weights.
    """

    name: str
    kind: str
    edit: Edit
    compared: int
    probe: tuple[tuple[int, ...], Tensor] | None = None

    @torch.no_grad()
    def refuse_other_function(self, handle: ModelHandle) -> None:
        """Raise ModelError unless the model, edited by now, computes what the model that was handed over computes."""
        if self.probe is None:
            return
        ids, expected = self.probe
        found = handle.logits(handle.batch([ids]))[0, -PROBED:].cpu()
        finite = expected[torch.isfinite(expected)]
        room = CLOSE[handle.spec.dtype] * float(finite.abs().max() if len(finite) else 1.0)
        if not torch.allclose(found, expected, rtol=0.0, atol=room, equal_nan=True):
            raise ModelError(
                f"{self.name} computes something else than its weights do in {handle.name}: their configs differ in "
                "more than names. Give the model that it was made from, or a copy of it with the same config.json."
            )


def receive(handle: ModelHandle, place: str, texts: Sequence[str], editor: str = "") -> Handed:
    """What is at `place`, as an edit of the model in `handle`, which is left as it is.

    `place` is a saved edit (.safetensors), the folder of a peft adapter, or anything that a model can be loaded from;
    `editor` names the editor whose sidecars a saved edit needs, when its own note does not do. `texts` are tried with
    both tokenizers. Raises EditError, ModelError or UsageError.
    """
    path = Path(place).expanduser()
    if path.suffix == ".safetensors":
        edit = saved_edit(path, editor)
        return Handed(path.name, "edit", edit, len(difference.saved(handle)))
    adapter = (path / "adapter_config.json").is_file()
    other = _merged(handle, path) if adapter else ModelHandle.load(replace(handle.spec, name=place, revision=None))
    difference.refuse_unlike(handle, other, texts)
    changed = difference.differing(handle, other)
    parameters = dict(handle.model.named_parameters())
    if strange := sorted(changed.keys() - parameters.keys()):
        raise ModelError(f"{strange[0]} of {other.name} differs and is no weight but a buffer, which no edit changes.")
    deltas = tuple(Replace(name, value) for name, value in changed.items())
    edit = Edit(other.name, (), handle.identity, deltas)
    compared = len(difference.saved(handle))
    return Handed(other.name, "adapter" if adapter else "model", edit, compared, _probe(other, texts))


def saved_edit(path: Path, editor: str = "") -> Edit:
    """A saved edit, with the sidecars of the editor that made it (or of `editor`).

    Raises EditError when it is not whole, or when its sidecars are those of an editor that is not known here.
    """
    try:
        name = editor or str(tensor_files.load(path)[1].get("editor", ""))
    except EditSafetyError as error:
        raise EditError(str(error)) from error
    try:
        sidecars = editors.load(name).sidecars
    except UsageError:
        if editor:
            raise
        sidecars = {}  # the note in a file may name what is not here; Edit.load says whether anything is needed
    return Edit.load(path, sidecars)


def _merged(handle: ModelHandle, folder: Path) -> ModelHandle:
    """The unedited model with a peft adapter merged into a copy of its weights."""
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    try:
        from peft import PeftModel
    except ImportError as error:
        raise UsageError(
            f"{folder}: is a peft adapter, and peft is not installed here. Install it: pip install 'editsafety[lora]'."
        ) from error
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(f"{folder}: has no adapter_model.safetensors, and pickled weights are not loaded. Save it so.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # from peft to itself, about transformers
            warnings.filterwarnings("error", ".*missing adapter keys")  # it would be merged in part
            merged = PeftModel.from_pretrained(copy.deepcopy(handle.model), str(folder)).merge_and_unload()
        own = (folder / "tokenizer_config.json").is_file()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True) if own else handle.tokenizer
    except (
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        UserWarning,
        ValueError,
        SafetensorError,
    ) as error:
        reason = masked(" ".join(str(error).split()))[:200]
        raise ModelError(f"{folder}: this adapter cannot be merged into {handle.name}: {reason}") from error
    return ModelHandle.of(merged, tokenizer, name=folder.name)


@torch.no_grad()
def _probe(handle: ModelHandle, texts: Sequence[str]) -> tuple[tuple[int, ...], Tensor]:
    """The longest text that fits, and the last logits that the model gives for it, `[8, vocab]` or fewer, on the CPU.

    Long, because what a config says about positions and windows shows late.
    """
    rows = [handle.ids(text) for text in (SENTENCE, *texts)]
    ids = max((row for row in rows if len(row) <= handle.context), key=len)
    return tuple(ids), handle.logits(handle.batch([ids]))[0, -PROBED:].cpu()
