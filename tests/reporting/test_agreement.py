"""Line, table, JSON, Markdown and exit code never disagree, whatever the records are."""

import html
import io
import json
import math
import random
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from editsafety import reporting
from editsafety.hyperparameters.carried import CarriedFrom
from editsafety.judging.verdict import Verdict
from editsafety.reporting import ReportPlace, as_markdown, as_terminal
from tests import builders

RATIOS = (1.0, 1.0, 1.0, 1.01, 1.25, 1.6, 2.1, 0.3, 526.0, 1e300, math.inf, math.nan, None)


def drawn(seed):
    """A report of random records, from all well to all lost."""
    dice = random.Random(seed)
    health = dice.random()

    def one(editor, stream, number, model):
        if dice.random() > health and dice.random() < 0.2:
            return builders.failed(editor, stream, number, model=model)
        rates = {name: float(dice.random() < 0.5 + health) for name in ("takes", "prefixed", "rephrased", "local")}
        more = {} if dice.random() < 0.9 + health else {"changed": ()}
        if dice.random() > health:
            more["restored"] = dice.random() < 0.98
        ratio = 1.0 if dice.random() < health else dice.choice(RATIOS)
        return builders.record(editor, stream, number, model=model, ratio=ratio, **rates, **more)

    records, lacking = [], []
    for model in ["pocket-neo", "a/gpt2"][: dice.randint(1, 2)]:
        for editor in ["rome", "c_rome", "mine"][: dice.randint(1, 3)]:
            for stream in ["hard", "normal"][: dice.randint(1, 2)]:
                for number in range(dice.randint(1, 6)):
                    if dice.random() < 0.02:
                        lacking.append(builders.case_of(editor, stream, number, model=model))
                    else:
                        records.append(one(editor, stream, number, model))
    controls = []
    if dice.random() < 0.7:
        controls = [builders.record("noop", "hard", 0, changed=() if dice.random() < 0.8 else ("w",))]
    interrupted = dice.random() < 0.1
    return builders.report(records, lacking=lacking, controls=controls, interrupted=interrupted)


@pytest.mark.parametrize("seed", range(120))
def test_every_format_says_the_same(seed, tmp_path):
    made = drawn(seed)
    verdict = made.verdict.value if made.verdict else None
    out = io.StringIO()
    as_terminal.render(made, Console(file=out, width=120, highlight=False, color_system=None))
    last = " ".join(out.getvalue()[out.getvalue().rindex("\nverdict ") :].split()).removeprefix("verdict ")
    reporting.write(made, tmp_path, ReportPlace())
    document = json.loads((tmp_path / "report.json").read_text())
    heading = as_markdown.text(made).splitlines()[0].removeprefix("# ")
    summary = as_markdown.step_summary(made).splitlines()[0].removeprefix("### ")

    assert document["verdict"] == verdict
    assert document["exit_code"] == made.exit_code
    page = (tmp_path / "report.html").read_text()
    title = html.unescape(page[page.index("<title>") + 7 : page.index("</title>")])
    assert document["line"] == last == heading == summary == title
    assert last.startswith(verdict or "NOTHING JUDGED")
    assert last.endswith(f"exit code {made.exit_code}")

    groups = [(group["editor"], group["model"], group["verdict"]) for group in document["groups"]]
    words = [verdict.value for verdict in Verdict]
    lines = out.getvalue().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("editor "))
    rows = [line for line in lines[start + 1 : lines.index("", start)] if not line.startswith(" ")]
    shown = [next(word for word in row.split() if word in words) for row in rows]
    assert [verdict for _, _, verdict in groups] == shown
    assert re.findall(r"\*\*([A-Z-]+)\*\* \|", as_markdown.text(made)) == shown

    worst = max((Verdict(name) for *_, name in groups), key=lambda one: one.severity)
    if document["counts"]["judged"]:
        assert made.verdict.severity >= worst.severity
        assert (made.exit_code == 0) == (not made.verdict.fails)
    if made.exit_code == 0:
        assert not document["counts"]["missing"]
        assert all(control["behaved"] for control in document["controls"])
        assert all(not Verdict(case["verdict"]).fails for group in document["groups"] for case in group["cases"])
        assert not any(check["verdict"] not in ("PASS", "WARN") for group in document["groups"]
                       for checks in group["checks"].values() for check in checks)  # fmt: skip


def test_the_drawn_reports_come_to_every_verdict():
    found = {made.verdict for made in map(drawn, range(120))}
    assert found >= {Verdict.PASS, Verdict.INCOMPLETE, Verdict.ERROR, Verdict.COLLAPSE}


def test_reports_need_no_torch():
    code = (
        "import sys\n"
        "from editsafety.reporting import as_json, as_markdown, as_terminal, junit\n"
        "from editsafety.judging import report\n"
        "from editsafety.runs import store\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_whose_numbers_they_are_is_said_with_the_verdict_in_every_format():
    origin = CarriedFrom("gpt2-xl", "rome/gpt2-xl.yaml", (48, 4), {"layers": ([17], [1])})
    said = (
        "numbers of rome, c_rome on pocket-neo: those of gpt2-xl (rome/gpt2-xl.yaml), layers [17] of 48 as [1] "
        "of 4; nobody has measured whether they suit it"
    )
    made = builders.example()
    editors = {
        (model, name): replace(facts, editor=name, carried_from=origin)
        for (model, _), facts in made.facts.editors.items()
        for name in ("rome", "c_rome")
    }
    carried = replace(made, facts=replace(made.facts, editors=editors))
    for name in ("terminal", "markdown", "html", "json"):
        own, theirs = (said_by(name, one) for one in (made, carried))
        assert "numbers carried over" not in own
        assert "COLLAPSE · rome COLLAPSE" in theirs
        assert " · numbers carried over · exit code 10" in theirs
        assert said[1:] in theirs
    document = json.loads(reporting.load("json")(carried, ReportPlace()))
    assert document["footnotes"] == [said]
    assert document["editors"]["pocket-neo:rome"]["carried_from"] == {
        "model": "gpt2-xl",
        "file": "rome/gpt2-xl.yaml",
        "layers": [48, 4],
        "moved": {"layers": [[17], [1]]},
    }


def said_by(name, report):
    """A report as a person reads it: no entities, one space between words."""
    return " ".join(html.unescape(reporting.load(name)(report, ReportPlace())).split())
