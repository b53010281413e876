"""Command lines as editors' names: split without a shell, with places that are known, called by a short name."""

from __future__ import annotations

from pathlib import Path

import pytest

from editsafety import discovery, names
from editsafety.command_line import CommandLine
from editsafety.errors import UsageError

PLACES = "{model} {requests} {out}"


def test_a_line_is_split_as_a_shell_would_and_no_shell_sees_it() -> None:
    line = CommandLine.of(f"command: python 'my edit.py' --size=1 $HOME '*' ; {PLACES}")
    assert line.words[:6] == ("python", "my edit.py", "--size=1", "$HOME", "*", ";")
    filled = line.filled({"model": "/a b/{out}", "requests": "r", "out": "o"})
    assert filled[6:] == ["/a b/{out}", "r", "o"]  # a value is not looked at again


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"command: python edit.py {PLACES} {{device}}", r"\{device\} is not known. Known: \{model\} \(the folder"),
        ("command: python edit.py {model} {requests}", r"lacks \{out\}. Write it like 'command: python edit.py"),
        ("command:", r"lacks \{model\}, \{requests\}, \{out\}"),
        (f"command: python 'edit.py {PLACES}", "cannot be split into words: No closing quotation"),
        (f"command: no-such-program {PLACES}", "no-such-program: there is no such program"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused_before_anything_runs(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        discovery.expect_editor(name)


def test_json_in_a_line_is_no_place() -> None:
    assert CommandLine.of(f"""command: edit '{{"size": 1}}' {PLACES}""").words[1] == '{"size": 1}'


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ("python a/edit.py", "edit-py"),
        ("conda run -n env python edit.v2.py", "edit-v2-py"),
        ("python -m my.package", "my-package"),
        ("/opt/my_editor", "my_editor"),
        ("docker run image", "docker"),
    ],
)
def test_a_program_is_called_by_its_script(words: str, label: str) -> None:
    name = f"command: {words} {PLACES}"
    assert names.label(name) == names.tag(name) == label
    assert names.label(f"rect({name})") == f"rect({label})"


def test_a_line_that_ends_in_a_parenthesis_is_no_expression() -> None:
    name = f"command: edit {PLACES} (a)"
    assert names.parts(name) == ((), name)


def test_its_files_are_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "edit.py").touch()
    line = CommandLine.of(f"command: {tmp_path}/edit.py {tmp_path}/none.py {PLACES}")
    assert line.files == (tmp_path / "edit.py",)
