"""The user's own files that a plan names: what is in them decides whether it is the same run."""

from __future__ import annotations

import hashlib
from pathlib import Path

from editsafety.command_line import CommandLine, is_command
from editsafety.names import is_outside, method, parts
from editsafety.source_files import sources_of, sources_of_script


def code_digest(editor: str) -> str:
    """Of the user's own files in an editor's name: `path.py:Class`, alone or in an expression; those of a command."""
    around, inner = parts(editor)
    if is_outside(inner):
        own = "".join(hashlib.sha256(one.read_bytes()).hexdigest() for one in _files_of(inner))
        return "".join(map(code_digest, around)) + own
    return "".join(file_digest(one.rpartition(":")[0]) for one in (*around, inner) if ".py:" in one)


def _files_of(editor: str) -> list[Path]:
    """The files of a program, as far as its line names them, or of a checkout of EasyEdit."""
    if is_command(editor):
        return [one for path in CommandLine.of(editor).files for one in sources_of_script(path)]
    return sorted(Path(method(editor)[1], "easyeditor").rglob("*.py"))


def file_digest(name: str) -> str:
    """Of a user's file and of those that it imports from its folder; empty where there is none."""
    path = Path(name)
    files = sources_of(path) if path.is_file() else ()
    return "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def device_map(given: str | None) -> str | None:
    """A device map as it counts: one in a file is what the file holds, as if it had been typed, wherever that is."""
    if given is None or given.lstrip().startswith("{"):
        return given
    path = Path(given).expanduser()
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else given
