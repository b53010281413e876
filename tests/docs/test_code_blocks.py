"""Every code block of README.md and docs/: commands are parsed and run, Python is run, settings are read.

`tests/docs/table.py` says how each command is made small, and which are only parsed, and why.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import typer
import yaml

import editsafety
from editsafety.artifacts import ArtifactStore
from editsafety.cli.app import app
from editsafety.discovery import MEMBER
from editsafety.judging.policy import Policy
from editsafety.judging.verdict import Verdict
from tests import tiny
from tests.docs.code_blocks import BLOCKS, SHELLS, CommandLine, blocks_of
from tests.docs.material import GIVEN
from tests.docs.table import INSTEAD, NOT_RUN, SMALLER, SMALLER_STILL
from tests.reporting import whole
from tests.system import world
from tests.system.commands import ROOT, Command

COMMAND = typer.main.get_command(app)
LINES = tuple(line for block in BLOCKS for line in block.command_lines())
TO_RUN = tuple(line for line in LINES if line.text not in NOT_RUN)
FINE = (0, 10, 11)  # done, or a verdict: what it is of so few cases says nothing


def called(line: CommandLine) -> str:
    """What a line calls, as the table has it: `baseline accept`, `pytest`."""
    if line.program != "editsafety":
        return line.program
    _, name, *words = line.words
    return f"{name} {words[0]}" if hasattr(COMMAND.commands[name], "commands") else name


def stood_in(text: str) -> str:
    """A text with what stands here for what only a reader has."""
    for name, other in INSTEAD.items():
        text = re.sub(rf"(?<![\w/-]){re.escape(name)}(?![\w.-])", other, text)
    return text


def test_every_block_is_in_a_language_that_is_tried_here():
    tried = {*SHELLS, "python", "yaml", "toml", "{toctree}", "{eval-rst}", ""}
    assert [block.where for block in BLOCKS if block.language not in tried] == []


def test_every_command_has_a_rule_and_every_rule_a_command():
    assert [line.text for line in TO_RUN if called(line) not in SMALLER] == []
    assert {*NOT_RUN, *SMALLER_STILL} - {line.text for line in LINES} == set(), "no page has these lines"
    assert SMALLER.keys() - {called(line) for line in TO_RUN} == set(), "no page calls these"


@pytest.mark.parametrize("line", [line for line in LINES if line.program == "editsafety"], ids=lambda line: line.text)
def test_a_command_takes_its_line(line):
    """Options and arguments are there, nothing that is required is missing, values are of their kind."""
    command, words = COMMAND, line.words[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    assert command.make_context(command.name, words).args == []


@pytest.mark.parametrize("line", [line for line in LINES if line.program == "pytest"], ids=lambda line: line.text)
def test_pytest_takes_its_line(line, pytestconfig):
    given = pytestconfig._parser.parse_known_args(line.words[1:])
    assert [path for path in given.file_or_dir if not given.pyargs and not (ROOT / path).is_dir()] == []
    assert given.editsafety_model
    assert not [word for word in line.words if word.startswith("-") and str(word) in given.file_or_dir]


@pytest.mark.thorough
@pytest.mark.parametrize("page", dict.fromkeys(line.page for line in TO_RUN))
def test_the_commands_of_a_page_run_one_after_another(page: str, command: Command, tmp_path: Path) -> None:
    if page in GIVEN:
        GIVEN[page](command)
    for line in (line for line in TO_RUN if line.page == page):
        more = SMALLER_STILL.get(line.text, SMALLER[called(line)])
        _, *words = shlex.split(stood_in(f"{line.text} {more}"))
        if line.program == "pytest":
            code, said = pytest_ended(words, tmp_path)
            assert code in (0, 1), f"{line.text}\n{said}"
        else:
            done = command(*words)
            assert done.code in FINE, f"{line.text}\n{done.out}\n{done.err}"


def pytest_ended(words: list[str], place: Path) -> tuple[int, str]:
    """pytest in a process of its own, in a folder that has the suites as the checkout has them: status and output."""
    if not (place / "suites").exists():
        (place / "suites").symlink_to(ROOT / "suites")
    command = [sys.executable, "-m", "pytest", *words, "-o", f"cache_dir={place / 'cache'}"]
    # What pytest and xdist say of the session around it would be taken for its own: a worker times nothing.
    around = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=place, env={**around, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def run_python(page: str, **given: object) -> dict[str, object]:
    """The Python blocks of a page one after another, with the names that the page takes for granted."""
    names = dict(given)
    for block in blocks_of("python", page):
        exec(compile(stood_in(block.text), block.where, "exec"), names)
    return names


def test_the_python_of_every_page_is_tried_below():
    tried = {"README.md", "docs/production.md", "docs/pytest.md", "docs/real-models.md", "docs/writing-an-editor.md"}
    assert {block.page for block in blocks_of("python")} == tried


def test_the_readmes_editor_makes_an_edit_of_one_request(tmp_path):
    names = run_python("README.md")
    kind = names["MyEditor"]
    edit = kind(tiny.handle("gpt2"), kind.Hparams(), ArtifactStore(tmp_path), name="mine").edit([tiny.request()])
    (delta,) = edit.deltas
    assert delta.parameter == "transformer.h.0.mlp.c_proj.weight"


def test_the_guard_of_the_page_on_production_decides_and_writes_it_down(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    decision = run_python("docs/production.md")["decision"]
    assert decision.verdict in set(Verdict)
    assert Path("audit.jsonl").read_text().count("\n") >= 1


def test_the_tests_of_the_page_on_pytest_pass(pytester, paths):
    (block,) = blocks_of("python", "docs/pytest.md")
    pytester.makepyfile(test_mine=block.text)
    done = pytester.runpytest_inprocess(*world.options(paths, "Nudge"), "-p", "no:cacheprovider", "-v")
    done.stdout.fnmatch_lines([f"*test_mine.py::{name}*PASSED*" for name in re.findall(r"def (test_\w+)", block.text)])


def test_second_moments_are_handed_in_as_on_the_page_on_real_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    c = torch.eye(tiny.INNER)
    run_python("docs/real-models.md", handle=tiny.handle("gpt2", layers=15), c13=c, c14=c)
    assert len(list(Path("moments").iterdir())) == 2


def test_the_contract_and_the_report_format_of_the_page_on_writing_are_classes_that_work():
    taken = {name: getattr(editsafety, name) for name in ("Edit", "Editor", "Traits")}
    names = run_python("docs/writing-an-editor.md", **taken, MyHparams=run_python("README.md")["MyHparams"])
    assert names["MyEditor"].traits.batch
    report = whole.report()
    assert names["REPORT"](report, None) == f"{report.verdict.value}: {report.judged} cases\n"


def test_the_yaml_of_the_pages_is_a_policy(tmp_path):
    for block in blocks_of("yaml"):
        body = {"name": "mine", "group": {}, **yaml.safe_load(block.text)}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(body))
        assert Policy.read(tmp_path / "mine.yaml").case, block.where


def test_the_toml_of_the_pages_is_an_entry_point_of_a_family():
    for block in blocks_of("toml"):
        groups = tomllib.loads(block.text)["project"]["entry-points"]
        assert groups.keys() <= {f"editsafety.{family.rpartition('.')[2]}" for family in MEMBER}, block.where
        assert all(re.fullmatch(r"[\w.]+:\w+", value) for group in groups.values() for value in group.values())
