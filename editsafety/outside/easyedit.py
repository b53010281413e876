"""EasyEdit: a method of somebody's checkout of EasyEdit as an editor: `easyedit:ROME@FOLDER`.

Its table of methods (`easyeditor/util/alg_dict.py`) says which function a name means; that file is read, not run, as it
imports every method with all that they need. Of the package only the method's own modules are imported: `easyeditor`
and `easyeditor.models` are put in place empty. Its hyperparameters go through its own class, but for the device, which
is that of the model. Nothing of ours is imported there.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml

from editsafety.errors import UnknownNameError, UsageError, sentence_of
from editsafety.foreign import contained
from editsafety.names import method

PACKAGE = "easyeditor"
TABLE = Path(PACKAGE, "util", "alg_dict.py")
EMPTY = (PACKAGE, f"{PACKAGE}.models")  # what they import is every method there is


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """Where a method is."""

    # The module that the table takes it from: "easyeditor.models.rome".
    module: str
    # The function there, or the class whose `apply_to_model` it is.
    name: str
    # Whether it is a class.
    is_class: bool
    # The class of its hyperparameters, in the same module.
    numbers: str


def editor_of(name: str) -> Callable[..., Any]:
    """The function of a method, called as EasyEdit calls it. Raises UsageError for what cannot be imported."""
    wanted, folder = method(name)
    place = Path(folder).expanduser().resolve()
    entry = find_entry(place, wanted)
    module = _imported(place, entry, wanted)
    try:
        found = getattr(module, entry.name)
        numbers = getattr(module, entry.numbers)
    except AttributeError as error:
        raise UsageError(f"{place}: {sentence_of(error)}, which its own table names for {wanted}.") from error
    return _as_called_there(found().apply_to_model if entry.is_class else found, numbers)


def find_entry(place: Path, wanted: str) -> MethodEntry:
    """What the table of a checkout says of a method; nothing is imported. Raises UsageError, UnknownNameError."""
    try:
        tree = ast.parse((place / TABLE).read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{place / TABLE}: the table of methods cannot be read ({error}).") from error
    modules = {one.name: (node.module or "", node) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
               for one in node.names}  # fmt: skip
    known: dict[str, ast.expr] = {}
    for node in tree.body:
        named = isinstance(node, ast.Assign) and any(getattr(one, "id", "") == "ALG_DICT" for one in node.targets)
        if named and isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            pairs = zip(node.value.keys, node.value.values, strict=True)
            known = {str(key.value): value for key, value in pairs if isinstance(key, ast.Constant)}
    if wanted not in known:
        raise UnknownNameError("method of EasyEdit", wanted, known)
    names = [one.id for one in ast.walk(known[wanted]) if isinstance(one, ast.Name)]
    if len(names) != 1 or names[0] not in modules:
        raise UsageError(f"{place / TABLE}: {wanted} is {ast.unparse(known[wanted])!r}, expected a function or X().f.")
    relative, node = modules[names[0]]
    numbers = next((one.name for one in node.names if one.name.lower().endswith("params")), "")
    return MethodEntry(f"{PACKAGE}.{relative}", names[0], not isinstance(known[wanted], ast.Name), numbers)


def _imported(place: Path, entry: MethodEntry, wanted: str) -> ModuleType:
    """The method's module, out of that checkout and of no other."""
    for name in EMPTY:
        folder = str(place.joinpath(*name.split(".")))
        here = sys.modules.get(name)
        if here is None:
            here = sys.modules[name] = ModuleType(name, f"Put in place of {folder}, which imports every method.")
            here.__path__ = [folder]
        if list(getattr(here, "__path__", ())) != [folder]:
            raise UsageError(f"{name} is imported already, from {list(getattr(here, '__path__', ()))}, not {folder}.")
    try:
        with contained(f"EasyEdit's {wanted}"):
            return importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        raise UsageError(
            f"EasyEdit's {wanted} needs {missing}, which is not installed here ({sentence_of(error)}). Install it "
            "as its requirements.txt says, or run EasyEdit in an environment of its own as a program: "
            "--editor 'command: ...'."
        ) from error
    except Exception as error:
        raise UsageError(
            f"EasyEdit's {wanted} ({entry.module}) fails while being imported: {sentence_of(error)}"
        ) from error


def _as_called_there(apply: Callable[..., Any], numbers: Any) -> Callable[..., Any]:
    """The function with its hyperparameters read by its own class, which fills in what a file leaves out."""

    @functools.wraps(apply)
    def edit(model: torch.nn.Module, tok: Any, requests: Any, hparams: Any, **switches: Any) -> Any:
        own = _read_by(numbers, vars(hparams), next(model.parameters()).device)
        return apply(model, tok, requests, own, **switches)

    edit.__signature__ = inspect.signature(apply)  # type: ignore[attr-defined]
    return edit


def _read_by(numbers: Any, values: dict[str, Any], device: torch.device) -> Any:
    where: int | str = "cpu" if device.type == "cpu" else device.index or 0
    given = {**values, **({"device": where} if "device" in values else {})}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "hparams.yaml")
        file.write_text(yaml.safe_dump(given), encoding="utf-8")
        return numbers.from_hparams(str(file))
