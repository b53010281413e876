"""Texts that try to be something else, and a report that is full of them."""

from editsafety.hyperparameters.carried import CarriedFrom
from editsafety.judging.report import RunReport
from editsafety.runs.case_record import Failure
from editsafety.runs.facts import EditorFacts, ModelFacts, NotApplicable, Problem, RunFacts, Software
from tests import builders

TEXTS = (
    "<script>alert(1)</script>",
    "a | b | c",
    "`code` ```fence``` *bold* [link](http://evil.example) ![img](x)",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07 \x00 \x9b2J",
    "]]> <!-- & &amp; -->",
    '=cmd("calc")',
    "\n::set-env name=X::y\r\n::error::no",
    "##vso[task.setvariable] ##[group]x :::add-mask::z",
    "[red]markup[/red] [/] [link=http://evil]",
    "\u202etxt.exe\u2066 \u2028 \ud800",
    "@everyone #1 www.evil.example $x$ ~~gone~~ __init__",
)


def report(text: str) -> RunReport:
    """A run in which data, editor, answers, errors, notes and facts all hold `text`."""
    asked = text.replace("\x00", "").replace("\ud800", "")  # a request with these is refused
    request = builders.request("hard", 0, prompt=f"{asked}{{}}", subject=asked, target_new=asked)
    records = [
        builders.record(
            "rome", "hard", 0, ratio=9.0, answer=text, request=request, notes={text: text, "first_token": text}
        ),
        builders.record("rome", "hard", 1, undeclared=(text,), leftovers=(text,)),
        builders.record("rome", "hard", 2, failure=Failure(text, text, text)),
    ]
    carried = CarriedFrom(text, text, (1, 1), {text: ([text], [text])})
    facts = RunFacts.of(
        [
            ModelFacts("pocket-neo", text, 10, text, text, text, text, text, text),
            EditorFacts("pocket-neo", "rome", {text: text}, text, text, text, text, text, (text,), carried),
            Problem("pocket-neo", "rome", text),
            NotApplicable(text, text),
            Software({text: text}),
        ]
    )
    lacking = [builders.case_of("rome", "normal", 9)]
    return builders.report(records, lacking=lacking, facts=facts, hard=text, revision=text)
