"""Escaping: prompts, answers, names and errors come from data, models and editors, and may hold anything.

In a terminal that is an escape sequence, in a CI log a command, in Markdown a table or a script, in XML an illegal
character, in a page's JSON the end of its script. Every way out of the package lets text through one of these only;
what is written to a terminal or a log goes through `CleanStream` or a `console` besides, whoever wrote it.
"""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console

LONGEST = 300  # characters of one text in a report for people; JSON keeps them all
_COMMANDS = re.compile(
    r":(?=:)|#(?=#(?:\[|vso))"
)  # GitHub's and Azure's logs take what follows as a command to the runner
_TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)}
_MARKDOWN = re.compile(r"[\\`*\[\]<>|#&~@!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|://|www\.")
_FIRST = re.compile(r"^([^\S\n]*:)(?=:)|#(?=#(?:\[|vso))", re.MULTILINE)  # where a log looks for commands
_UNSEEN = re.compile(r"[^\n\t -~\xa0-\u061b\u061d-\u200d\u2010-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\U0010ffff]")
_IN_JSON = re.compile("[<>&\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|:(?=:)|#(?=#)")
_ILLEGAL_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def line(text: object, longest: int = LONGEST) -> str:
    """One visible line: control characters, text-turning marks and lone surrogates are spelled out, commands broken."""
    shown = "".join(_visible(character) for character in str(text)[: longest + 1])
    if len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    return _COMMANDS.sub(r"\g<0> ", shown)


def lines(text: object) -> str:
    """Text on as many lines as it has, for a log: the same characters spelled out, commands broken where they count."""
    shown = _UNSEEN.sub(lambda found: _visible(found[0]), str(text).replace("\r\n", "\n").replace("\r", "\n"))
    return _FIRST.sub(r"\g<0> ", shown)


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


def workflow_command(name: str, text: object, longest: int = LONGEST, **properties: object) -> str:
    """A command to the runner of GitHub Actions, `::name key=value::text`: the only one that our output ever holds.

    The runner decodes %25, %0D and %0A, in properties %3A and %2C besides; whatever else `text` holds is one line.
    """
    told = {
        key: _percent(line(value, longest)).replace(":", "%3A").replace(",", "%2C") for key, value in properties.items()
    }
    head = " ".join((name, ",".join(f"{key}={value}" for key, value in told.items()))).strip()
    return f"::{head}::{_percent(line(text, longest))}"


def _percent(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def xml(text: object) -> str:
    """Text without the characters that XML 1.0 cannot hold; the rest of the escaping is the XML writer's."""
    return _ILLEGAL_XML.sub("", str(text))


def attribute(text: object, longest: int = 1000) -> str:
    """One line of text for an element or an attribute of XML, with every character that could end it by its number."""
    return "".join(f"&#{ord(c)};" if c in "&<>\"'" else c for c in xml(line(text, longest)))


def json_text(document: str) -> str:
    """The same JSON value in characters that neither a page, a terminal nor a log takes for anything else.

    A command of a log, the end of a script, marks that turn the text: in JSON they stand in strings only, where each
    character may be written by its number.
    """
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document) if _holds_marks(document) else document


def _holds_marks(document: str) -> bool:
    """Whether `json_text` may have to spell anything out: a look at each mark by itself, 20 times as fast as at all."""
    if any(mark in document for mark in "<>&\x7f") or "::" in document or ("#" in document and "##" in document):
        return True
    if document.isascii():
        return False
    beyond = document.encode("utf-8", "surrogatepass").translate(None, bytes(range(128)))
    return _IN_JSON.search(beyond.decode("utf-8", "surrogatepass")) is not None


class CleanStream(io.TextIOBase):
    """A text stream to a terminal or a log that passes `lines` on and nothing else, whoever writes.

    `stream` is what lies below; whoever draws on it (a console) escapes for itself.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._begun = ""  # the line so far, while a command could still come of it

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream below."""
        return self.stream.encoding or "utf-8"

    def write(self, text: str) -> int:
        """Write text as lines; what the encoding does not have is spelled out. Returns how much was given."""
        shown = lines(self._begun + text)[len(self._begun) :]
        line = (self._begun + shown).rpartition("\n")[2]
        self._begun = line if len(line) < LONGEST and (line.strip() in ("", ":") or line.endswith("#")) else ""
        self.stream.write(shown.encode(self.encoding, "backslashreplace").decode(self.encoding))
        return len(text)

    def writable(self) -> bool:
        """Always."""
        return True

    def flush(self) -> None:
        """Flush the stream below."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Whether the stream below is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """That of the stream below."""
        return self.stream.fileno()


@contextmanager
def clean_streams() -> Iterator[tuple[TextIO, TextIO]]:
    """Standard output and error as clean streams for a while, whoever writes to them."""
    out, err = sys.stdout, sys.stderr
    clean = cast("TextIO", CleanStream(out)), cast("TextIO", CleanStream(err))
    sys.stdout, sys.stderr = clean
    try:
        yield clean
    finally:
        sys.stdout, sys.stderr = out, err


def below(stream: TextIO) -> TextIO:
    """The stream that a `CleanStream` writes to, for what escapes texts itself and moves the cursor."""
    return stream.stream if isinstance(stream, CleanStream) else stream


def console(stream: TextIO | None = None, **options: Any) -> Console:
    """A console of rich on `stream`, standard output when not given, that shows every text through `lines`.

    Its own colours and movements stay.
    """
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
    from rich.segment import Segment

    class Shown:
        """A renderable whose text is escaped after it was laid out."""

        def __init__(self, inner: RenderableType) -> None:
            self.inner = inner

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
            for segment in console.render(self.inner, options):
                yield segment if segment.control else Segment(lines(segment.text), segment.style)

    class Hook(RenderHook):
        """What rich asks before it shows anything."""

        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [Shown(one) for one in renderables]

    made = Console(file=below(stream or sys.stdout), highlight=False, **options)
    made.push_render_hook(Hook())
    return made


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    if character in _TURNING or kind in ("Cc", "Cs", "Zl", "Zp"):
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character, f"\\u{ord(character):04x}")
    return character
