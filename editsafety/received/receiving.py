"""Handed: an edited model that somebody hands over, whatever it comes as, turned into an edit of the unedited one.

A whole model or a peft adapter becomes the tensors that differ, to be put in place of the old ones; a saved edit is one
already. Before that is believed, the edited model has to compute what the model that was handed over computes: weights
are not everything, a config can differ where no tensor does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from editsafety import editors, tensor_files
from editsafety.edits.edit import Delta, Edit, Replace
from editsafety.edits.factors import low_rank
from editsafety.errors import EditError, EditSafetyError, ModelError, UsageError
from editsafety.model.handle import ModelHandle
from editsafety.model.saved_folders import why_no_model
from editsafety.received import adapters, difference, folders, tying
from editsafety.received.probe import ServedProbe

MOST = 5  # names in a sentence


@dataclass(frozen=True, eq=False)
class Handed:
    """What was handed over, as an edit of the unedited model."""

    # Of the model, or the file.
    name: str
    # "model", "edit" or "adapter".
    kind: str
    edit: Edit
    # How many tensors were looked at.
    compared: int
    # What the model handed over gives for a text; None for a saved edit, which is nothing but its weights.
    probe: ServedProbe | None = None
    # Whether one end of the model differs from the other, and both are one matrix in the unedited model.
    untied: bool = False
    # Whether the unedited model's tokenizer stands in for one that was not handed over.
    borrowed: bool = False
    # What was handed over and is not in the model: tensors it has no place for, files that nobody reads.
    dropped: tuple[str, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader has to know of how it was read, in sentences."""
        said = []
        if self.borrowed:
            said.append(f"{self.name} holds no tokenizer: that of the unedited model is used")
        if self.untied:
            said.append(f"embedding and head of {self.name} differ, which are one matrix in the unedited model")
        return (*said, *([self.lost] if self.dropped else []))

    @property
    def lost(self) -> str:
        """What was handed over and is not in the model, in a sentence."""
        listed = ", ".join(self.dropped[:MOST]) + (" ..." if len(self.dropped) > MOST else "")
        return f"{self.name} holds what the model has no place for, so it was not loaded: {listed}"

    def refuse_other_function(self, handle: ModelHandle) -> None:
        """Raise ModelError unless the model, edited by now, computes what the model that was handed over computes."""
        if self.probe is not None and not self.probe.agrees(handle):
            raise ModelError(
                f"{self.name} computes something else than its weights do in {handle.name}: their configs differ in "
                "more than names. Give the model that it was made from, or a copy of it with the same config.json."
            )

    def taking(self, handle: ModelHandle) -> AbstractContextManager[None]:
        """Inside the block the model, unedited, takes the edit: its ends have a matrix each where the edit needs it."""
        return tying.untied(handle) if self.untied else nullcontext()


def receive(handle: ModelHandle, place: str, texts: Sequence[str], editor: str = "") -> Handed:
    """What is at `place`, as an edit of the model in `handle`, which is left as it is.

    `place` is a saved edit (.safetensors), the folder of a peft adapter, or anything that a model can be loaded from;
    one without a tokenizer is read with that of `handle`. `editor` names the editor whose sidecars a saved edit needs,
    when its own note does not do. `texts` are tried with both tokenizers. Raises EditError, ModelError or UsageError.
    """
    path = Path(place).expanduser()
    if path.suffix == ".safetensors":
        edit = saved_edit(path, editor)
        return Handed(path.name, "edit", edit, len(difference.saved(handle)))
    if adapters.holds_adapter(path):
        kind, (other, probe) = "adapter", adapters.merge(handle, path, lambda served: ServedProbe.of(served, texts))
    else:
        kind, other = "model", ModelHandle.load(replace(handle.spec, name=place, revision=None), handle.tokenizer)
        probe = ServedProbe.of(other, texts)
    apart = tying.is_tied(handle) is not tying.is_tied(other)
    if apart and tying.is_tied(other):
        tying.untie(other.model)
    dropped = [name for name in other.dropped if name not in handle.dropped]
    handed = Handed(other.name, kind, Edit(other.name, (), handle.identity), 0, probe, apart and tying.is_tied(handle))
    with handed.taking(handle):
        difference.refuse_unlike(handle, other, texts)
        changed = difference.differing(handle, other)
        parameters, compared = dict(handle.model.named_parameters()), len(difference.saved(handle))
    if strange := sorted(changed.keys() - parameters.keys()):
        raise ModelError(f"{strange[0]} of {other.name} differs and is no weight but a buffer, which no edit changes.")
    return replace(
        handed,
        edit=replace(handed.edit, deltas=tuple(Replace(name, value) for name, value in changed.items())),
        compared=compared,
        borrowed=kind == "model" and other.tokenizer is handle.tokenizer,
        dropped=(*dropped, *folders.unread(path)),
    )


def with_factors(handle: ModelHandle, edit: Edit) -> Edit:
    """The same edit with two thin factors in place of every whole matrix that they make up."""
    found: list[Delta] = []
    for delta in edit.deltas:
        factors = None
        if isinstance(delta, Replace) and delta.parameter.endswith(".weight"):
            try:
                site = handle.site(delta.parameter.removesuffix(".weight"))
            except ModelError:  # an embedding, a norm
                site = None
            if site is not None:
                factors = low_rank(site, handle.model.get_parameter(delta.parameter).detach(), delta.value)
        found.append(delta if factors is None else factors)
    return replace(edit, deltas=tuple(found))


def saved_edit(path: Path, editor: str = "") -> Edit:
    """A saved edit, with the sidecars of the editor that made it (or of `editor`).

    Raises EditError when it is not whole, or when its sidecars are those of an editor that is not known here.
    """
    try:
        name = editor or str(tensor_files.load(path)[1].get("editor", ""))
    except EditSafetyError as error:
        beside = "" if why_no_model(path.parent) else f" Of a model give the folder, {path.parent}."
        raise EditError(f"{error}{beside}") from error
    try:
        # A file does not decide what code is run: only whoever gives the command may name one.
        sidecars = editors.load(name).sidecars if editor or ".py:" not in name else {}
    except UsageError:
        if editor:
            raise
        sidecars = {}  # the note in a file may name what is not here; Edit.load says whether anything is needed
    return Edit.load(path, sidecars)
