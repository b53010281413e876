"""What a model was before, so that it can be proved to be that again.

`Frame` remembers structure and settings by reference (modules, hooks, modes, flags) and can put them back for nothing;
`Seal` remembers values as checksums; `Keepsake` holds full copies for the day when an editor wrote where it should not.
"""

from __future__ import annotations

import copy
import hashlib
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from editsafety.model.handle import ModelHandle

HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip
NAMED_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
FAMILY = {"_modules": "module", "_parameters": "parameter", "_buffers": "buffer"}
PLAIN = (bool, int, float, str)
COPIED = 4 << 30  # bytes; a larger model is loaded again when it has to be brought back
ROW = 1024  # 8-byte words that are summed along and across
SENTENCE = "Naïve 東京 x1: does it still split\tthis?\n  <s> "


def checksum(tensor: Tensor) -> str:
    """A hash of all bits, read as 8-byte words in rows of 1,024: the sums of every row and of every column.

    Sums wrap around, so a single changed bit always shows; so does moving values about, unless rows and columns keep
    their sums. Memory speed on every device (12 MB: a millisecond), where sha256 takes ten times as long.
    """
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if flat.storage_offset() % 8:
        flat = flat.clone()
    whole = flat.numel() // (8 * ROW) * (8 * ROW)
    square = flat[:whole].view(torch.int64).view(-1, ROW)
    found = hashlib.sha256()
    for part in (square.sum(0), square.sum(1), flat[whole:]) if whole else (flat,):
        found.update(part.cpu().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Seal:
    """Checksum, dtype, shape and device of every tensor of a model."""

    tensors: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, handle: ModelHandle) -> Seal:
        """Read every byte of the model once."""
        return cls({n: (checksum(t), t.dtype, tuple(t.shape), t.device) for n, t in handle.tensors().items()})

    def changed(self, later: Seal) -> tuple[str, ...]:
        """Names of tensors whose value, dtype, shape or device differs, that are new, or that are gone."""
        names = self.tensors.keys() | later.tensors.keys()
        return tuple(sorted(name for name in names if self.tensors.get(name) != later.tensors.get(name)))


@dataclass(frozen=True)
class ModuleState:
    """What one module consisted of: its class, hooks, children, tensors and plain attributes, by reference."""

    module: nn.Module
    kind: type[nn.Module]
    parts: dict[str, dict[Any, Any]]
    plain: dict[str, Any]
    forward: Any

    @classmethod
    def of(cls, module: nn.Module) -> ModuleState:
        """Remember it now."""
        parts = {key: dict(getattr(module, key)) for key in (*HOOKS, *FAMILY)}
        return cls(module, type(module), parts, _plain(module), module.__dict__.get("forward"))

    def findings(self, label: str) -> Iterator[str]:
        """What is not as it was."""
        module = self.module
        for key in NAMED_HOOKS:
            extra = len(getattr(module, key).keys() - self.parts[key].keys())
            gone = len(self.parts[key].keys() - getattr(module, key).keys())
            what = key.strip("_").replace("_", " ")
            if extra:
                yield f"{extra} {what} left on {label}"
            if gone:
                yield f"{gone} {what} removed from {label}"
        for key, kind in FAMILY.items():
            yield from _family(label, kind, self.parts[key], getattr(module, key))
        if type(module) is not self.kind:
            yield f"the class of {label} was changed from {self.kind.__name__} to {type(module).__name__}"
        if module.__dict__.get("forward") is not self.forward:
            yield f"forward of {label} was replaced"
        now = _plain(module)
        for key in sorted(self.plain.keys() | now.keys()):
            if key == "training" and now[key] != self.plain[key]:
                yield f"{label} left in {'training' if now[key] else 'evaluation'} mode"
            elif "cached" not in key and now.get(key) != self.plain.get(key):  # rotary caches count what they saw
                yield f"{key} of {label} changed from {self.plain.get(key)!r} to {now.get(key)!r}"

    def restore(self) -> None:
        """Put it together again."""
        if type(self.module) is not self.kind:
            self.module.__class__ = self.kind
        for key, kept in self.parts.items():
            current = getattr(self.module, key)
            if not _same(current, kept):
                current.clear()
                current.update(kept)
        attributes = self.module.__dict__
        for key in _plain(self.module).keys() - self.plain.keys():
            del attributes[key]
        attributes.update(self.plain)
        if self.forward is None:
            attributes.pop("forward", None)
        else:
            attributes["forward"] = self.forward


@dataclass(frozen=True)
class ParameterState:
    """One parameter: the memory that it was in, whether it was trained, its gradient."""

    parameter: nn.Parameter
    data: Tensor
    requires_grad: bool
    grad: Tensor | None

    @classmethod
    def of(cls, parameter: nn.Parameter) -> ParameterState:
        """Remember it now; keeps a reference to its memory, not a copy."""
        return cls(parameter, parameter.data, parameter.requires_grad, parameter.grad)

    def findings(self, label: str) -> Iterator[str]:
        """What is not as it was. Equal values in other memory are no finding."""
        now = self.parameter.data
        if (now.dtype, now.shape, now.device) != (self.data.dtype, self.data.shape, self.data.device):
            was, is_ = (f"{t.dtype} {list(t.shape)} on {t.device}" for t in (self.data, now))
            yield f"{label} was turned from {was} into {is_}"
        elif now.data_ptr() != self.data.data_ptr() and checksum(now) != checksum(self.data):
            yield f"{label} was given other values"
        if self.parameter.requires_grad != self.requires_grad:
            yield f"requires_grad of {label} left {self.parameter.requires_grad}"
        if self.parameter.grad is not self.grad:
            yield f"a gradient left on {label}"

    def restore(self) -> None:
        """Point it to its own memory again."""
        self.parameter.grad = None  # first: a gradient of another shape or dtype would not let the data go back
        self.parameter.data = self.data
        self.parameter.requires_grad_(self.requires_grad)
        self.parameter.grad = self.grad


@dataclass(frozen=True)
class Frame:
    """Structure and settings of a model and its tokenizer, by reference; restoring them costs no memory."""

    model: nn.Module
    tokenizer: Any
    modules: dict[str, ModuleState]
    parameters: dict[str, ParameterState]
    objects: tuple[tuple[Any, dict[str, Any]], ...]
    settings: dict[str, Any]
    hooks: dict[str, dict[Any, Any]]
    rng: tuple[Tensor, Any, list[Tensor], Any]

    @classmethod
    def of(cls, handle: ModelHandle) -> Frame:
        """Remember everything now."""
        model, tokenizer = handle.model, handle.tokenizer
        things = (tokenizer, model.config, model.config.get_text_config(), getattr(model, "generation_config", None))
        return cls(
            model=model,
            tokenizer=tokenizer,
            modules={name: ModuleState.of(module) for name, module in model.named_modules()},
            parameters={name: ParameterState.of(p) for name, p in model.named_parameters()},
            objects=tuple((thing, _copied(vars(thing))) for thing in things if thing is not None),
            settings=_settings(handle),
            hooks={key: dict(getattr(nn.modules.module, key)) for key in GLOBAL_HOOKS},
            rng=_random_states(),
        )

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
        for key, kept in self.hooks.items():
            if not _same(getattr(nn.modules.module, key), kept):
                found.append(f"torch's {key.strip('_').replace('_', ' ')} were changed")
        return tuple(found)

    def restore(self, handle: ModelHandle) -> None:
        """Put structure, modes, flags, settings and random states back, and parameters to their own memory.

        Beyond it: what was written into that memory (see Keepsake), and tokens added to a tokenizer.
        """
        handle.model, handle.tokenizer = self.model, self.tokenizer
        for state in self.modules.values():
            state.restore()
        for parameter in self.parameters.values():
            parameter.restore()
        for thing, kept in self.objects:
            vars(thing).clear()
            vars(thing).update(_copied(kept))
        for key, hooks in self.hooks.items():
            current = getattr(nn.modules.module, key)
            current.clear()
            current.update(hooks)
        torch.set_default_dtype(self.settings["torch's default dtype"])
        torch.set_grad_enabled(self.settings["torch's gradient mode"])
        torch.set_rng_state(self.rng[0])
        random.setstate(self.rng[1])
        if self.rng[2]:
            torch.cuda.set_rng_state_all(self.rng[2])
        if self.rng[3] is not None:
            sys.modules["numpy"].random.set_state(self.rng[3])


@dataclass(frozen=True)
class Keepsake:
    """Full copies: what remains when an editor wrote outside of every session."""

    frame: Frame
    values: dict[str, tuple[Tensor, Tensor | None]]
    tokenizer: dict[str, Any]

    @classmethod
    def of(cls, handle: ModelHandle, *, most_bytes: int = COPIED) -> Keepsake:
        """Copy every tensor (to the CPU) and the tokenizer: as large as the model.

        Of a model past `most_bytes` that can be loaded again, nothing is copied: its source is the keepsake.
        """
        tensors = handle.tensors()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        kept = size <= most_bytes or not handle.reloadable
        copies = {n: (t, t.detach().to("cpu", copy=True) if kept else None) for n, t in tensors.items()}
        return cls(Frame.of(handle), copies, copy.deepcopy(vars(handle.tokenizer)))

    def restore(self, handle: ModelHandle) -> None:
        """Bring back structure, every byte, and the vocabulary."""
        self.frame.restore(handle)
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
        fresh = ModelHandle.load(replace(handle.spec, device="cpu")).tensors()
        return [(tensor, fresh[name]) for name, (tensor, _) in self.values.items()]


def _family(label: str, kind: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = [f"a {kind} {name!r} was added to {label}" for name in now.keys() - before.keys()]
    found += [f"{kind} {name!r} of {label} is gone" for name in before.keys() - now.keys()]
    # Buffers may be reassigned by a forward pass (rotary caches); their values are compared by the seal.
    if kind != "buffer":
        both = [name for name in before if name in now]
        found += [f"{kind} {name!r} of {label} was replaced" for name in both if now[name] is not before[name]]
        if not found and list(now) != list(before):
            found.append(f"the {kind}s of {label} are in another order")
    return sorted(found)


def _same(now: Mapping[Any, Any], kept: Mapping[Any, Any]) -> bool:
    """Same keys, same order, the very same objects (`==` on tensors would not give one truth value)."""
    return list(now) == list(kept) and all(now[key] is kept[key] for key in kept)


def _plain(module: nn.Module) -> dict[str, Any]:
    return {key: value for key, value in module.__dict__.items() if type(value) in PLAIN}


def _copied(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Lists and dicts copied, other objects by reference (a sub-config is shared with the modules that read it)."""
    return {key: copy.copy(value) if isinstance(value, dict | list) else value for key, value in attributes.items()}


def _settings(handle: ModelHandle) -> dict[str, Any]:
    tokenizer, config = handle.tokenizer, handle.model.config
    generation = getattr(handle.model, "generation_config", None)
    found: dict[str, Any] = {
        "the tokenizer's padding side": tokenizer.padding_side,
        "the tokenizer's truncation side": tokenizer.truncation_side,
        "the tokenizer's longest text": tokenizer.model_max_length,
        "the tokenizer's vocabulary size": len(tokenizer),
        "what the tokenizer makes of a test sentence": handle.ids(SENTENCE),
        "the attention implementation": config._attn_implementation,
        "torch's default dtype": torch.get_default_dtype(),
        "torch's gradient mode": torch.is_grad_enabled(),
    }
    for role in ("bos", "eos", "pad", "unk"):
        found[f"the tokenizer's {role} token"] = getattr(tokenizer, f"{role}_token")
    found |= {f"{key!r} of the model's config": value for key, value in config.to_dict().items()}
    if generation is not None:
        found |= {f"{key!r} of the generation config": value for key, value in generation.to_dict().items()}
    return found


def _random_states() -> tuple[Tensor, Any, list[Tensor], Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    numpy = sys.modules.get("numpy")
    return torch.get_rng_state(), random.getstate(), cuda, numpy.random.get_state() if numpy else None
