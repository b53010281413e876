"""Foreign: hyperparameter files of EasyEdit (YAML) and of ROME, MEMIT and their successors (JSON), read as they are.

A file is foreign when it holds one of the keys that only those have: module names, devices, paths, `alg_name`. Of
such a file the numbers are used. What says where things are or on which device they run is set aside, each with one
line that says so; a value that cannot be honoured (`fact_token: last`, another method's `alg_name`) is refused, and so
is a key that nobody knows. Files without such a key are our own, and stay strict. What differs from editor to editor is
said by `Hparams.published`.
"""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from editsafety import discovery, hyperparameters
from editsafety.errors import UsageError
from editsafety.hyperparameters import Hparams
from editsafety.model.architectures import ROWS, Part

_MODULE = "module names come from the model's architecture"
_MODEL = "the model is an option, --model"
_DEVICE = "the device is an option, --device"
_DTYPE = "the dtype is an option, --dtype"
_PLACE = "what is prepared is kept in editsafety's cache, found by what it was made from"
_TEXTS = "the texts of the second moment are said by mom2_corpus and mom2_tokens"
_REPORT = "reports are written to the folder of the run, --out"
ASIDE: Mapping[str, str] = {
    "alg_name": "the editor is an option, --editor",
    "alg": "the editor is an option, --editor",
    "rewrite_module_tmp": _MODULE,
    "rewrite_module_tmps": _MODULE,
    "layer_module_tmp": _MODULE,
    "mlp_module_tmp": _MODULE,
    "attn_module_tmp": _MODULE,
    "ln_f_module": _MODULE,
    "lm_head_module": _MODULE,
    "inner_params": _MODULE,
    "model_name": _MODEL,
    "model_class": _MODEL,
    "tokenizer_class": _MODEL,
    "tokenizer_name": _MODEL,
    "device": _DEVICE,
    "model_parallel": _DEVICE,
    "fp16": _DTYPE,
    "half": _DTYPE,
    "stats_dir": _PLACE,
    "P_loc": _PLACE,
    "archive": _PLACE,
    "model_save_pt": _PLACE,
    "mom2_dataset": _TEXTS,
    "mom2_n_samples": _TEXTS,
    "mom2_dtype": _TEXTS,
    "results_dir": _REPORT,
    "v_loss_layer": "v* is optimised for what the model says at its last layer",
    "max_length": "texts are never cut",
}
ONLY: Mapping[str, tuple[Any, ...]] = {"fact_token": ("subject_last",)}

# Keys that do not make a file foreign, but may stand in one that is: our own files have some of them, too.
ALSO_ASIDE: Mapping[str, str] = {
    "batch_size": "this method takes the facts of an edit together or one by one, as the run says",
    "mom2_adjustment": "this method does not ask",
    "kl_factor": "this method has no such term",
    "calculate_objective_value": "it is printed, and changes nothing",
    "verbose": "what is shown is said by --quiet",
    "silent": "what is shown is said by --quiet",
    "debug": "what is shown is said by --quiet",
}
ALSO_ONLY: Mapping[str, tuple[Any, ...]] = {
    "layer_selection": ("all",),
    "use_chat_template": (False,),
    "bias_update": (False,),
    "dynamic": (False,),
}


@dataclass(frozen=True)
class PublishedValues:
    """A file of hyperparameters in an editor's own terms."""

    # The numbers, by our names.
    values: Mapping[str, Any]
    # A line for everything that was set aside.
    aside: tuple[str, ...] = ()


def read(path: Path, kind: type[Hparams], names: Collection[str]) -> PublishedValues:
    """A user's hyperparameter file for an editor that goes by `names` (its own, its folder's).

    Raises UsageError for a foreign file that asks for what is not done here, or holds a key that nobody knows.
    """
    values = hyperparameters.read(path)
    if not any(key in ASIDE or key in ONLY for key in values.keys() - kind.model_fields.keys()):
        return PublishedValues(values)
    _check_method(values, names, path)
    try:
        values = _located(kind, values)
        values = kind.published.convert(values) if kind.published.convert else values
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    return _sorted(values, kind, path)


def _sorted(values: Mapping[str, Any], kind: type[Hparams], path: Path) -> PublishedValues:
    """Every key is a number of ours, set aside, or refused."""
    known = kind.published
    asides = {**ASIDE, **ALSO_ASIDE, **known.aside}
    only = {**ONLY, **ALSO_ONLY, **known.only}
    found: dict[str, Any] = {}
    lines = []
    for key, value in values.items():
        name = known.renamed.get(key, key)
        if name in kind.model_fields:
            found[name] = _number(kind, name, value)
        elif key in only:
            if value not in only[key]:
                can = " or ".join(map(repr, only[key]))
                raise UsageError(f"{path}: {key} = {value!r} cannot be done here, only {can}. Change or drop the line.")
        elif key in asides:
            lines.append(f"{key} = {_short(value)} is set aside: {asides[key]}")
        else:
            ours = ", ".join(sorted({*kind.model_fields, *known.renamed}))
            raise UsageError(f"{path}: unknown hyperparameter {key!r}. Known: {ours}.")
    return PublishedValues({**known.implied, **found}, tuple(lines))


def _check_method(values: Mapping[str, Any], names: Collection[str], path: Path) -> None:
    """`alg_name` has to be the editor that was asked for, whichever way it is spelt (R-ROME, r_rome)."""
    asked = next((str(values[key]) for key in ("alg_name", "alg") if values.get(key)), None)
    if asked is None or _plain(asked) in map(_plain, names):
        return
    same = [name for name in discovery.names("editors") if _plain(name) == _plain(asked)]
    hint = f"Ask for --editor {same[0]}" if same else "Give the file of the editor that was asked for"
    own = " or ".join(sorted(set(names)))
    raise UsageError(f"{path}: alg_name = {asked!r}, but the editor is {own}. {hint}, or drop the line.")


def _located(kind: type[Hparams], values: Mapping[str, Any]) -> dict[str, Any]:
    """The modules that a file names, checked against what is edited here, or as layer and part.

    Raises ValueError (a sentence) for modules that the method cannot edit here.
    """
    found = dict(values)
    template = found.get("rewrite_module_tmp")
    if template is not None and _part(str(template)) is not Part.MLP_OUT:
        raise ValueError(f"rewrite_module_tmp = {template!r}, but only the MLP's down-projection is edited here.")
    fields = kind.model_fields.keys()
    if found.get("inner_params") and ({"layer", "part"} <= fields or {"layers", "parts"} <= fields):
        places = dict.fromkeys(map(_place, found.pop("inner_params")))
        layers, parts = dict.fromkeys(layer for layer, _ in places), dict.fromkeys(part for _, part in places)
        if "layer" in fields and len(places) > 1:
            raise ValueError(f"inner_params names {len(places)} projections; this method runs behind one.")
        if list(places) != [(layer, part) for layer in layers for part in parts]:
            raise ValueError(
                "inner_params has other projections, or another order of them, in some layers than in others."
            )
        both = {"layer": next(iter(layers)), "part": next(iter(parts)), "layers": list(layers), "parts": list(parts)}
        found |= {name: value for name, value in both.items() if name in fields}
    return found


def _place(module: object) -> tuple[int, str]:
    """Layer and part that a module's name means, as in `transformer.h[35].mlp.c_fc.weight`."""
    layers, part = re.findall(r"[.\[](\d+)(?=[.\]])", str(module)), _part(str(module))
    if len(layers) != 1 or part is None:
        raise ValueError(f"inner_params: {module!r} is no projection of an MLP that is known here.")
    return int(layers[0]), part.value


def _part(module: str) -> Part | None:
    """Which part of a block a module name (or template) means, in whatever family has one of that name."""
    name = module.removesuffix(".weight").removesuffix(".bias")
    for row in ROWS:
        if name.endswith(f".{row.mlp_out}"):
            return Part.MLP_OUT
        if any(name.endswith(f".{one}") for one in row.mlp_in):
            return Part.MLP_IN
    return None


def _number(kind: type[Hparams], name: str, value: Any) -> Any:
    """`false` for a number that may be none means none (norm_constraint)."""
    annotation = kind.model_fields[name].annotation
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    return None if value is False and type(None) in kinds and bool not in kinds else value


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
