"""Placement: a model on several devices, as accelerate lays it out (`device_map` in transformers).

The model's own modules then carry accelerate's hooks, which bring what goes into a module to the device where its
weights are. Everything else here goes by the device of the tensor at hand. What accelerate offloads is refused: its
weights are on the meta device between passes, and an edit cannot be written into a weight that is not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

from editsafety.errors import ModelError, UsageError

EXAMPLE = '{"model.layers.0": 0, ...}'
# Ways in which transformers and accelerate lay a model out by themselves.
NAMED = ("auto", "balanced", "balanced_low_0", "sequential")
# Where accelerate keeps weights that it brings in for a pass only, if a card takes part in that pass.
OFFLOADED = ("cpu", "disk")

Places = dict[str, str]


def read_map(given: str) -> str | Places:
    """`auto` and its kind as it is; the text of a JSON object or the path of a file with one as {module: device}.

    Raises UsageError for what is neither, and for a device that is none.
    """
    if given in NAMED:
        return given
    text, where = given, "a device map"
    if not given.lstrip().startswith("{"):
        path = Path(given).expanduser()
        if not path.is_file():
            raise UsageError(
                f"device map {given!r} is not {', '.join(NAMED)}, a JSON object or a file with one ({EXAMPLE})."
            )
        text, where = path.read_text(encoding="utf-8", errors="replace"), str(path)
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: is no JSON ({error}). It looks like {EXAMPLE}.") from error
    if not isinstance(rows, dict) or not rows:
        raise UsageError(f"{where}: is {rows!r:.60}, expected an object of modules and their devices.")
    return {module: _device(module, device) for module, device in rows.items()}


def devices_of(given: str) -> tuple[torch.device, ...]:
    """The devices that a map may use, each once: those that it names, or all cards (else the one device there is)."""
    places = read_map(given)
    if isinstance(places, dict):
        return tuple(torch.device(place) for place in dict.fromkeys(places.values()) if place != "disk")
    if torch.cuda.is_available():
        return tuple(torch.device("cuda", number) for number in range(torch.cuda.device_count()))
    return (torch.device("mps" if torch.backends.mps.is_available() else "cpu"),)


def lay_out(model: Any, given: str, dtype: torch.dtype, name: str) -> Places:
    """Which module of a model goes where; the model may be on the meta device, so that nothing is loaded for it.

    Raises UsageError (no such map, no accelerate) or ModelError (it does not fit the model, or the devices).
    """
    accelerate = _accelerate()
    from accelerate.utils import check_device_map, find_tied_parameters, get_balanced_memory, get_max_memory

    places, cards = read_map(given), list[str]()
    whole = [*_blocks_of(model)]
    if isinstance(places, str):
        even: dict[str, Any] = {"dtype": dtype, "no_split_module_classes": whole}
        room = (
            get_max_memory()
            if places == "sequential"
            else get_balanced_memory(model, low_zero=places == "balanced_low_0", **even)
        )
        cards = [_device("a card", one) for one in room if one not in OFFLOADED]
        found = accelerate.infer_auto_device_map(model, max_memory=room, **even)
        places = {module: _device(module, device) for module, device in found.items()}
    try:
        check_device_map(model, places)
    except ValueError as error:
        raise ModelError(f"the device map does not fit {name}: {str(error).splitlines()[0]}") from error
    refuse_offloading(places, cards, name)
    for group in find_tied_parameters(model):
        there = {one: _place_of(one, places) for one in group}
        if len(set(there.values())) > 1:
            told = ", ".join(f"{one} to {place}" for one, place in there.items())
            raise ModelError(f"the device map sends one weight of {name} to two devices ({told}). Give both the same.")
    return places


def refuse_offloading(places: Mapping[str, str], cards: Sequence[str], name: str) -> None:
    """Raise ModelError for a map that keeps weights where they cannot be edited. `cards` could be used."""
    cards = [*cards, *(place for place in places.values() if place not in OFFLOADED)]
    away = [module for module, place in places.items() if place == "disk" or (cards and place == "cpu")]
    if away:
        raise ModelError(
            f"{name} does not fit on {', '.join(dict.fromkeys(cards)) or 'the CPU'}: {away[0] or 'all of it'} and "
            f"{len(away) - 1} more modules would be offloaded, and an edit cannot be written into a weight that is "
            "only brought in for a pass. Make more cards visible, or give --dtype bfloat16 or a smaller model."
        )


def dispatch(model: Any, places: Places) -> Any:
    """Bring a model that is in memory to its places, with accelerate's hooks where there are several."""
    skipped = getattr(model, "_skip_keys_device_placement", None)
    skip = sorted(skipped) if isinstance(skipped, set) else skipped
    return _accelerate().dispatch_model(model, places, main_device=next(iter(places.values())), skip_keys=skip)


def is_spread(model: nn.Module) -> bool:
    """Whether accelerate's hooks bring tensors from device to device in this model: it must not be moved then."""
    return any("_hf_hook" in vars(module) for module in model.modules())


def offloaded_module(model: nn.Module) -> str | None:
    """The name of a module whose weights a hook of accelerate brings in for a pass only; None where there is none."""
    for name, module in model.named_modules():
        hook = vars(module).get("_hf_hook")
        for one in getattr(hook, "hooks", (hook,)):
            if getattr(one, "offload", False) is True or type(one).__name__ == "CpuOffload":
                return name or "the model"
    return None


def devices_in(model: nn.Module) -> tuple[torch.device, ...]:
    """The devices that hold parameters of a model, each once, in the order of its modules."""
    return tuple(dict.fromkeys(parameter.device for parameter in model.parameters()))


def announcement(model: nn.Module, name: str) -> str | None:
    """What is said of a model on several devices: which parts are where; None for one that is in one place."""
    if len(devices_in(model)) < 2:
        return None
    runs = [
        (device, [n for n, _ in rows]) for device, rows in groupby(model.named_parameters(), lambda row: row[1].device)
    ]
    told = (f"{names[0]}{f' to {names[-1]}' if len(names) > 1 else ''} on {device}" for device, names in runs)
    return f"{name}: spread over {len(devices_in(model))} devices: {'; '.join(told)}"


def _accelerate() -> Any:
    try:
        import accelerate
    except ImportError as error:
        raise UsageError(
            "--device-map needs accelerate, which is not installed here: pip install 'editsafety[big]'."
        ) from error
    return accelerate


def _blocks_of(model: Any) -> list[str]:
    """Classes of modules that stay on one device: what is added inside of them is on one device, too."""
    return sorted(getattr(model, "_no_split_modules", None) or ())


def _place_of(parameter: str, places: Mapping[str, str]) -> str:
    """The device of a parameter: that of the longest name in the map which it is below."""
    above = [module for module in places if not module or f"{parameter}.".startswith(f"{module}.")]
    return places[max(above, key=len)]


def _device(module: str, given: Any) -> str:
    """A device in torch's spelling; a number is a card."""
    if given == "disk":
        return "disk"
    known = isinstance(given, str | torch.device) or (isinstance(given, int) and not isinstance(given, bool))
    try:
        if known:
            return f"cuda:{given}" if isinstance(given, int) else str(torch.device(given))
    except RuntimeError:
        pass
    raise UsageError(f"the device map sends {module!r} to {given!r}, which is no device. Give a number, cuda:N or cpu.")
