"""Bindings: what the names that a model runs by are bound to: functions of torch, methods of its classes.

Somebody who replaces `torch.nn.functional.linear`, or `forward` of a class, changes every model of the process, and no
weight shows it. Compared is by identity: a function that computes the same is another one all the same.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter, is_
from types import CodeType, FunctionType, ModuleType
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from editsafety.edits.origin import is_from
from editsafety.model.handle import ModelHandle

# Modules that a forward pass, a gradient, an optimizer or this package's own work goes through (it measures, keeps
# results and tells other processes of them); with a dot at the end, those below them as well. Those that define the
# model's own classes come on top. The list is short because all of it is looked through after every case; what is done
# elsewhere shows in behaviour. Not `warnings`: `catch_warnings` binds its functions anew, and pytest enters one for
# every phase of a test.
WATCHED = (
    "builtins", "collections", "contextlib", "copy", "dataclasses", "functools", "gc", "hashlib", "itertools", "json",
    "json.decoder", "json.encoder", "math", "multiprocessing.connection", "operator", "os", "pathlib", "random", "re",
    "signal", "sqlite3", "statistics", "struct", "threading", "time",
    "editsafety.editing.", "editsafety.edits.", "editsafety.engine.", "editsafety.judging.", "editsafety.lab.",
    "editsafety.measures.", "editsafety.model.", "editsafety.numbers",
    "torch", "torch._C._linalg", "torch._C._nn", "torch._C._special", "torch._tensor", "torch.amp.autocast_mode",
    "torch.autograd", "torch.autograd.function", "torch.autograd.grad_mode", "torch.functional", "torch.linalg",
    "torch.nn.functional", "torch.nn.init", "torch.nn.parameter", "torch.optim.", "torch.special", "torch.utils.hooks",
    "transformers.activations", "transformers.cache_utils", "transformers.integrations.sdpa_attention",
    "transformers.masking_utils", "transformers.modeling_layers", "transformers.modeling_utils",
    "transformers.pytorch_utils",
)  # fmt: skip
# Of these modules, the classes that they define are watched like those of the model.
WITH_CLASSES = ("editsafety.", "torch.optim", "transformers.cache_utils")
HEAP_TYPE = 1 << 9  # of a class's flags: made by a class statement, so that its names can be bound anew
MADE_OF = attrgetter("__code__"), attrgetter("__defaults__"), attrgetter("__kwdefaults__")  # of a function


@dataclass(frozen=True, slots=True)
class Binding:
    """A name of a module or class that is not bound as it was."""

    owner: Any
    name: str
    was: Any
    how: Literal["replaced", "taken away", "added"]

    def __str__(self) -> str:
        if isinstance(self.owner, ModuleType):
            return f"{self.owner.__name__}.{self.name} was {self.how}"
        if self.how == "added":
            return f"{self.name} was added to the class {self.owner.__name__}"
        return f"{self.name} of the class {self.owner.__name__} was {self.how}"

    def undo(self) -> None:
        """Bind it as it was."""
        of_module = isinstance(self.owner, ModuleType)
        if self.how == "added":
            delattr(self.owner, self.name) if of_module else type.__delattr__(self.owner, self.name)
        elif of_module:
            self.owner.__dict__[self.name] = self.was
        else:
            type.__setattr__(self.owner, self.name, self.was)


@dataclass(frozen=True)
class Bindings:
    """The names of every watched module and class, and the code of their functions."""

    modules: dict[str, ModuleType]
    # Classes that the model, its tokenizer and its config are of: of these, data count as well.
    parts: frozenset[Any]
    names: tuple[tuple[Any, dict[str, Any]], ...]
    functions: tuple[FunctionType, ...]
    # The code of each function, the defaults of each, and those of each that go by name.
    made_of: tuple[tuple[Any, ...], ...]
    # All that the names are bound to, in one row, and how much of it is whose.
    bound: tuple[Any, ...]
    sizes: list[int]

    @classmethod
    def of(cls, handle: ModelHandle) -> Bindings:
        """Remember everything now: references only, a few milliseconds."""
        modules = _modules(handle)
        # builtins first: what compares the rest is then sound again.
        owners = [sys.modules["builtins"], *modules.values(), *_classes(handle, modules)]
        return cls._of_owners(modules, frozenset(_kinds(handle)), owners)

    @classmethod
    def _of_owners(cls, modules: dict[str, ModuleType], parts: frozenset[Any], owners: Sequence[Any]) -> Bindings:
        names = tuple((owner, dict(owner.__dict__)) for owner in dict.fromkeys(owners))
        bound = tuple(value for _, kept in names for value in kept.values())
        functions = tuple({id(value): value for value in bound if type(value) is FunctionType}.values())
        made_of = tuple(tuple(map(part, functions)) for part in MADE_OF)
        return cls(modules, parts, names, functions, made_of, bound, [len(kept) for _, kept in names])

    def renewed(self) -> Bindings:
        """The same names as they are bound now: this very object where nothing was bound anew."""
        same = self._bound_as_before()
        return self if same else self._of_owners(self.modules, self.parts, [owner for owner, _ in self.names])

    def _bound_as_before(self) -> bool:
        """Quick, as that is nearly always so: no name is looked at, nothing is asked whether it equals something."""
        spaces = [owner.__dict__ for owner, _ in self.names]
        now = chain.from_iterable(space.values() for space in spaces)
        return [*map(len, spaces)] == self.sizes and all(map(is_, now, self.bound))

    def _made_as_before(self) -> bool:
        """Whether every function is made of what it was."""
        now = chain.from_iterable(map(part, self.functions) for part in MADE_OF)
        return all(map(is_, now, chain.from_iterable(self.made_of)))

    def findings(self) -> tuple[str, ...]:
        """One sentence for each name that is bound to something else; nothing is touched."""
        return tuple(said for said, _ in self._deeds())

    def put_back(self) -> tuple[str, ...]:
        """Undo what was done, and say it: one sentence for each name."""
        found: list[str] = []
        for said, undo in self._deeds():
            found.append(said)
            undo()  # before the next one is looked for: what compares may have been replaced itself
        return tuple(found)

    def _deeds(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """What was done, in words, and how it is undone."""
        for number, (owner, kept) in enumerate(self.names):
            # builtins by themselves and first: what compares the rest is then sound.
            if not number or not _holds(owner, kept):
                for binding in list(_changed(owner, kept, whole=owner in self.parts)):
                    yield str(binding), binding.undo
            if not number and self._bound_as_before():
                break
        for name, module in self.modules.items():
            if sys.modules.get(name) is not module:
                yield (
                    f"the module {name} was replaced by another object",
                    partial(sys.modules.__setitem__, name, module),
                )
        if self._made_as_before():
            return
        for function, code, defaults, named in zip(self.functions, *self.made_of, strict=True):
            of_code = function.__code__ is not code or function.__defaults__ is not defaults
            if of_code or function.__kwdefaults__ is not named:
                said = "code of {} was replaced" if of_code else "defaults of {} were replaced"
                place = f"{function.__module__}.{function.__qualname__}"
                yield f"the {said.format(place)}", partial(_give_back, function, code, defaults, named)


def _give_back(function: FunctionType, code: CodeType, defaults: Any, named: Any) -> None:
    function.__code__, function.__defaults__, function.__kwdefaults__ = code, defaults, named


def _holds(owner: Any, kept: Mapping[str, Any]) -> bool:
    """Whether the names of a module or class are bound to the very same objects, in the same order."""
    now = owner.__dict__
    return len(now) == len(kept) and all(map(is_, now.values(), kept.values()))


def _changed(owner: Any, kept: Mapping[str, Any], *, whole: bool) -> Iterator[Binding]:
    """Names of one module or class that are not bound as they were: of code, and of data too where it is `whole`."""

    def counts(name: str, value: Any) -> bool:
        return _runs(value) or (whole and not name.startswith("__"))

    here = owner.__dict__
    other = [name for name, value in kept.items() if here.get(name) is not value and counts(name, value)]
    replaced = [name for name in other if not _wrapped_by_torch(owner, name, here.get(name), kept[name])]
    more = [name for name in here.keys() - kept.keys() if not isinstance(here[name], ModuleType)]
    if isinstance(owner, ModuleType):
        # Names are added to modules all the time (lazy imports); beside a replaced one they are part of the same deed.
        added = more if replaced else []
    else:
        added = [name for name in more if counts(name, here[name]) and not _added_by_themselves(owner, name)]
    for name in replaced:
        yield Binding(owner, name, kept[name], "replaced" if name in here else "taken away")
    for name in sorted(added):
        yield Binding(owner, name, None, "added")


def _wrapped_by_torch(owner: Any, name: str, now: Any, was: Any) -> bool:
    """Whether torch itself bound the name anew, around what was there.

    An optimizer wraps the `step` of its class when the first one is made. The first `torch.compile` of a process wraps
    what it will not trace in optimizers, and `__init__` and `__setstate__` of `nn.Module`. A wrapper around anything
    else is a finding, whoever made it.
    """
    if type(now) is not FunctionType:
        return False
    if owner is nn.Module and name in ("__init__", "__setstate__"):
        return is_from(now, "torch._dynamo.mutation_guard")
    of_class = isinstance(owner, type) and issubclass(owner, Optimizer)
    if not of_class and not (isinstance(owner, ModuleType) and owner.__name__.startswith("torch.optim.")):
        return False
    inner = getattr(now, "__wrapped__", None)
    around = inner is not None and (inner is was or inner is getattr(was, "__wrapped__", None))
    return around and is_from(now, "torch.optim.optimizer", "torch._dynamo.eval_frame")


def _added_by_themselves(owner: type, name: str) -> bool:
    """Whether a name of a class is there because torch wrapped an inherited method, or transformers noted something.

    AdamW has the `step` of Adam, and gets a wrapped one of its own with the first AdamW of a process. When another
    model of a class is made, transformers 5.24 notes on the class what its source says.
    """
    value = owner.__dict__[name]
    inherited = next((vars(base)[name] for base in owner.__mro__[1:] if name in vars(base)), None)
    noted = type(value) is bool and name.startswith("_can_set_") and name.endswith("_cached_value")
    return noted or _wrapped_by_torch(owner, name, value, inherited)


def _runs(value: Any) -> bool:
    """Whether it is code or gives code: a function, a class, a module, a property."""
    return callable(value) or isinstance(value, ModuleType) or hasattr(type(value), "__get__")


def _modules(handle: ModelHandle) -> dict[str, ModuleType]:
    own = {kind.__module__ for kind in _kinds(handle)}
    watched = re.compile("|".join(rf"{one[:-1]}(\..*)?" if one.endswith(".") else one for one in WATCHED))
    found = {name: one for name, one in list(sys.modules.items()) if name in own or watched.fullmatch(name)}
    return {name: one for name, one in found.items() if isinstance(one, ModuleType)}


def _kinds(handle: ModelHandle) -> set[type]:
    """The classes of the model's parts, with those that they are made from."""
    tokenizer, config = handle.tokenizer, handle.model.config
    things = [*handle.model.modules(), *handle.model.parameters(), tokenizer, config, handle]
    things.append(getattr(handle.model, "generation_config", None))
    things.append(getattr(tokenizer, "backend_tokenizer", None))
    return {kind for one in {type(thing) for thing in things} for kind in one.__mro__}


def _classes(handle: ModelHandle, modules: Mapping[str, ModuleType]) -> list[type]:
    """Those classes, and every class that certain watched modules define."""
    found = dict.fromkeys(sorted(_kinds(handle), key=lambda one: (one.__module__, one.__qualname__)))
    for name, module in modules.items():
        if name.startswith(WITH_CLASSES):
            things = list(module.__dict__.values())
            found |= dict.fromkeys(v for v in things if isinstance(v, type) and v.__module__ == name)
    return [one for one in found if one.__flags__ & HEAP_TYPE]
