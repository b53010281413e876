"""What the README tells people to type is what works."""

from __future__ import annotations

import re
import shlex

import pytest

from editsafety.names import label
from tests.system.commands import LENIENT, ROOT, cases, given, report

README = (ROOT / "README.md").read_text(encoding="utf-8")


def fenced(mark: str) -> str:
    """The code block behind an HTML comment."""
    found = re.search(rf"<!-- {re.escape(mark)} -->\s*```\w*\n(.*?)```", README, re.DOTALL)
    if found is None:
        pytest.skip(f"README.md has no block marked {mark!r}")
    return found.group(1).strip()


def test_the_test_command_is_the_one_that_ci_runs():
    assert fenced("command: test") in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_run_command_is_one_that_can_be_meant():
    """Its last part is the main job; every option is one that the command has."""
    from editsafety.cli.run import run

    *_, last = fenced("command: run").split("&&")
    words = shlex.split(last)
    assert words[0].endswith("editsafety")
    assert words[1] == "run"
    assert "--report-only" in words
    known = {f"--{name.replace('_', '-')}" for name in run.__annotations__}
    assert {word for word in words if word.startswith("--")} <= known
    editors = [words[i + 1] for i, word in enumerate(words) if word == "--editor"]
    assert editors == ["rome", "c_rome", "ft"]


def test_the_example_editor_runs_and_changes_what_it_says(command, paths, tmp_path):
    (tmp_path / "my_editor.py").write_text(fenced("file: my_editor.py") + "\n")
    (tmp_path / "lenient.yaml").write_text(LENIENT)
    words = given(paths, policy="lenient.yaml", out="out")
    done = command("run", *words, "--editor", "my_editor.py:MyEditor")
    assert done.code in (0, 10), done.out
    found = cases(report("out"))
    assert len(found) == 4
    for case in found.values():
        assert case["failure"] is None
        assert case["changed"] == ["transformer.h.0.mlp.c_proj.weight"]
        assert case["undeclared"] == case["leftovers"] == []


def test_the_example_editor_is_short():
    assert label("my_editor.py:MyEditor") == "MyEditor"
    code = [line for line in fenced("file: my_editor.py").splitlines() if line.strip()]
    assert len(code) <= 25


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", README))))
def test_every_local_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_every_command_in_the_table_exists():
    from editsafety.cli.app import app

    known = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    named = set(re.findall(r"^\| `editsafety (\w+)`", README, re.MULTILINE))
    assert named <= known
