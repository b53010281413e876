"""Source files: which files decide what a user's file does; read, never imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def sources_of(path: Path) -> tuple[Path, ...]:
    """The files that decide what a user's file does: itself, or its package with those beside it that are imported."""
    path = path.resolve()
    if not is_of_package(path):
        return (path,)
    root = root_of(path)
    own = sorted((root / path.relative_to(root).parts[0]).rglob("*.py"))
    beside = {name for file in own for name in _imported(file)} - {own[0].relative_to(root).parts[0]}
    others = [file for name in sorted(beside) for file in sorted((root / name).rglob("*.py"))]
    return (*own, *others, *(root / f"{name}.py" for name in sorted(beside) if (root / f"{name}.py").is_file()))


def sources_of_script(path: Path) -> tuple[Path, ...]:
    """The files that decide what a script does: itself, and what it imports, at whatever remove, of its own folder."""
    found: set[Path] = set()
    left = [path.resolve()]
    while left:
        file = left.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imported(file) if file.suffix == ".py" else ():
            beside = path.resolve().parent / name
            left += [one for one in (beside.with_name(f"{name}.py"),) if one.is_file()]
            left += beside.rglob("*.py") if beside.is_dir() else ()
    return tuple(sorted(found))


def is_of_package(path: Path) -> bool:
    """Whether a file says `from .other import ...`, and so can only be a part of its package."""
    return (path.parent / "__init__.py").is_file() and any(
        isinstance(node, ast.ImportFrom) and node.level > 0 for node in _nodes(path)
    )


def root_of(path: Path) -> Path:
    """The folder that holds the package of a file."""
    return next(folder for folder in path.parents if not (folder / "__init__.py").is_file())


def _imported(path: Path) -> set[str]:
    """The first names of what a file imports, but for its own package's."""
    found: set[str] = set()
    for node in _nodes(path):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        found |= {name.partition(".")[0] for name in names if name}
    return found


def _nodes(path: Path) -> Iterator[ast.AST]:
    """What a file says; nothing for one that is no Python: importing it says what is wrong."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    yield from ast.walk(tree)
