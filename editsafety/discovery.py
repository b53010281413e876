"""Find the members of a family: files in its package, entry points of other packages, or `path.py:Name`.

A file is a member when it says so, as in `EDITOR = Rome`; a file beside it that does not is what several members share.
Listing reads files and imports none; loading imports one. A new member is one new file and no change anywhere else.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from editsafety.command_line import CommandLine, is_command
from editsafety.errors import UnknownNameError, UsageError, sentence_of
from editsafety.foreign import contained
from editsafety.names import is_outside, method, parts
from editsafety.source_files import is_of_package, root_of

OURS = "editsafety"  # where a member comes from that is part of the project

# How the file of a member says so, by family.
MEMBER = {
    "editors": "EDITOR",
    "regularisers": "REGULARISER",
    "measures": "MEASURE",
    "datasets": "LOADER",
    "abilities": "READER",
    "research.experiments": "EXPERIMENT",
    "reporting": "REPORT",
}


# What makes an editor of a line that is no member's name, loaded only then: it asks for what is above the families.
OUTSIDE = {"command": "editsafety.outside.program", "easyedit": "editsafety.outside.easyedit"}


def names(family: str) -> list[str]:
    """Names of every member of `editsafety.<family>`, sorted: its files and the entry points of that group."""
    return sorted(_members(family) | {point.name for point in _entry_points(_group(family))})


def origin(family: str, name: str) -> str:
    """Where a member comes from: the project itself, a file, or package, version and entry point of somebody else's."""
    if ".py:" in name or _is_line(family, name):
        return name
    points = _points(family, name)
    return OURS if not points or name in _members(family) else _spelled(points[0])


def plugins() -> dict[str, str]:
    """Every member of somebody else's package, as "measures: name", with package, version and entry point."""
    return {f"{family}: {point.name}": _spelled(point) for family in sorted(MEMBER) for point in _points(family)}


def expect(family: str, name: str) -> None:
    """Check that a member can be meant, without importing it. Raises UnknownNameError or UsageError."""
    if _is_line(family, name):
        _expect_outside(name)
    elif ".py:" in name:
        _path_of(name)
    else:
        _expect(family, name, _members(family), _points(family))


def _expect(family: str, name: str, own: Collection[str], points: Collection[EntryPoint]) -> None:
    known = sorted({*own, *(point.name for point in points)})
    if name not in known and name in _files(family):
        raise UsageError(f"editsafety/{family.replace('.', '/')}/{name}.py does not define {MEMBER[family]}.")
    if name not in known:
        raise UnknownNameError(family.rstrip("s"), name, known, "One of your own: path/to/file.py:ClassName.")
    _refuse_twins(family, name, own, points)


def expect_editor(name: str) -> None:
    """Check an editor's name, or an expression like `rect(memit)`, importing nothing.

    Raises UnknownNameError naming the known editors or regularisers, or UsageError.
    """
    around, inner = parts(name)
    for regulariser in around:
        expect("regularisers", regulariser)
    if inner in names("regularisers") and inner not in names("editors"):
        example = "(".join([*around, inner, "memit"]) + ")" * (len(around) + 1)
        raise UsageError(f"{inner!r} is no editor: it regularises another one, as in {example}.")
    expect("editors", inner)


def load(family: str, name: str) -> Any:
    """The member `name`: what its file assigns to its family's name, an entry point's object, or `path.py:Name`.

    An editor may also be a line, `command: ...` or `easyedit:...`. Raises UnknownNameError or UsageError.
    """
    if _is_line(family, name):
        _expect_outside(name)
        return importlib.import_module(OUTSIDE[name.partition(":")[0]]).editor_of(name)
    if ".py:" in name:
        return from_file(name)
    own, points = _members(family), _points(family)
    _expect(family, name, own, points)
    return _load(family, name, own, points)


def _is_line(family: str, name: str) -> bool:
    return family == "editors" and is_outside(name)


def _expect_outside(name: str) -> None:
    """Raise UsageError for a command that cannot be run, or a method without a checkout to take it from."""
    if is_command(name):
        CommandLine.of(name).refuse_absent()
        return
    wanted, folder = method(name)
    if not folder or not wanted:
        raise UsageError(
            f"{name!r}: no checkout is given. Say --easyedit FOLDER, or easyedit:{wanted or 'ROME'}@FOLDER."
        )
    if not Path(folder, "easyeditor").is_dir():
        raise UsageError(
            f"{folder}: holds no folder easyeditor, so it is no checkout of EasyEdit (needed for {name!r})."
        )


def load_all(family: str) -> tuple[Any, ...]:
    """Every member, sorted by name; the family is listed once for all of them. Raises UsageError."""
    own, points = _members(family), _points(family)
    every = sorted(own | {point.name for point in points})
    for name in every:
        _refuse_twins(family, name, own, points)
    return tuple(_load(family, name, own, points) for name in every)


def _load(family: str, name: str, own: Collection[str], points: Iterable[EntryPoint]) -> Any:
    if name in own:
        return getattr(importlib.import_module(f"editsafety.{family}.{name}"), MEMBER[family])
    (point,) = (point for point in points if point.name == name)
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{name}: the entry point {point.value!r} cannot be loaded: {error}") from error


def declared(family: str, name: str, attributes: Collection[str]) -> dict[str, Any]:
    """What a member says of itself, of these attributes, without importing a file of the package.

    Of a file that is what the body of its class assigns as a plain value; an entry point is loaded and asked. An
    attribute that is not there, or is computed, is left out.
    """
    if name not in _members(family):
        member = load(family, name)
        return {one: getattr(member, one) for one in attributes if hasattr(member, one)}
    tree = ast.parse(_files(family)[name].read_text(encoding="utf-8"))
    kinds = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    values = dict(_assigned(tree.body))
    made = values.get(MEMBER[family])
    kind = kinds.get(made.func.id) if isinstance(made, ast.Call) and isinstance(made.func, ast.Name) else None
    found: dict[str, Any] = {}
    for one, value in _assigned(kind.body if kind is not None else []):
        if one in attributes:
            with suppress(ValueError):
                found[one] = ast.literal_eval(value)
    return found


def _assigned(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if value is not None:
            yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))


def _refuse_twins(family: str, name: str, own: Collection[str], points: Iterable[EntryPoint]) -> None:
    """Raise UsageError where a name has two owners: which of them was run could not be seen."""
    others = [_spelled(point) for point in points if point.name == name]
    owners = [*(["editsafety itself"] if name in own else []), *others]
    if len(owners) > 1:
        raise UsageError(
            f"{family.rpartition('.')[2]}: the name {name!r} is taken by {' and by '.join(owners)}. "
            "Uninstall one of the packages, or rename its entry point."
        )


def _points(family: str, name: str | None = None) -> list[EntryPoint]:
    """The entry points of a family, each once: a package may be on the path twice."""
    found = _entry_points(_group(family))
    return list({(point.name, point.value): point for point in found if name in (None, point.name)}.values())


def _entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Looked for again only when a folder of the path has changed: a run asks a hundred times, and each search takes
    ten milliseconds.
    """
    return _found(entry_points, group, tuple((place, _changed(place)) for place in sys.path))


@lru_cache(maxsize=64)
def _found(
    search: Callable[..., Iterable[EntryPoint]], group: str, _path: tuple[tuple[str, int], ...]
) -> tuple[EntryPoint, ...]:
    return tuple(search(group=group))


def _changed(place: str) -> int:
    """When a folder was changed last; packages are installed beside each other in one."""
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


def _spelled(point: EntryPoint) -> str:
    package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "a package"
    return f"{package} ({point.value})"


def _group(family: str) -> str:
    """The entry-point group of a family: its own name, wherever its folder stands."""
    return f"editsafety.{family.rpartition('.')[2]}"


def _members(family: str) -> set[str]:
    """The members that are files of the family's package."""
    assigns = re.compile(rf"^{MEMBER[family]}\b *[:=]", re.MULTILINE)
    return {name for name, path in _files(family).items() if assigns.search(path.read_text(encoding="utf-8"))}


def _files(family: str) -> dict[str, Path]:
    """The public files of a family's package, and of its folders their first, found without importing the package.

    Some families bring torch in, so `find_spec` may ask for no name below the family's own.
    """
    spec = importlib.util.find_spec(f"editsafety.{family}")
    folders = (spec.submodule_search_locations if spec is not None else None) or []
    return {
        module.name: Path(folder, module.name, "__init__.py") if module.ispkg else Path(folder, f"{module.name}.py")
        for folder in folders
        for module in pkgutil.iter_modules([folder])
        if not module.name.startswith("_")
    }


def _path_of(name: str) -> Path:
    place = name.rpartition(":")[0]
    path = Path(place).resolve()
    if not path.is_file():
        raise UsageError(f"{place}: there is no such file (needed for {name!r}).")
    return path


def from_file(name: str) -> Any:
    """What `path/to/file.py:Name` means. Raises UsageError when file or name is not there, or the file fails."""
    place, _, attribute = name.rpartition(":")
    path = _path_of(name)
    if is_of_package(path):
        return _attribute(_of_package(path, place), attribute, place)
    # One module per path and content: what an editor keeps in its module or class stays visible, an edited file is new.
    module_name = f"editsafety_user_{path.stem}_{hashlib.sha256(bytes(path) + path.read_bytes()).hexdigest()[:16]}"
    module = sys.modules.get(module_name) or _execute(module_name, path, place)
    return _attribute(module, attribute, place)


def _attribute(module: ModuleType, name: str, place: str) -> Any:
    if not hasattr(module, name):
        own = (n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__)
        raise UsageError(f"{place}: has no {name!r}. Classes in it: {', '.join(sorted(own)) or 'none'}.")
    return getattr(module, name)


def _of_package(path: Path, place: str) -> ModuleType:
    """A file that is a part of a package, by its name there.

    The folder that holds the package joins the search path, as if the program had been started there.
    """
    root = root_of(path)
    if str(root) not in sys.path:
        sys.path.append(str(root))
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    try:
        with contained("it"):
            module = importlib.import_module(name)
    except Exception as error:  # a user's file may raise anything
        raise UsageError(f"{place}: fails while being imported: {sentence_of(error)}") from error
    if Path(str(module.__file__)).resolve() != path:
        raise UsageError(f"{place}: another package of that name is imported already, from {module.__file__}.")
    return module


def _execute(module_name: str, path: Path, place: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{place}: cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        with contained("it"):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[module_name]  # half made, whatever stopped it
        if not isinstance(error, Exception):
            raise
        raise UsageError(f"{place}: fails while being imported: {sentence_of(error)}") from error
    return module
