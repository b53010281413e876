"""Code blocks of a page, and the command lines in them, as a reader copies them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from tests.system.commands import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SHELLS = ("sh", "bash", "console")


@dataclass(frozen=True)
class CommandLine:
    """One command as it is typed, without comments and `&&`."""

    page: str  # below the checkout
    text: str

    @property
    def words(self) -> list[str]:
        """The program and its arguments, as a shell splits them."""
        return shlex.split(self.text)

    @property
    def program(self) -> str:
        """`editsafety` for `.venv/bin/editsafety`."""
        return self.words[0].rpartition("/")[2]


@dataclass(frozen=True)
class CodeBlock:
    """What stands between two fences, or is indented."""

    page: str
    number: int  # of its first line on the page
    language: str  # empty where the fence names none
    text: str

    @property
    def where(self) -> str:
        """`docs/ci.md:29`."""
        return f"{self.page}:{self.number}"

    def command_lines(self) -> Iterator[CommandLine]:
        """The commands of a block that is for a shell, in order."""
        if self.language not in SHELLS:
            return
        for line in self.text.replace("\\\n", " ").splitlines():
            for part in shlex.join(shlex.split(line, comments=True)).split(" '&&' "):
                if part:
                    yield CommandLine(self.page, part)


def code_blocks(page: Path) -> Iterator[CodeBlock]:
    """Every block of a page, fenced or indented, in order."""
    name = page.relative_to(ROOT).as_posix()
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            yield CodeBlock(name, token.map[0] + 1, token.info.strip(), token.content)


BLOCKS = tuple(block for page in PAGES for block in code_blocks(page))


def blocks_of(language: str, page: str = "") -> list[CodeBlock]:
    """The blocks in a language, of one page or of all."""
    return [block for block in BLOCKS if block.language == language and page in ("", block.page)]
