"""Escaping: prompts, answers, names and errors come from data, models and editors, and may hold anything.

In a terminal that is an escape sequence, in a CI log a command, in Markdown a table or a script, in XML an illegal
character. Every renderer lets such text through one of these functions only.
"""

from __future__ import annotations

import re
import unicodedata

LONGEST = 300  # characters of one text in a report for people; JSON keeps them all
_COMMANDS = re.compile(
    r":(?=:)|#(?=#(?:\[|vso))"
)  # GitHub's and Azure's logs take what follows as a command to the runner
_TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)}
_MARKDOWN = re.compile(r"[\\`*\[\]<>|#&~@!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|://|www\.")
_ILLEGAL_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def line(text: object, longest: int = LONGEST) -> str:
    """One visible line: control characters, text-turning marks and lone surrogates are spelled out, commands broken."""
    shown = "".join(_visible(character) for character in str(text)[: longest + 1])
    if len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    return _COMMANDS.sub(r"\g<0> ", shown)


def markdown(text: object, longest: int = LONGEST) -> str:
    """One line of GitHub-flavoured Markdown that shows `text` as it is, in a table cell as anywhere.

    Entities rather than backslashes: they can never be structure, not even inside a table or an HTML block.
    """
    return _MARKDOWN.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), line(text, longest)).strip()


def fenced(text: str, language: str = "") -> str:
    """A fenced code block, its fence longer than any run of backticks inside."""
    body = "\n".join(line(row, 10_000) for row in text.splitlines())
    longest = max((len(run) for run in re.findall("`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def xml(text: object) -> str:
    """Text without the characters that XML 1.0 cannot hold; the rest of the escaping is the XML writer's."""
    return _ILLEGAL_XML.sub("", str(text))


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    if character in _TURNING or kind in ("Cc", "Cs", "Zl", "Zp"):
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character, f"\\u{ord(character):04x}")
    return character
