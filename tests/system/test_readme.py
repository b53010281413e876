"""What the README and the pages in docs/ tell people to type is what works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from editsafety.cli.app import app
from editsafety.names import label
from tests.system.commands import LENIENT, ROOT, cases, given, report

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
DECISIONS = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKS = sorted(
    {
        (page.relative_to(ROOT).as_posix(), link)
        for page in PAGES
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    }
)


def fenced(mark: str) -> str:
    """The code block behind an HTML comment."""
    block = re.search(rf"<!-- {re.escape(mark)} -->\s*```\w*\n(.*?)```", README, re.DOTALL)
    if block is None:
        pytest.skip(f"README.md has no block marked {mark!r}")
    return block.group(1).strip()


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_test_command_is_the_one_that_ci_runs():
    assert fenced("command: test") in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_run_command_is_valid():
    """Its last part is the main job; every option is one that the command has."""
    *_, last = fenced("command: run").split("&&")
    words = shlex.split(last)
    assert words[0].endswith("editsafety")
    assert words[1] == "run"
    assert "--report-only" in words
    run = typer.main.get_command(app).commands["run"]
    known = {flag for option in run.params for flag in option.opts}
    assert {word for word in words[2:] if word.startswith("-")} <= known
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


def test_the_example_function_runs_as_it_is_and_is_ten_lines(command, paths, tmp_path):
    text = fenced("file: my_method.py")
    (tmp_path / "my_method.py").write_text(text + "\n")
    (tmp_path / "lenient.yaml").write_text(LENIENT)
    done = command("run", *given(paths, policy="lenient.yaml", out="out"), "--editor", "my_method.py:strengthen")
    assert done.code in (0, 10), done.out
    for case in cases(report("out")).values():
        assert case["failure"] is None
        assert case["changed"] == ["transformer.h.0.mlp.c_proj.weight"]
        assert case["undeclared"] == case["leftovers"] == []
    body = [line for line in text.partition("def ")[2].splitlines()[2:] if line.strip()]
    assert len(body) <= 10


def test_the_example_editor_is_short():
    assert label("my_editor.py:MyEditor") == "MyEditor"
    code = [line for line in fenced("file: my_editor.py").splitlines() if line.strip()]
    assert len(code) <= 25


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_every_local_link_leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    if anchor:
        assert anchor in anchors(target)


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        linked = {(ROOT / page).parent / link.partition("#")[0] for of, link in LINKS if of == page}
        names = {path.resolve().relative_to(ROOT).as_posix() for path in linked if path.suffix == ".md"}
        waiting += sorted(names - reached - set(waiting))
    assert {page.relative_to(ROOT).as_posix() for page in PAGES} <= reached


def test_every_command_is_in_the_table_and_every_command_in_the_table_exists():
    known = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert set(re.findall(r"^\| `editsafety (\w+)`", COMMANDS, re.MULTILINE)) == known


def test_the_tour_passes_through_every_room():
    rooms = {init.parent.name for init in (ROOT / "editsafety").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)/` \|", TOUR, re.MULTILINE)) == rooms


def test_every_decision_keeps_its_number_and_is_in_the_index():
    entries = re.findall(r"^\*\*(\d+)\. ", DECISIONS, re.MULTILINE)
    assert sorted(map(int, entries)) == list(range(1, len(entries) + 1))
    rows = re.findall(r"^\| \[.+\]\(#.+\) \| ([\d, ]+) \|$", DECISIONS, re.MULTILINE)
    assert ", ".join(rows).split(", ") == entries
