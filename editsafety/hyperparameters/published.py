"""Hyperparameter files of other toolboxes, read as they are: EasyEdit's YAML, and the JSON of ROME and its successors.

A file is foreign when it holds one of the keys that only those have: module names, devices, paths, `alg_name`. Of
such a file the numbers are used. What cannot change the edit (places, devices, what is logged) is set aside, each key
with a line that says so. What would change the edit and is not done here is refused by name, with the reason, and so
is a key that nobody knows. The sections of hydra's files (`mend:`, `model:`) are read as if they stood at the top.
Files without such a key are our own, and stay strict. What differs from editor to editor is said by
`Hparams.published`.
"""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from editsafety import discovery, hyperparameters
from editsafety.errors import UsageError
from editsafety.hyperparameters import Hparams
from editsafety.model.architectures import ROWS, Part
from editsafety.names import slug

_MODULE = "module names come from the model's architecture"
_MODEL = "the model is an option, --model"
_DEVICE = "the device is an option, --device"
_DTYPE = "the dtype is an option, --dtype"
_PLACE = "what is prepared is kept in editsafety's cache, found by what it was made from"
_TEXTS = "the texts of the second moment are said by mom2_corpus and mom2_tokens"
_MOMENTS = "second moments are summed in float32, and systems with them are solved in float64"
_REPORT = "reports are written to the folder of the run, --out"
ASIDE: Mapping[str, str] = {
    "alg_name": "the editor is an option, --editor",
    "alg": "the editor is an option, --editor",
    **dict.fromkeys(("rewrite_module_tmp", "rewrite_module_tmps", "layer_module_tmp", "mlp_module_tmp"), _MODULE),
    **dict.fromkeys(("attn_module_tmp", "ln_f_module", "lm_head_module", "inner_params"), _MODULE),
    **dict.fromkeys(("model_name", "model_class", "tokenizer_class", "tokenizer_name"), _MODEL),
    **dict.fromkeys(("device", "model_parallel"), _DEVICE),
    **dict.fromkeys(("fp16", "half"), _DTYPE),
    **dict.fromkeys(("stats_dir", "P_loc", "archive", "model_save_pt"), _PLACE),
    **dict.fromkeys(("mom2_dataset", "mom2_n_samples"), _TEXTS),
    "mom2_dtype": _MOMENTS,
    "results_dir": _REPORT,
    "v_loss_layer": "v* is optimised for what the model says at its last layer",
    "max_length": "texts are never cut",
}
ONLY: Mapping[str, tuple[Any, ...]] = {"fact_token": ("subject_last",)}

# Keys that do not make a file foreign, but may stand in one that is: our own files have some of them, too.
_SHOWN = "what is shown is said by --quiet"
_PERPLEXITY = "perplexity is measured on the texts of the run, --texts and --texts-from"
_KEYS = "keys are saved by editsafety keys"
_TRAINING = "how training is watched, and what of it is kept, is up to editsafety prepare"
_BASE = "the model itself is not trained"
ALSO_ASIDE: Mapping[str, str] = {
    "batch_size": "this method takes the facts of an edit together or one by one, as the run says",
    "mom2_adjustment": "this method does not ask",
    "kl_factor": "this method has no such term",
    "calculate_objective_value": "it is printed, and changes nothing",
    **dict.fromkeys(("name", "class_name", "pt", "tokenizer"), _MODEL),
    "torch_dtype": _DTYPE,
    **dict.fromkeys(("verbose", "silent", "debug"), _SHOWN),
    **dict.fromkeys(("ppl_sentence_num", "ppl_batch_size"), _PERPLEXITY),
    **dict.fromkeys(("save_keys", "save_keys_path"), _KEYS),
    "dynamic_multiplier": "it is a factor of dynamic, which is off",
    **dict.fromkeys(("eval_only", "final_eval", "log_interval", "eval_log_interval", "log_errors"), _TRAINING),
    **dict.fromkeys(("save", "val_batch_size", "max_epochs", "train", "ref", "max_output_length"), _TRAINING),
    **dict.fromkeys(("cbase", "base_loss"), _BASE),
    **dict.fromkeys(("data", "eval", "task", "dataset", "hydra"), "data and output are options of the run"),
    **dict.fromkeys(("efk", "enn", "ft"), "it is of another method"),
}
ALSO_ONLY: Mapping[str, tuple[Any, ...]] = {
    "layer_selection": ("all",),
    "use_chat_template": (False,),
    "bias_update": (False,),
    "dynamic": (False,),
    "dropout": (0.0,),
    "train_base": (False,),
    "no_grad_layers": (None,),
    "opt": ("Adam",),
    "edit_bs": (1,),
    "oracle": (False,),
    "single_batch": (False,),
}
# Why another value would be another edit, where that is not plain.
REASONS: Mapping[str, str] = {
    "fact_token": "facts are written at the last token of the subject",
    "use_chat_template": "prompts are asked as the requests give them; write the template into their prompts",
    "train_base": "only the network beside the model is trained",
    "edit_bs": "training shows one edit at a time",
}
IMAGES = "is of a model that sees images; only models of text are edited here"
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("qformer_checkpoint", "qformer_name_or_path", "state_dict_file", "pretrained_ckpt"), IMAGES),
    **dict.fromkeys(("coco_image", "rephrase_image", "file_type", "freeze_qformer", "iedit"), IMAGES),
}
PLACES = ("layer", "layers", "part", "parts")
SECTIONS = ("model",)  # of hydra's files, besides those named like the method: what stands in them counts
_QWEN_1 = ("mlp.w1", "mlp.w2")  # of a family whose files are published, and whose code is not in transformers
ENCODER = re.compile(r"(^|\.)(encoder|decoder)\.block\.|^model\.encoder\.layers?\.")


@dataclass(frozen=True)
class PublishedValues:
    """A file of hyperparameters in an editor's own terms."""

    # The numbers, by our names.
    values: Mapping[str, Any]
    # A line for everything that was set aside.
    aside: tuple[str, ...] = ()
    # The model that the file is for, as files of numbers are named; "" where it does not say.
    model: str = ""


def read(path: Path, kind: type[Hparams], names: Collection[str]) -> PublishedValues:
    """A user's hyperparameter file for an editor that goes by `names` (its own, its folder's).

    Raises UsageError for a foreign file that asks for what is not done here, or holds a key that nobody knows.
    """
    given = hyperparameters.read(path)
    values = _flattened(given, names)
    if not any(key in ASIDE or key in ONLY for key in values.keys() - kind.model_fields.keys()):
        return PublishedValues(given)
    _refuse(values, {**REFUSED, **kind.published.refused}, path)
    _check_method(values, names, path)
    named = str(values.get("model_name") or values.get("name") or "")
    try:
        values = _located(kind, values)
        values = kind.published.convert(values) if kind.published.convert else values
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    read = _sorted(values, kind, path)
    missing = _missing(read.values, kind)
    if kind.published.completed and missing:
        line = f"{', '.join(missing)}: the file leaves it to others, so these are the numbers that ship with editsafety"
        read = replace(read, aside=(*read.aside, line))
    return replace(read, model=slug(named) if named else "")


def complete(read: PublishedValues, kind: type[Hparams], folder: str, model: str) -> PublishedValues:
    """What a file leaves out as its kind does, from the shipped numbers of an editor's folder.

    Those for `model`, the one that is edited, come first, then those for the model that the file names, then those for
    `like` but its places: layers are a model's own. A file of a kind that leaves nothing out stays as it is.
    """
    if not (kind.published.completed and read.aside and _missing(read.values, kind)):
        return read
    for name in filter(None, (model, read.model, kind.published.like)):
        shipped = hyperparameters.find(folder, name)
        if shipped is not None:
            others = hyperparameters.read(shipped)
            places = () if name in (model, read.model) else PLACES
            kept = {key: value for key, value in others.items() if key not in places}
            return replace(read, values={**kept, **read.values})
    return read


def _missing(values: Mapping[str, Any], kind: type[Hparams]) -> list[str]:
    return [name for name, one in kind.model_fields.items() if one.is_required() and name not in values]


def _flattened(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """What stands in the sections of a hydra file, at the top: the method's own, and the model's."""
    own = {*SECTIONS, *names}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= value if key in own and isinstance(value, dict) else {key: value}
    return flat


def _refuse(values: Mapping[str, Any], reasons: Mapping[str, str], path: Path) -> None:
    """Keys that would change the edit, or the kind of model, and that nothing here can honour."""
    for key, reason in reasons.items():
        if key in values:
            raise UsageError(f"{path}: {key} = {_short(values[key])} {reason}.")


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
                why = f": {REASONS[key]}" if key in REASONS else ""
                raise UsageError(
                    f"{path}: {key} = {value!r} cannot be done here, only {can}. Change or drop the line{why}."
                )
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
    if isinstance(found.get("inner_params"), str):
        found["inner_params"] = [found["inner_params"]]
    template = found.get("rewrite_module_tmp")
    for module in (template, *(found.get("inner_params") or ())):
        if module is not None and ENCODER.search(str(module)):
            raise ValueError(f"{module!r} is of a model with an encoder; only models that continue a text are edited.")
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
        if any(name.endswith(f".{one}") for one in (*row.mlp_in, *_QWEN_1)):
            return Part.MLP_IN
    return None


def _number(kind: type[Hparams], name: str, value: Any) -> Any:
    """`false` for a number that may be none means none (norm_constraint), and so do Python's words for it."""
    annotation = kind.model_fields[name].annotation
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    nothing = value is False or value in ("None", "none", "False")
    return None if nothing and type(None) in kinds and bool not in kinds and str not in kinds else value


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
