"""Somebody else's text through every door and command: no byte of it does anything where it arrives."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest

import editsafety
from editsafety.edits.edit import Edit
from editsafety.shipped import shipped
from tests.system.commands import Command

PACKAGE = Path(editsafety.__file__).parent
# Escape sequences, commands to a runner at the start of a line, text that turns, half a surrogate pair, NUL, ends of
# sections and scripts.
NASTY = (
    "\x1b[2J\x1b]0;title\x07\r::set-env name=A::b\n::error::pwned\n##[error]no\n##vso[task.x]y ]]> <script>\x00"
    "\u202ertl\ud800"
)
# What may not stand in anything that is shown: controls besides line ends and tabs, turning marks, commands.
RAW = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|^\s*::|##\[|##vso", re.M
)

EDITORS = '''
import sys
import warnings

from editsafety import Edit, Editor, Hparams, LowRank

NASTY = {nasty!r}


class Numbers(Hparams):
    layer: int = 0


class Raises(Editor):
    """Prints, warns and raises."""

    Hparams = Numbers

    def edit(self, requests, carry=None):
        print(NASTY.encode("utf-8", "replace").decode())
        print(NASTY.encode("utf-8", "replace").decode(), file=sys.stderr)
        raise RuntimeError(NASTY)


class Notes(Raises):
    """Edits, and says what it likes about it."""

    def edit(self, requests, carry=None):
        site = self.handle.mlp_out(0)
        left = self.handle.weight(site)[:, :1] * 1e-3
        right = self.handle.weight(site)[:1] * 1e-3
        notes = {{NASTY: NASTY}}
        deltas = (LowRank(site, left, right),)
        return Edit(self.name, tuple(r.id for r in requests), self.handle.identity, deltas, notes=notes)


class Broken(Raises):
    """Cannot be made."""

    def __init__(self, *args, **more):
        raise ValueError(NASTY)


class Lacks(Raises):
    """Is not prepared."""

    def missing(self):
        return NASTY
'''
POLICY = "name: mine\ncase: {a: {measure: %s, figure: after, pass_at_most: 1, why: so}}\ngroup: {}\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an editor's file, requests, a policy and texts, all of them nasty."""
    (tmp_path / "nasty.py").write_text(EDITORS.format(nasty=NASTY), encoding="utf-8", errors="surrogatepass")
    whole = NASTY.replace("\x00", "").replace("\ud800", "")  # rows that hold these two are refused
    request = {
        "id": f"a{whole}", "prompt": f"{{}} is {whole}", "subject": f"Zog {NASTY[:30].strip()}",
        "target_new": f"=cmd()|{NASTY[20:60]}", "neighbours": [f"{NASTY[:20]} is"], "rephrasings": ["Zog ::warning::"],
    }  # fmt: skip
    (tmp_path / "rows.jsonl").write_text(json.dumps(request) + "\n")
    (tmp_path / "broken.jsonl").write_text(json.dumps({"id": NASTY, NASTY: 1}) + "\n")
    (tmp_path / "policy.yaml").write_text(POLICY % json.dumps(NASTY))
    (tmp_path / "texts.txt").write_text("A first text of some words.\nA second one ::error:: of others.\n")
    return tmp_path


def ask(place: Path, *words: str) -> tuple[int, str, str]:
    """Exit code and both streams of a command, as bytes that arrived."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "EDITSAFETY_CACHE": str(place / "cache")}
    done = subprocess.run(list(words), capture_output=True, cwd=place, env=environment, check=False, timeout=300)
    out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
    return done.returncode, out, err


def refuse_raw(*texts: str) -> None:
    for text in texts:
        found = RAW.search(text)
        assert found is None, repr(text[max(0, found.start() - 60) : found.end() + 40])


HAND = ("--prompt", "{} is", "--subject", "Zog", "--target", "x", "--texts-from", "texts.txt")
POCKET = ("--model", "pocket-neo")
LIMITS = ("--limit", "1", "--texts", "2", "--controls", "0")
NAME = "\x1b[31m::error::\u202e"
COMMANDS: dict[str, tuple[str, ...]] = {
    "run: an editor that raises": ("run", *POCKET, "--editor", "nasty.py:Raises", "--hard", "rows.jsonl", *LIMITS),
    "run: an editor with notes": ("run", *POCKET, "--editor", "nasty.py:Notes", "--hard", "rows.jsonl", *LIMITS),
    "run: an editor that cannot be made": ("run", *POCKET, "--editor", "nasty.py:Broken", *LIMITS),
    "run: an editor that is not prepared": ("run", *POCKET, "--editor", "nasty.py:Lacks", *LIMITS),
    "run: rows that cannot be read": ("run", *POCKET, "--editor", "ft", "--hard", "broken.jsonl"),
    "run: a policy": ("run", *POCKET, "--editor", "ft", "--policy", "policy.yaml"),
    "run: a model's name": ("run", "--model", NAME, "--editor", "ft", *LIMITS),
    "run: an editor's name": ("run", *POCKET, "--editor", NAME),
    "run: an option's name": ("run", f"--{NAME}"),
    "run: a number": ("run", *POCKET, "--editor", "ft", "--limit", NAME),
    "edit: an editor that raises": ("edit", *POCKET, "--editor", "nasty.py:Raises", *HAND),
    "edit: an editor with notes": ("edit", *POCKET, "--editor", "nasty.py:Notes", *HAND),
    "edit: an editor that cannot be made": ("edit", *POCKET, "--editor", "nasty.py:Broken", *HAND),
    "edit: an editor that is not prepared": ("edit", *POCKET, "--editor", "nasty.py:Lacks", *HAND),
    "edit: words": ("edit", *POCKET, "--editor", "ft", *HAND[:3], NAME, *HAND[6:], "--target", NAME),
    "sequence: an editor that raises": (
        "sequence", *POCKET, "--editor", "nasty.py:Raises", "--requests", "rows.jsonl", "--limit", "1", "--texts", "2",
    ),
    "check: a folder": ("check", "--before", "pocket-neo", "--after", NAME),
    "verify: a file": ("verify", NAME, *POCKET),
    "apply: a file": ("apply", NAME, *POCKET, "-o", "out"),
    "ppl: texts": ("ppl", *POCKET, "--texts-from", NAME),
    "data verify: a file": ("data", "verify", "broken.jsonl"),
    "data verify: a name": ("data", "verify", NAME),
    "data fetch: a name": ("data", "fetch", NAME),
    "report: a folder": ("report", NAME),
    "curves: a folder": ("curves", NAME),
    "keys: an editor": ("keys", *POCKET, "--editor", NAME),
    "abilities: a probe": ("abilities", *POCKET, "--probe", NAME),
    "prepare: an editor": ("prepare", *POCKET, "--editor", "nasty.py:Broken"),
    "surrogate: a folder": ("surrogate", NAME),
    "experiment: a name": ("experiment", NAME),
}  # fmt: skip


# What they end with, where it is not a refusal.
CODES = {
    "run: an editor that raises": 13,
    "run: an editor with notes": 11,
    "run: an editor that cannot be made": 13,
    "run: an editor that is not prepared": 13,
    "run: a model's name": 13,
    "sequence: an editor that raises": 13,
    "edit: an editor with notes": 0,
    "edit: words": 0,
    "data verify: a file": 1,
}


@pytest.mark.parametrize(("name", "words"), COMMANDS.items(), ids=COMMANDS)
def test_no_command_lets_a_raw_character_out(place: Path, command: Command, name: str, words: Sequence[str]) -> None:
    done = command(*words)
    code, out, err = done.code, done.out, done.err
    refuse_raw(out, err)
    assert "Traceback" not in out + err, err[-3000:]
    assert code == CODES.get(name, 4), err[-400:]


@pytest.mark.parametrize("editor", ["Raises", "Notes"])
def test_the_suites_under_pytest_let_none_out_and_write_what_can_be_read(place: Path, editor: str) -> None:
    suites = shipped("suites")
    words = [str(suites / name) for name in ("collapse", "efficacy")] + ["-c", str(suites / "pytest.ini")]
    words += ["--rootdir", str(suites), "-p", "no:cacheprovider", "-n", "0", "-rA", "--junitxml", "junit.xml"]
    words += ["--editsafety-model", "pocket-neo", "--editsafety-editor", f"nasty.py:{editor}"]
    words += ["--editsafety-hard", "rows.jsonl", "--editsafety-limit", "1", "--editsafety-texts", "2"]
    code, out, err = ask(place, sys.executable, "-m", "pytest", *words, "--editsafety-out", "here")
    assert code == 1, (out + err)[-2000:]
    refuse_raw(out, err, (place / "here" / "report.md").read_text(), (place / "here" / "report.json").read_text())
    assert "<script>" not in (place / "here" / "report.md").read_text()
    assert "<script>" not in (place / "here" / "report.json").read_text()
    assert json.loads((place / "here" / "report.json").read_text())["verdict"] != "PASS"
    assert len(list(ET.parse(place / "junit.xml").iter("testcase"))) > 3
    for form in ("terminal", "json", "markdown"):
        refuse_raw(*ask(place, sys.executable, "-m", "editsafety", "report", "here", "-f", form)[1:])


def test_on_github_the_only_commands_are_our_own_annotations_and_every_page_is_harmless(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "summary.md"))
    words = ("run", *POCKET, "--editor", "nasty.py:Raises", "--editor", "nasty.py:Notes", "--hard", "rows.jsonl")
    words += (*LIMITS, "--out", "here", "--comment", "comment.md")
    code, out, err = ask(place, sys.executable, "-m", "editsafety", *words)
    assert code == 13, err[-400:]
    commands = [line for line in (out + err).splitlines() if line.lstrip().startswith("::")]
    assert 0 < len(commands) <= 10
    assert all(re.match(r"::(error|warning) title=editsafety[^:,]*::[^:]", line) for line in commands), commands
    refuse_raw("\n".join(line for line in out.splitlines() if line not in commands), err)
    exported = ("--badge", "badge.svg", "--model-card", "card.md")
    code, out, err = ask(place, sys.executable, "-m", "editsafety", "export", "here", *exported)
    assert (code, err) == (0, "")
    pages = [
        (place / name).read_text(encoding="utf-8") for name in ("comment.md", "summary.md", "card.md", "badge.svg")
    ]
    refuse_raw(*pages)
    assert not any("<script" in page for page in pages)
    ET.fromstring(pages[-1])


def test_an_exception_with_a_traceback_and_what_was_printed_are_escaped_in_items_of_ones_own(place: Path) -> None:
    """A user's own test beside the suites: pytest shows its traceback, its output and its warnings."""
    (place / "test_mine.py").write_text(
        f"import sys\nimport warnings\nNASTY = {NASTY!r}\n\n"
        "def test_mine(safety_plan):\n"
        "    print(NASTY.replace('\\ud800', ''))\n"
        "    print(NASTY.replace('\\ud800', ''), file=sys.stderr)\n"
        "    warnings.warn(NASTY)\n"
        "    raise ValueError(NASTY)\n",
        encoding="utf-8",
    )
    words = ["test_mine.py", "-p", "no:cacheprovider", "-n", "0", "-rA", "--color=no", "--junitxml", "junit.xml"]
    words += ["--editsafety-model", "pocket-neo", "--editsafety-editor", "ft", "--editsafety-limit", "1"]
    code, out, err = ask(place, sys.executable, "-m", "pytest", *words)
    assert code == 1
    refuse_raw(out, err)
    assert "\\u001b[2J" in out
    assert "ValueError" in out
    assert ET.parse(place / "junit.xml").getroot() is not None


def test_an_edit_file_that_says_nasty_things_is_verified_without_a_raw_character(place: Path) -> None:
    Edit(NASTY, (NASTY,), NASTY).save(place / "edit.safetensors")
    for words in (("verify", "edit.safetensors", *POCKET), ("apply", "edit.safetensors", *POCKET, "-o", "out")):
        code, out, err = ask(place, sys.executable, "-m", "editsafety", *words)
        refuse_raw(out, err)
        assert code != 0
        assert "Traceback" not in err


def test_consoles_and_prints_are_made_in_one_place_only() -> None:
    """Everything else goes to `escaping.console`, to `typer.echo` under the clean streams of `main`, or to a file."""
    allowed = {"escaping.py": {"Console"}, "progress.py": {"Console", "print"}, "cli/__init__.py": {"print"}}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("pocket/"):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        used = {node.func.id for node in calls if isinstance(node.func, ast.Name)} & {"Console", "print"}
        assert used <= allowed.get(name, set()), f"{name}: use escaping.console, or typer.echo in a command"
