"""A method as its authors wrote it: a function that changes a model, run as an editor.

    edit(model, tokenizer, requests)                     changes the model in place, or returns another one
    edit(model, tokenizer, requests, hparams)            with what --hparams holds, unread
    apply_..._to_model(model, tok, requests, hparams, copy=False, return_orig_weights=False, ...)
                                                         as the field's code has it; returns (model, originals)

Requests come in the field's own dictionaries. What the function changes becomes an Edit, so everything else (sessions,
undo, controls, sequences by calling it again on the edited model) is as for an editor that is written for us. The
function gets the model itself, on copies of all of its weights: it takes as much memory again.
"""

from __future__ import annotations

import inspect
import random
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from editsafety.artifacts import ArtifactStore
from editsafety.datasets.request import EditRequest
from editsafety.editors import Editor, Traits
from editsafety.editors.as_published import UnreadHparams, as_dictionary
from editsafety.edits.behaviour import CLOSE, Outcome, answers_of, apart
from editsafety.edits.edit import Delta, Edit, Replace
from editsafety.edits.factors import low_rank
from editsafety.edits.seal import Frame
from editsafety.edits.session import EditSession
from editsafety.edits.surroundings import Surroundings
from editsafety.errors import EditorError, ModelError, UsageError
from editsafety.model import room
from editsafety.model.handle import ModelHandle

# Copies are made, and originals kept, by the session; the field's functions have switches for both.
SWITCHES: Mapping[str, bool] = {"copy": False, "return_orig_weights": False, "keep_original_weight": False}
NEEDED = 3  # model, tokenizer, requests
HABITS = ("pad_token", "padding_side", "use_cache", "pad_token_id")  # what no pass computes with


class GivenHparams(types.SimpleNamespace):
    """What a function gets as its hyperparameters: `hparams.v_lr` and `hparams["v_lr"]` are the same."""

    def __getitem__(self, name: str) -> Any:
        return vars(self)[name]


class FunctionEditor(Editor):
    """Calls a function; `around` makes an editor of one."""

    Hparams = UnreadHparams
    traits: ClassVar[Traits] = Traits(batch=True)
    folder = "functions"  # under hparams/, where nothing ships
    function: ClassVar[Callable[..., Any]]

    def __init__(
        self, handle: ModelHandle, hparams: Any, artifacts: ArtifactStore, *, name: str, seed: int = 0
    ) -> None:
        super().__init__(handle, hparams, artifacts, name=name, seed=seed)
        if _takes_hparams(self.function, needed=True) and not self.given:
            raise UsageError(f"{name} takes hyperparameters and was given none: give --hparams FILE (YAML or JSON).")

    @property
    def given(self) -> dict[str, Any]:
        """What the file of hyperparameters holds."""
        return dict(self.hparams.model_dump())

    def edit(self, requests: Sequence[EditRequest], carry: Mapping[str, Tensor] | None = None) -> Edit:
        """What the function makes of the model: low-rank deltas where a few factors do, else whole parameters.

        Random numbers of torch, numpy and Python are seeded before, with the seed of the run. Raises EditorError when
        something else than a model comes back, a model of other parameters, or one that computes something else than
        its weights do.
        """
        self.refuse_none(requests)
        small = sum(p.numel() * p.element_size() for p in self.handle.model.parameters()) <= room.COPIED
        session = EditSession(self.handle, park="device" if small else "cpu", prove="never")
        with session:
            names = [name for name, one in self.handle.model.named_parameters() if one.is_floating_point()]
            session.borrow(names)
            _seed(self.seed)
            data = _Data.of(self.handle)
            came = type(self).function(
                self.handle.model, self.handle.tokenizer, *self._words(requests), **self._switches
            )
            settings = data.put_back()
            after = _model_in(came, self.name)
            another = after is not None and after is not self.handle.model
            served = answers_of(after, self.handle.tokenizer) if another else None  # before an adapter is merged
            changed = self._changed(session, after, names)
            deltas = tuple(self._delta(name, *both) for name, both in changed.items())
            data.renew_parameters()
        if session.leftovers:
            raise EditorError(f"{self.name} left something behind: {'; '.join(session.leftovers)}.")
        ids = tuple(request.id for request in requests)
        told = {"put_back": "; ".join(settings)} if settings else {}
        ranks = {f"rank of {one.site.module}": one.left.shape[1] for one in deltas if not isinstance(one, Replace)}
        edit = Edit(self.name, ids, self.handle.identity, deltas, notes={**ranks, "tensors": len(deltas), **told})
        if served is not None:
            # One that comes back in another dtype rounds on its way as well; what that does to its weights is measured.
            same = getattr(after, "dtype", None) == self.handle.model.dtype
            self._refuse_other_function(served, edit, CLOSE[self.handle.spec.dtype] if same else max(CLOSE.values()))
        return edit

    def _refuse_other_function(self, served: Outcome, edit: Edit, close: float) -> None:
        """Raise EditorError unless the model, edited, computes what the model that was returned computes."""
        session = EditSession(self.handle, prove="never")
        with session:
            session.apply(edit)
            answers = answers_of(self.handle.model, self.handle.tokenizer)
        if isinstance(served, str) or isinstance(answers, str):
            if isinstance(served, str) and not isinstance(answers, str):
                raise EditorError(f"{self.name} returned a model that cannot be run: {served}.")
            return
        if not (distance := apart(served, answers)) <= close:
            raise EditorError(
                f"{self.name} returned a model that computes something else than its weights do in {self.handle.name}: "
                f"on a fixed sentence logits are {distance:.2g} of the largest apart. Hooks, other modules, another "
                "config and a head of its own are no part of such an edit; a sidecar of an editor can be."
            )

    def _words(self, requests: Sequence[EditRequest]) -> tuple[Any, ...]:
        rows = [as_dictionary(request) for request in requests]
        return (rows, GivenHparams(**self.given)) if _takes_hparams(self.function) else (rows,)

    @property
    def _switches(self) -> dict[str, bool]:
        known = inspect.signature(self.function).parameters
        return {name: value for name, value in SWITCHES.items() if name in known}

    def _changed(
        self, session: EditSession, after: nn.Module | None, names: Sequence[str]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The parameters that are not what they were, before and after."""
        merged = _merged(after) if after is not None else self.handle.model
        now = dict(merged.named_parameters())
        found = {}
        for name in names:
            before, value = session.original(name), now.get(name)
            if value is None or value.shape != before.shape:
                has = "lacks it" if value is None else f"has it as {list(value.shape)}"
                raise EditorError(
                    f"{self.name} returned a model of other parameters: {name} is {list(before.shape)} in "
                    f"{self.handle.name}, and the returned model {has}. Return the model, edited, or nothing."
                )
            value = value.detach().to(before)
            if not torch.equal(value, before):
                found[name] = before.clone(), value.clone()
        return found

    def _delta(self, name: str, before: Tensor, after: Tensor) -> Delta:
        if before.ndim == 2 and name.endswith(".weight"):
            try:
                site = self.handle.site(name.removesuffix(".weight"))
            except ModelError:  # an embedding, or whatever else is no projection
                return Replace(name, after)
            found = low_rank(site, before, after)
            if found is not None:
                return found
        return Replace(name, after)


@dataclass(frozen=True)
class _Data:
    """What a method may change beside the weights without changing what the model computes from them.

    Training mode, which parameters learn, gradients, no cache meanwhile, a pad token, a note on a module, settings of
    torch and of the process: most methods leave some of it, none is in a model that is saved, and so none of it is the
    method's edit or its fault. Hooks, functions that were replaced and modules that were built in stay where they are:
    they run, and are told as left behind.
    """

    frame: Frame
    surroundings: Surroundings
    # Padding and the cache: of the tokenizer and the configs, by object and name.
    habits: tuple[tuple[Any, str, Any], ...]

    @classmethod
    def of(cls, handle: ModelHandle) -> _Data:
        """Remember it now."""
        frame = Frame.of(handle)
        things = [one.thing for one in frame.objects]
        habits = tuple((one, name, getattr(one, name)) for one in things for name in HABITS if hasattr(one, name))
        return cls(frame, Surroundings.now(), habits)

    def put_back(self) -> tuple[str, ...]:
        """Set it as it was; what of torch and of the process was another one, in words."""
        said = self.surroundings.settle()
        for module in self.frame.modules.values():
            module.settle()
        for parameter in self.frame.parameters.values():
            with suppress(RuntimeError):  # of another dtype by now: that is put back, and told, with its values
                parameter.parameter.requires_grad_(parameter.requires_grad)
                parameter.parameter.grad = parameter.grad
        for thing, name, was in self.habits:
            if getattr(thing, name, None) != was:
                setattr(thing, name, was)
        return said

    def renew_parameters(self) -> None:
        """Put the model's own parameters where a method has put new ones, once these have been read."""
        for module in self.frame.modules.values():
            module.renew()


def around(function: Callable[..., Any], name: str) -> type[FunctionEditor]:
    """An editor class that calls this function. Raises UsageError for one that does not take what it is called with."""
    known = inspect.signature(function).parameters.values()
    places = [one for one in known if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(places) < NEEDED and not any(one.kind == one.VAR_POSITIONAL for one in known):
        raise UsageError(
            f"{name}: a function that edits takes (model, tokenizer, requests) or (model, tokenizer, requests, "
            f"hparams), found ({', '.join(one.name for one in known)})."
        )
    body = {"function": staticmethod(function), "__module__": function.__module__, "__doc__": function.__doc__}
    return type(function.__name__, (FunctionEditor,), body)


def _takes_hparams(function: Callable[..., Any], *, needed: bool = False) -> bool:
    """Whether a function takes a fourth thing by its place; with `needed`, whether it must be given one."""
    known = inspect.signature(function).parameters.values()
    places = [one for one in known if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(places) <= NEEDED or places[NEEDED].name in SWITCHES:
        return False
    return not needed or places[NEEDED].default is inspect.Parameter.empty


def _model_in(came: Any, name: str) -> nn.Module | None:
    """The model that a function returned, alone or first in a tuple; None for nothing."""
    first = came[0] if isinstance(came, tuple) and came else came
    if first is not None and not isinstance(first, nn.Module):
        raise EditorError(
            f"{name}() returned {type(came).__name__}, expected the edited model, a tuple that begins with it, or "
            "nothing where the model was changed in place."
        )
    return first


def _merged(model: nn.Module) -> nn.Module:
    """The weights that a model is served with: an adapter of peft's is merged into them."""
    merge: Any = getattr(model, "merge_and_unload", None)
    merged: nn.Module = model if merge is None else merge()
    return merged


def _seed(seed: int) -> None:
    """Of everything that a function may draw from; the session puts the states back."""
    torch.manual_seed(seed)
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)
