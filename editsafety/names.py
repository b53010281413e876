"""Short names of models and editors, for ids, files, tables and hyperparameter folders.

An editor is named by a word (`memit`), by `path.py:Class`, by a line that says what to run (`command: ...`), or by an
expression with regularisers around one of these: `rect(memit)`, `rect(prune(path/my.py:Mine))`. Expressions are taken
apart here and nowhere else.
"""

from __future__ import annotations

import re
from functools import lru_cache

from editsafety import command_line
from editsafety.command_line import CommandLine
from editsafety.errors import UsageError

METHOD = "easyedit:"  # how the name of a method of an EasyEdit checkout begins: `easyedit:ROME@FOLDER`


@lru_cache(maxsize=1024)
def slug(model: str) -> str:
    """A model's short name: the last part of its path, lower case, in characters that a test id and a file can hold.

    `random:gpt2-xl` is gpt2-xl, `path/model.py:make` is make.
    """
    last = model.removeprefix("random:").rstrip("/").split("/")[-1]
    last = last.rpartition(":")[2] if ".py:" in last else last
    return re.sub(r"[^a-z0-9_.-]+", "-", last.lower()).strip("-.") or "model"


def unwrapped(editor: str) -> tuple[str, str]:
    """An editor's outermost regulariser, and what is inside: `rect(prune(ft))` is `("rect", "prune(ft)")`.

    `("", editor)` for an editor without one. A path may hold parentheses itself, as long as they match. Raises
    UsageError for parentheses that do not match or hold nothing.
    """
    text = editor.strip()
    if is_outside(text):
        return "", text
    if not text.endswith(")"):
        if "(" in text and "/" not in text and ".py:" not in text:
            raise UsageError(f"editor {editor!r}: the parenthesis is not closed. Write it like rect(memit).")
        return "", text
    depth = 0
    for place in range(len(text) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(text[place], 0)
        if depth == 0:
            outer, inner = text[:place].strip(), text[place + 1 : -1].strip()
            if outer and inner:
                return outer, inner
            lacks = "nothing is inside the parentheses" if outer else "nothing is before the parentheses"
            raise UsageError(f"editor {editor!r}: {lacks}. Write it like rect(memit).")
    raise UsageError(f"editor {editor!r}: a parenthesis too many. Write it like rect(memit).")


def parts(editor: str) -> tuple[tuple[str, ...], str]:
    """The regularisers from the outside in, and the editor that they are around. Raises UsageError as `unwrapped`."""
    around: list[str] = []
    outer, inner = unwrapped(editor)
    while outer:
        around.append(outer)
        outer, inner = unwrapped(inner)
    return tuple(around), inner


@lru_cache(maxsize=1024)
def label(editor: str) -> str:
    """An editor's short name: the class of `path.py:Class`, the script of a command, else the name itself.

    `rect(a/b.py:Mine)` is rect(Mine), `command: python a/edit.py ...` is edit-py, `easyedit:ROME@...` easyedit-ROME.
    """
    around, inner = parts(editor)
    words = [word.rpartition(":")[2] if ".py:" in word else word for word in around]
    return "(".join([*words, _short(inner)]) + ")" * len(around)


def is_outside(editor: str) -> bool:
    """Whether an editor is a program or a method of a toolbox, whose name is a line and no word."""
    return command_line.is_command(editor) or editor.strip().startswith(METHOD)


def method(editor: str) -> tuple[str, str]:
    """The method and the folder of `easyedit:METHOD@FOLDER`; the folder is "" where none is given."""
    name, _, folder = editor.strip().removeprefix(METHOD).partition("@")
    return name.strip(), folder.strip()


def with_folder(editor: str, folder: str) -> str:
    """An editor's name with the folder of EasyEdit, where it is one of its methods and has none yet."""
    around, inner = parts(editor)
    if not inner.startswith(METHOD) or not folder or method(inner)[1]:
        return editor
    return "(".join([*around, f"{inner}@{folder}"]) + ")" * len(around)


def _short(editor: str) -> str:
    if command_line.is_command(editor):
        return CommandLine.of(editor).label
    if is_outside(editor):
        return f"easyedit-{method(editor)[0]}"
    return editor.rpartition(":")[2] if ".py:" in editor else editor


@lru_cache(maxsize=1024)
def tag(editor: str) -> str:
    """The label in characters that ids, file names and pytest's -k can hold: `rect(Mine)` is rect.Mine.

    No editor's name holds a dot (they are names of modules and classes), so nothing else is called that.
    """
    return label(editor).replace("(", ".").replace(")", "")
