"""The shape of the package: imports go down, heavy imports wait, files are short, public things are explained."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import editsafety
from editsafety import discovery

PACKAGE = Path(editsafety.__file__).parent
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))

# From the ground up: a room may import what is below it, and its own files.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "escaping", "numbers"),
    ("command_line", "source_files"),
    ("foreign", "names", "progress", "shipped", "tensor_files", "yaml_files"),
    ("artifacts", "discovery"),
    ("datasets", "model"),
    ("hyperparameters",),
    ("edits", "runs"),
    ("edit", "engine", "judging", "trace"),
    ("editing",),
    ("abilities", "editors", "measures", "pocket"),
    ("regularisers",),
    ("lab",),
    ("reporting", "supervision"),
    ("cluster", "publishing"),
    ("plugin", "received"),
    ("guarding", "outside", "research"),
    ("cli",),
    ("__main__",),
)
LAYER = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}

# What has to start fast, or to work where torch is not installed.
LIGHT = (
    "artifacts", "cli", "cluster", "command_line", "datasets", "discovery", "errors", "escaping", "foreign",
    "hyperparameters", "judging", "names", "numbers", "plugin", "progress", "publishing", "reporting", "runs",
    "shipped", "source_files", "supervision", "tensor_files", "yaml_files",
)  # fmt: skip
LONGEST = 350

# Run once by whoever builds the shipped model, imported by nothing else.
BUILDERS = {Path("pocket/check.py"), Path("pocket/tokenizer.py"), Path("pocket/train.py")}


def room_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Modules imported when the file is: not inside functions, not for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        yield from imports(node)


def parsed(path: Path) -> ast.Module:
    return ast.parse((PACKAGE / path).read_text(encoding="utf-8"))


def own(path: Path) -> Iterator[tuple[tuple[str, ...], int]]:
    """Imports of the package's own modules, as parts below `editsafety`."""
    for name, line in imports(parsed(path)):
        parts = name.split(".")
        if parts[0] == "editsafety" and len(parts) > 1 and parts[1] != "__version__":
            yield tuple(parts[1:]), line


def test_every_room_has_a_layer() -> None:
    missing = {room_of(path) for path in FILES if path.name != "__init__.py" or len(path.parts) > 1} - LAYER.keys()
    assert not missing, f"say in tests/test_layers.py on which layer {sorted(missing)} stand(s)"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_down_the_layers_only(path: Path) -> None:
    room = room_of(path)
    for (target, *_), line in own(path):
        if target != room and target in LAYER and room in LAYER:
            assert LAYER[target] < LAYER[room], f"{path}:{line}: {room} must not import {target}"


@pytest.mark.parametrize("family", discovery.MEMBER)
def test_members_of_a_family_do_not_import_each_other(family: str) -> None:
    room = tuple(family.split("."))
    members = set(discovery.names(family))
    for path in (path for path in FILES if path.parts[: len(room)] == room):
        itself = path.parts[len(room)].removesuffix(".py")
        siblings = {(*room, member) for member in members - {itself}}
        for target, line in own(path):
            assert target[: len(room) + 1] not in siblings, f"{path}:{line}: {itself} must not import {target[-1]}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_private_file_is_imported_from_its_own_folder_only(path: Path) -> None:
    for target, line in own(path):
        for depth, part in enumerate(target):
            if part.startswith("_") and (PACKAGE.joinpath(*target[:depth]) / f"{part}.py").is_file():
                assert path.parts[:depth] == target[:depth], f"{path}:{line}: {'.'.join(target)} is private to its room"


@pytest.mark.parametrize("path", [path for path in FILES if path not in BUILDERS], ids=str)
def test_transformers_is_imported_only_when_a_model_is_needed(path: Path) -> None:
    heavy = [
        f"{path}:{line}" for name, line in imports(parsed(path)) if name.split(".")[0] in {"transformers", "datasets"}
    ]
    assert not heavy


def test_light_modules_import_neither_torch_nor_transformers() -> None:
    """In one fresh interpreter, one after another; the first offender is named."""
    rooms = {path: room_of(path) for path in FILES if room_of(path) in LIGHT}
    modules = ["editsafety", *(".".join(("editsafety", *path.with_suffix("").parts)) for path in rooms)]
    modules = [name.removesuffix(".__init__") for name in modules if not name.endswith(".__main__")]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = [n for n in ('torch', 'transformers', 'numpy', 'safetensors') if n in sys.modules]\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_file_is_too_long_to_be_read_at_once(path: Path) -> None:
    lines = len((PACKAGE / path).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path} has {lines} lines"


def test_no_two_classes_share_a_name() -> None:
    """A private class counts by its name without the underscore."""
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in (node for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)):
            places.setdefault(node.name.lstrip("_"), []).append(f"{path}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_everything_public_says_what_it_is(path: Path) -> None:
    assert list(unexplained(parsed(path), str(path))) == []


def unexplained(tree: ast.Module | ast.ClassDef, where: str) -> Iterator[str]:
    """Names without a docstring; an overriding method has its base's, a private one needs none."""
    if isinstance(tree, ast.Module) and not ast.get_docstring(tree):
        yield f"{where}: the module itself"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        overrides = isinstance(tree, ast.ClassDef) and bool(tree.bases)
        if not ast.get_docstring(node) and not overrides and "overload" not in ast.dump(ast.Tuple(node.decorator_list)):
            yield f"{where}:{node.lineno}: {node.name}"
        if isinstance(node, ast.ClassDef):
            yield from unexplained(node, where)


def test_the_public_names_are_there_and_resolved_on_first_use() -> None:
    for name in editsafety.__all__:
        assert getattr(editsafety, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        editsafety.nothing  # noqa: B018
