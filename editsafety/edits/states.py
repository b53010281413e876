"""States: what each module and each parameter of a model was, by reference, so that it can be named and put back."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from editsafety.edits.checksum import checksum
from editsafety.edits.origin import is_from

HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip
NAMED_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", *HOOKS[7:])
TENSOR_HOOKS = {"_backward_hooks": "gradient hooks", "_post_accumulate_grad_hooks": "hooks on the finished gradient"}
FAMILY = {"_modules": "module", "_parameters": "parameter", "_buffers": "buffer"}
PLAIN = frozenset({bool, int, float, str})
# What libraries note of a module that they were given, and nobody reads but they: torch.compile, accelerate, a static
# cache, gradient checkpointing (nothing while `gradient_checkpointing` is off), and transformers when it is first asked
# for hidden states and hangs its own (silent) hooks in (`own_hooks`).
MARKS = frozenset({
    "_is_torch_compile", "_is_accelerate_prepared", "_previous_max_cache_length", "_gradient_checkpointing_func",
    "_require_grads_hook", "_output_capturing_hooks_installed",
})  # fmt: skip
CAPTURING = "transformers.utils.output_capturing"
# What hangs on embeddings beside gradient checkpointing, as `module.qualname`: their output asks for a gradient.
ASKING = "transformers.modeling_utils.PreTrainedModel.enable_input_require_grads.<locals>.make_inputs_require_grads"
# What a forward pass may renew, or a part of it that is looked at by itself.
PASSIVE = frozenset({type(None), dict, OrderedDict, set, list, tuple, Tensor, nn.Parameter})


@dataclass(frozen=True)
class ModuleState:
    """What one module consisted of: its class, hooks, children, tensors and attributes, by reference."""

    module: nn.Module
    kind: type[nn.Module]
    parts: dict[str, dict[Any, Any]]
    plain: dict[str, Any]
    # Attributes that are called or asked: an activation, a config, a `forward` of its own.
    objects: dict[str, Any]
    names: frozenset[str]

    @classmethod
    def of(cls, module: nn.Module) -> ModuleState:
        """Remember it now."""
        attributes = module.__dict__
        parts = {
            key: dict(attributes[key]) for key in (*HOOKS, *FAMILY) if key in attributes
        }  # a scripted one has none
        plain = {key: value for key, value in attributes.items() if type(value) in PLAIN}
        objects = {key: value for key, value in attributes.items() if _acts(value)}
        return cls(module, type(module), parts, plain, objects, frozenset(attributes))

    def findings(self, label: str) -> Iterator[str]:
        """What is not as it was."""
        module, attributes = self.module, self.module.__dict__
        for key in NAMED_HOOKS:
            if key in self.parts and (attributes[key] or self.parts[key]):
                both = (own_hooks(hooks) for hooks in (self.parts[key], attributes[key]))
                yield from hook_findings(key.strip("_").replace("_", " "), label, *both)
        for key, kind in FAMILY.items():
            if key not in self.parts or not (self.parts[key] or attributes[key]):
                continue
            if not same(attributes[key], self.parts[key]):
                yield from _family(label, kind, self.parts[key], attributes[key])
        if type(module) is not self.kind:
            yield f"the class of {label} was changed from {self.kind.__name__} to {type(module).__name__}"
        for key, value in self.objects.items():
            if attributes.get(key) is not value and key not in MARKS:
                yield f"{key} of {label} was replaced"
        for key, value in self.plain.items():
            if (now := attributes.get(key)) != value:
                if key == "training":
                    yield f"{label} left in {'training' if now else 'evaluation'} mode"
                elif "cached" not in key and key not in MARKS:  # rotary caches count what they saw
                    yield f"{key} of {label} changed from {value!r} to {now!r}"
        for key in self._added():
            if key in MARKS:
                continue
            if type(attributes[key]) in PLAIN:
                yield f"{key} of {label} changed from None to {attributes[key]!r}"
            else:
                yield f"{key} of {label} was {'replaced' if key == 'forward' else 'added'}"

    def restore(self) -> None:
        """Put it together again."""
        if type(self.module) is not self.kind:
            self.module.__class__ = self.kind
        attributes = self.module.__dict__
        for key, kept in self.parts.items():
            if (kept or attributes[key]) and not same(attributes[key], kept):  # most of them are empty
                attributes[key].clear()
                attributes[key].update(kept)
        for key in self._added():
            del attributes[key]
        attributes.update(self.plain)
        attributes.update(self.objects)

    def settle(self) -> None:
        """Put back what a training sets, and take away plain values that were added: nothing that a pass computes with.

        Another value of what was there (an epsilon, a scale) stays, and is told. Hooks that have an embedding ask for a
        gradient compute nothing, and go as well.
        """
        attributes = self.module.__dict__
        hooks = attributes.get("_forward_hooks", {})
        for key in hooks.keys() - self.parts.get("_forward_hooks", {}).keys():
            if f"{getattr(hooks[key], '__module__', '')}.{getattr(hooks[key], '__qualname__', '')}" == ASKING:
                del hooks[key]
        for key in self._added():
            if type(attributes[key]) in PLAIN and key not in MARKS:
                del attributes[key]
        attributes.update({key: self.plain[key] for key in ("training", "gradient_checkpointing") if key in self.plain})

    def renew(self) -> None:
        """Put its own parameters where others of their names are."""
        kept, now = self.parts.get("_parameters", {}), self.module.__dict__.get("_parameters", {})
        if now.keys() == kept.keys():
            now.update(kept)

    def _added(self) -> list[str]:
        """Attributes that the module did not have; caches and other tensors, lists and dicts are its own business."""
        attributes = self.module.__dict__
        if len(attributes) == len(self.names) and attributes.keys() == self.names:
            return []
        more = sorted(attributes.keys() - self.names)
        return [key for key in more if type(attributes[key]) in PLAIN or _acts(attributes[key])]


@dataclass(frozen=True)
class ParameterState:
    """One parameter: the memory that it was in, whether it was trained, its gradient, the hooks on its gradient."""

    parameter: nn.Parameter
    data: Tensor
    requires_grad: bool
    grad: Tensor | None
    hooks: dict[str, dict[Any, Any]]

    @classmethod
    def of(cls, parameter: nn.Parameter) -> ParameterState:
        """Remember it now; keeps a reference to its memory, not a copy."""
        hooks = {key: dict(getattr(parameter, key) or {}) for key in TENSOR_HOOKS}
        return cls(parameter, parameter.data, parameter.requires_grad, parameter.grad, hooks)

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
        for key, what in TENSOR_HOOKS.items():
            yield from hook_findings(what, label, self.hooks[key], getattr(self.parameter, key) or {})

    def restore(self) -> None:
        """Point it to its own memory again."""
        self.parameter.grad = None  # first: a gradient of another shape or dtype would not let the data go back
        self.parameter.data = self.data
        self.parameter.requires_grad_(self.requires_grad)
        self.parameter.grad = self.grad
        for key, kept in self.hooks.items():
            current = getattr(self.parameter, key)
            if not same(current or {}, kept):
                # In place: torch's engine goes on reading the same dict, whatever the attribute is set to.
                current.clear()
                current.update(kept)


@dataclass(frozen=True)
class ObjectState:
    """A tokenizer or a config: its class and its attributes. What they mean is compared as settings (see `Frame`)."""

    name: str
    thing: Any
    kind: type
    attributes: dict[str, Any]

    @classmethod
    def of(cls, name: str, thing: Any) -> ObjectState:
        """Remember it now."""
        return cls(name, thing, type(thing), _copied(vars(thing)))

    def findings(self) -> Iterator[str]:
        """Another class, and methods that were replaced on the object."""
        if type(self.thing) is not self.kind:
            yield f"the class of the {self.name} was changed from {self.kind.__name__} to {type(self.thing).__name__}"
        for key in sorted(vars(self.thing).keys() - self.attributes.keys()):
            if callable(vars(self.thing)[key]):
                yield f"{key} was replaced on the {self.name}"

    def restore(self) -> None:
        """Put it together again."""
        if type(self.thing) is not self.kind:
            self.thing.__class__ = self.kind
        vars(self.thing).clear()
        vars(self.thing).update(_copied(self.attributes))


def hook_findings(what: str, label: str, before: Mapping[Any, Any], now: Mapping[Any, Any]) -> Iterator[str]:
    """How many hooks came and went."""
    if extra := len(now.keys() - before.keys()):
        yield f"{extra} {what} left on {label}"
    if gone := len(before.keys() - now.keys()):
        yield f"{gone} {what} removed from {label}"
    if other := sum(now[key] is not before[key] for key in before.keys() & now.keys()):
        yield f"{other} {what} of {label} replaced"


def own_hooks(hooks: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The hooks without those that transformers 5 hangs in when a model is first asked for hidden states.

    They stay, and do nothing unless they are asked. Put back is the module with the mark that they are there, so that
    they come again when they are needed.
    """
    return {key: hook for key, hook in hooks.items() if not is_from(hook, CAPTURING)} if hooks else hooks


def same(now: Mapping[Any, Any], kept: Mapping[Any, Any]) -> bool:
    """Same keys, same order, the very same objects (`==` on tensors would not give one truth value)."""
    if len(now) != len(kept):
        return False
    return all(a == b and one is other for (a, one), (b, other) in zip(now.items(), kept.items(), strict=True))


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


def _copied(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Lists and dicts copied, other objects by reference (a sub-config is shared with the modules that read it)."""
    return {key: copy.copy(value) if isinstance(value, dict | list) else value for key, value in attributes.items()}


def _acts(value: Any) -> bool:
    """Whether it can be called, or has attributes of its own."""
    kind = type(value)
    if kind in PLAIN or kind in PASSIVE or isinstance(value, Tensor):
        return False
    return callable(value) or hasattr(value, "__dict__")
