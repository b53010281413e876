"""What a model was before, so that it can be proved to be that again.

`Frame` remembers structure and settings by reference (modules, hooks, modes, flags) and can put them back for nothing;
`Seal` remembers values as checksums; `Keepsake` holds full copies for the day when an editor wrote where it should not.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from editsafety.edits.behaviour import SENTENCE
from editsafety.edits.checksum import checksum
from editsafety.edits.states import ModuleState, ObjectState, ParameterState, own_hooks
from editsafety.model.handle import ModelHandle
from editsafety.model.room import COPIED, has_room

Place = tuple[Any, ...]
Random = tuple[Tensor, Any, list[Tensor], Any]  # states of torch, of Python, of every GPU and of numpy


@dataclass(frozen=True)
class Seal:
    """Checksum, dtype, shape and device of every tensor of a model."""

    tensors: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, handle: ModelHandle) -> Seal:
        """Read every byte of the model once."""
        return cls({name: _sealed(tensor) for name, tensor in handle.tensors().items()})

    @property
    def digest(self) -> str:
        """sha256 over all of it: equal digests, equal tensors."""
        rows = sorted((name, *map(str, about)) for name, about in self.tensors.items())
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def renewed_beside(self, handle: ModelHandle, places: Mapping[str, Place]) -> Seal:
        """A seal of the model now, in which those tensors that are at these places are as in this one, unread."""
        known, tensors = self.tensors, handle.tensors()
        same = {name for name, tensor in tensors.items() if name in known and place_of(tensor) == places.get(name)}
        return Seal({n: known[n] if n in same else _sealed(tensor) for n, tensor in tensors.items()})

    def changed(self, later: Seal) -> tuple[str, ...]:
        """Names of tensors whose value, dtype, shape or device differs, that are new, or that are gone."""
        names = self.tensors.keys() | later.tensors.keys()
        return tuple(sorted(name for name in names if self.tensors.get(name) != later.tensors.get(name)))


@dataclass(frozen=True)
class Frame:
    """Structure and settings of a model, its handle and its tokenizer, by reference; restoring them costs no memory."""

    model: nn.Module
    tokenizer: Any
    modules: dict[str, ModuleState]
    parameters: dict[str, ParameterState]
    objects: tuple[ObjectState, ...]
    settings: dict[str, Any]
    handle: dict[str, Any]
    rng: Random

    @classmethod
    def of(cls, handle: ModelHandle) -> Frame:
        """Remember everything now."""
        model, tokenizer = handle.model, handle.tokenizer
        things = {
            "tokenizer": tokenizer,
            "model's config": model.config,
            "text model's config": model.config.get_text_config(),
            "generation config": getattr(model, "generation_config", None),
        }
        return cls(
            model=model,
            tokenizer=tokenizer,
            modules={name: ModuleState.of(module) for name, module in model.named_modules()},
            parameters={name: ParameterState.of(p) for name, p in model.named_parameters()},
            objects=tuple(ObjectState.of(name, thing) for name, thing in things.items() if thing is not None),
            settings=_settings(handle),
            handle=dict(vars(handle)),
            rng=random_states(),
        )

    @property
    def hooked(self) -> bool:
        """Whether something runs beside the model: hooks may know more than can be compared."""
        parts = (state.parts for state in self.modules.values())
        return any(own_hooks(part.get(key, {})) for part in parts for key in ("_forward_hooks", "_forward_pre_hooks"))

    def left_behind(self, handle: ModelHandle) -> tuple[str, ...]:
        """One sentence for each thing that is not as it was (weights changed in place are the seal's business)."""
        found: list[str] = []
        if handle.model is not self.model:
            found.append("the handle's model was replaced by another object")
        if handle.tokenizer is not self.tokenizer:
            found.append("the handle's tokenizer was replaced by another object")
        for name, state in self.modules.items():
            found += state.findings(name or "the model")
        for name, parameter in self.parameters.items():
            found += parameter.findings(name)
        now = _settings(handle)
        for key in sorted(self.settings.keys() | now.keys()):
            if now.get(key) != self.settings.get(key):
                found.append(f"{key} changed from {self.settings.get(key)!r:.80} to {now.get(key)!r:.80}")
        attributes = vars(handle)
        for thing in self.objects:
            found += thing.findings()
        for key in sorted((self.handle.keys() | attributes.keys()) - {"model", "tokenizer"}):
            if key not in self.handle:
                done = "replaced on" if hasattr(type(handle), key) else "added to"
                found.append(f"{key} was {done} the model's handle")
            elif key not in attributes or attributes[key] != self.handle[key]:
                found.append(f"{key} of the model's handle was replaced")
        return tuple(found)

    def restore(self, handle: ModelHandle, rng: Random | None = None) -> None:
        """Put structure, modes, flags, settings and random states back (or others), and parameters to their own memory.

        Beyond it: what was written into that memory (see Keepsake), and tokens added to a tokenizer.
        """
        vars(handle).clear()
        vars(handle).update(self.handle)
        for state in self.modules.values():
            state.restore()
        for parameter in self.parameters.values():
            parameter.restore()
        for thing in self.objects:
            thing.restore()
        of_torch, of_python, of_gpus, of_numpy = self.rng if rng is None else rng
        torch.set_rng_state(of_torch)
        random.setstate(of_python)
        if of_gpus:
            torch.cuda.set_rng_state_all(of_gpus)
        if of_numpy is not None:
            sys.modules["numpy"].random.set_state(of_numpy)


@dataclass(frozen=True)
class Keepsake:
    """Full copies: what remains when an editor wrote outside of every session."""

    frame: Frame
    values: dict[str, tuple[Tensor, Tensor | None]]
    tokenizer: dict[str, Any]

    @classmethod
    def of(cls, handle: ModelHandle, *, most_bytes: int = COPIED) -> Keepsake:
        """Copy every tensor (to the CPU) and the tokenizer: as large as the model.

        Of a model that can be loaded again nothing is copied where it is past `most_bytes`, or where main memory is
        short (`room.has_room`): its source is the keepsake.
        """
        tensors = handle.tensors()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        kept = not handle.reloadable or (size <= most_bytes and has_room(size))
        copies = {n: (t, t.detach().to("cpu", copy=True) if kept else None) for n, t in tensors.items()}
        return cls(Frame.of(handle), copies, copy.deepcopy(vars(handle.tokenizer)))

    def restore(self, handle: ModelHandle) -> None:
        """Bring back structure, every byte, and the vocabulary."""
        self.frame.restore(handle)
        handle.engine.forget()
        if self.frame.left_behind(handle):
            vars(handle.tokenizer).clear()
            vars(handle.tokenizer).update(copy.deepcopy(self.tokenizer))
        with torch.no_grad():
            for tensor, kept in self._sources(handle):
                if tensor.shape == kept.shape and tensor.dtype == kept.dtype:
                    tensor.copy_(kept)
                else:
                    tensor.data = kept.to(tensor.device, copy=True)

    def _sources(self, handle: ModelHandle) -> list[tuple[Tensor, Tensor]]:
        copies = [(tensor, kept) for tensor, kept in self.values.values() if kept is not None]
        if len(copies) == len(self.values):
            return copies
        fresh = ModelHandle.load(replace(handle.spec, device="cpu", device_map=None)).tensors()
        return [(tensor, fresh[name]) for name, (tensor, _) in self.values.items()]


def place_of(tensor: Tensor) -> Place:
    """Where a tensor is in memory, and how it is read."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device


def _sealed(tensor: Tensor) -> tuple[Any, ...]:
    return checksum(tensor), tensor.dtype, tuple(tensor.shape), tensor.device


def _settings(handle: ModelHandle) -> dict[str, Any]:
    tokenizer, config = handle.tokenizer, handle.model.config
    ids = list(tokenizer(SENTENCE)["input_ids"])
    inner = getattr(tokenizer, "backend_tokenizer", None)
    generation = getattr(handle.model, "generation_config", None)
    found: dict[str, Any] = {
        "the tokenizer's padding side": tokenizer.padding_side,
        "the tokenizer's truncation side": tokenizer.truncation_side,
        "the tokenizer's longest text": tokenizer.model_max_length,
        "the tokenizer's vocabulary size": len(tokenizer),
        "what the tokenizer makes of a test sentence": ids,
        "how the tokenizer spells a test sentence": tokenizer.decode(ids),
        "the tokenizer's padding": getattr(inner, "padding", None),
        "the tokenizer's truncation": getattr(inner, "truncation", None),
        "the tokenizer's chat template": getattr(tokenizer, "chat_template", None),
        "the attention implementation": config._attn_implementation,
    }
    for role in ("bos", "eos", "pad", "unk"):
        found[f"the tokenizer's {role} token"] = getattr(tokenizer, f"{role}_token")
    found |= {f"{key!r} of the model's config": value for key, value in config.to_dict().items()}
    if generation is not None:
        found |= {f"{key!r} of the generation config": value for key, value in generation.to_dict().items()}
    return found


def random_states() -> Random:
    """Those now."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    numpy = sys.modules.get("numpy")
    return torch.get_rng_state(), random.getstate(), cuda, numpy.random.get_state() if numpy else None
