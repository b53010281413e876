"""Look at, or change, what modules compute, inside a with-block that leaves no hook behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Change = Callable[[Tensor], Tensor]


class _Enough(Exception):
    """Raised by the last awaited module to end a forward pass whose rest nobody reads."""


@dataclass
class Seen:
    """What the watched modules received and returned in the last forward pass, by module name."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def watch(
    model: nn.Module, modules: Sequence[str] = (), *, change: Mapping[str, Change] | None = None, stop: bool = False
) -> Iterator[Seen]:
    """Record first input and output of `modules`; `change` maps module names to a function of their output.

    With `stop` a forward pass ends (silently, leaving the block) once every watched module has run.
    Tuple outputs are represented by their first element. Raises AttributeError for a module that does not exist,
    before any hook is set.
    """
    change = change or {}
    targets = {name: model.get_submodule(name) for name in dict.fromkeys([*modules, *change])}
    seen = Seen()
    waiting = set(targets)
    enough = _Enough()  # our own: a watch around this one may want to end the pass, too

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]:
        def after(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            if name in change:
                first = change[name](first)
            received = args[0] if args else kwargs.get("hidden_states")
            if received is not None:
                seen.inputs[name] = received
            seen.outputs[name] = first
            waiting.discard(name)
            if stop and not waiting:
                raise enough
            onward = first.clone()  # falcon adds its residual into this very tensor; what was seen must stay
            return (onward, *output[1:]) if isinstance(output, tuple) else onward

        return after

    handles = []
    try:
        for name, module in targets.items():
            handles.append(module.register_forward_hook(hook(name), with_kwargs=True))
        yield seen
    except _Enough as signal:
        if signal is not enough:
            raise
    finally:
        for handle in handles:
            handle.remove()
