"""One run through both doors, in this process, and everything that each of them says about it."""

from __future__ import annotations

import html
import json
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import editsafety.cli
from editsafety.cli.run import SUITES
from editsafety.shipped import shipped
from tests.doors import editors

EDITORS = Path(editors.__file__)
OPENS = {"markdown": "# ", "page": "<title>", "comment": "> **", "summary": "### "}  # what stands before the line
NOTHING_JUDGED = {"run": 14, "pytest": 5}


@dataclass(frozen=True)
class Given:
    """What is asked of both doors."""

    editors: tuple[type, ...]
    suites: tuple[str, ...] = SUITES
    select: str = ""
    workers: int = 0
    options: tuple[str, ...] = ()  # as `editsafety run` takes them
    lines: tuple[str, ...] = ()  # editors that are no class: `command: ...`

    def words(self, paths: dict[str, str], *, head: str = "--") -> list[str]:
        """As options; `head` is what stands before a name."""
        given = [f"{head}{name}={paths[name]}" for name in ("model", "hard", "normal")]
        given += [f"{head}texts-from={paths['texts']}", f"{head}device=cpu"]
        given += [f"{head}editor={EDITORS}:{editor.__name__}" for editor in self.editors]
        given += [f"{head}editor={line}" for line in self.lines]
        return [*given, *(f"{head}{option}" for option in self.options)]


@dataclass(frozen=True)
class Said:
    """What a door says."""

    door: str
    exit: int
    printed: str
    report: dict[str, Any] | None
    texts: dict[str, str] = field(default_factory=dict)  # what else it writes, by what it is for
    green: tuple[str, ...] = ()  # tests of the JUnit file
    red: tuple[str, ...] = ()
    folder: Path = field(default=Path(), compare=False)

    @property
    def verdict(self) -> str | None:
        """Of the report; None without one, and where nothing was judged."""
        return self.report and self.report["verdict"]


class Doors:
    """Both doors to a world in `paths`; every run has a folder of its own in `place`."""

    def __init__(self, paths: dict[str, str], place: Path, monkeypatch: Any, capfd: Any) -> None:
        self.place = place
        self._paths, self._patch, self._capture = paths, monkeypatch, capfd
        self._count = 0

    def within(self, place: Path) -> Doors:
        """The same doors, whose runs are kept elsewhere."""
        return Doors(self._paths, place, self._patch, self._capture)

    def both(self, given: Given) -> tuple[Said, Said]:
        """By `editsafety run` and by `pytest suites/...`."""
        return self.run(given), self.pytest(given)

    def run(self, given: Given) -> Said:
        """`editsafety run ...`"""
        folder = self._folder("run")
        words = ["run", *given.words(self._paths), f"--out={folder}", "-n", str(given.workers)]
        words.append(f"--comment={folder}-comment.md")
        words += [f"--suite={suite}" for suite in given.suites] + (["-k", given.select] if given.select else [])
        return self._said("run", self.typed(*words), folder)

    def pytest(self, given: Given, *more: str) -> Said:
        """`pytest suites/...`"""
        folder, suites = self._folder("pytest"), shipped("suites")
        words = [str(suites / suite) for suite in given.suites]
        words += ["-c", str(suites / "pytest.ini"), "-p", "no:cacheprovider", f"--junit-xml={folder}.xml"]
        words += ["-n", str(given.workers), *(["-k", given.select] if given.select else [])]
        words += [*given.words(self._paths, head="--editsafety-"), f"--editsafety-out={folder}", *more]
        words.append(f"--editsafety-comment={folder}-comment.md")
        self._capture.readouterr()
        return self._said("pytest", int(pytest.main(words)), folder)

    def typed(self, *words: str) -> int:
        """`editsafety ...` and its exit code."""
        self._patch.setattr(sys, "argv", ["editsafety", *words])
        self._capture.readouterr()
        with pytest.raises(SystemExit) as end:
            editsafety.cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code

    def _folder(self, door: str) -> Path:
        self._count += 1
        folder = self.place / f"{door}-{self._count}"
        self._patch.setenv("GITHUB_STEP_SUMMARY", f"{folder}-summary.md")
        return folder

    def _said(self, door: str, code: int, folder: Path) -> Said:
        printed, tests = " ".join(self._capture.readouterr().out.split()), Path(f"{folder}.xml")
        cases = list(ET.parse(tests).iter("testcase")) if tests.is_file() else []
        red = [case.get("name", "") for case in cases if {child.tag for child in case} & {"failure", "error"}]
        green = [case.get("name", "") for case in cases if case.get("name") not in red]
        written = {
            "markdown": folder / "report.md", "page": folder / "report.html",
            "comment": Path(f"{folder}-comment.md"), "summary": Path(f"{folder}-summary.md"),
        }  # fmt: skip
        texts = {name: path.read_text(encoding="utf-8") for name, path in written.items() if path.is_file()}
        body = json.loads((folder / "report.json").read_text()) if (folder / "report.json").is_file() else None
        return Said(door, code, printed, body, texts, tuple(green), tuple(red), folder)


def agree(run: Said, suites: Said) -> None:
    """Fail unless the two doors, and everything that each of them says, come to the same."""
    assert (run.report is None) == (suites.report is None)
    assert run.verdict == suites.verdict
    for said in (run, suites):
        assert "INTERNALERROR" not in said.printed
        assert said.texts.keys() == (set() if said.report is None else {"markdown", "page", "comment", "summary"})
        for name, text in said.texts.items():
            assert f"{OPENS[name]}{(said.report or {})['line']}" in html.unescape(text), name
        if said.report is None or said.verdict is None:
            assert said.exit == NOTHING_JUDGED[said.door]
            assert not (said.report and said.report["exit_code"] == 0)
            continue
        code = said.report["exit_code"]
        assert (code == 0) == (said.verdict in ("PASS", "WARN"))
        assert said.exit == (code if said.door == "run" else int(code != 0))
        assert " ".join(said.report["line"].split()) in said.printed
    if suites.report is not None and suites.verdict is not None:
        assert bool(suites.red) == (suites.exit != 0), "JUnit"
        assert suites.report["line"] == (run.report or {})["line"]
        assert _told(suites.report) == _told(run.report or {})


def _told(report: dict[str, Any]) -> Any:
    """What a report says of every editor and every case."""
    return {
        (group["model"], group["editor"]): (
            group["verdict"],
            group["sentences"],
            sorted((case["case"], case["verdict"]) for case in group["cases"]),
        )
        for group in report["groups"]
    }
