"""Comment: found again by its first line, verdict first, below what GitHub takes, and harmless."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from editsafety.escaping import markdown
from editsafety.judging.baselines.baseline import AcceptedBaseline
from editsafety.judging.baselines.gate import Gate
from editsafety.publishing.comment import HEAD, comment, marker, write
from editsafety.reporting import as_terminal, story
from editsafety.runs.facts import EditorFacts
from tests import builders
from tests.builders import FACTS, HPARAMS, record, report
from tests.publishing.injections import TEXTS
from tests.reporting import hostile

GITHUB = 65_536  # characters of a comment


def outside_of_fences(page: str) -> str:
    return re.sub(r"^(`{3,})sh\n.*?^\1$", "", page, flags=re.DOTALL | re.MULTILINE)


def test_the_marker_is_first_then_the_alert_then_the_table_and_the_rest_is_folded():
    page = comment(builders.example(), suites="suites")
    lines = page.splitlines()
    assert re.fullmatch(r"<!-- editsafety-report [0-9a-f]{12} -->", lines[0])
    assert lines[2] == "> [!CAUTION]"
    assert lines[3] == "> **COLLAPSE · rome COLLAPSE, c_rome INEFFECTIVE, ft PASS · exit code 10**"
    assert lines[5].startswith(
        "> 756 cases judged by policy default. hard: COLLAPSE in 18 of 84 cases, worst pocket-neo"
    )
    assert any(line.startswith("> Likely cause of the worst case: ") for line in lines)
    assert any(line.startswith("> **Next:** do not ship these edits") for line in lines)
    assert re.findall(r"<summary>(.*?)</summary>", page) == [
        "Why: 4 findings", "Controls", "Worst cases", "Replay the worst case", "What was run",
    ]  # fmt: skip
    assert page.index("| editor | cases |") < page.index("<details>")
    assert "## " not in outside_of_fences(page)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (report([record("ft", "hard", 0)]), "NOTE"),
        (report([record("ft", "hard", 0, ratio=1.5)]), "WARNING"),
        (report([record("ft", "hard", 0, local=0.0)]), "CAUTION"),
        (report([record("ft", "hard", 0)], interrupted=True), "CAUTION"),
        (report([]), "CAUTION"),
    ],
    ids=["pass", "warn", "damaged", "interrupted", "nothing judged"],
)
def test_the_colour_of_the_alert_follows_the_verdict(made, kind):
    assert comment(made).splitlines()[2] == f"> [!{kind}]"


def test_the_case_that_is_worse_than_the_baseline_is_shown_first_wherever_one_case_stands_for_all():
    rows = [record("rome", "normal", i) for i in range(60)]
    gate = Gate(AcceptedBaseline.of(report(rows)), "base.json")
    rows[0] = record("rome", "normal", 0, ratio=1.04)  # the worst by perplexity, and within its tolerance
    rows[40:] = [record("rome", "normal", i, local=0.0) for i in range(40, 60)]
    made = gate.judged(report(rows))
    lost = "pocket-neo-rome-normal-0040"
    replayed = str(story.replay(made, "suites"))  # by itself each case passes: it is the rate that got worse
    assert replayed.startswith("pytest suites/efficacy -k pocket-neo-rome-normal ")
    assert f"\n| {lost} |" in comment(made).partition("| case | verdict |")[2][:200]
    shown = StringIO()
    as_terminal.render(made, Console(file=shown, width=110))
    assert f"\nworst     {lost}  " in shown.getvalue()


def test_what_changed_since_the_baseline_stands_beside_the_verdict_that_it_became_worse():
    numbers = EditorFacts("pocket-neo", "rome", {**HPARAMS, "v_num_grad_steps": 2}, "d" * 64)
    facts = replace(FACTS, editors={("pocket-neo", "rome"): numbers})
    gate = Gate(AcceptedBaseline.of(report([record("rome", "normal", i) for i in range(60)])), "base.json")
    made = gate.judged(report([record("rome", "normal", i, takes=0.0) for i in range(60)], facts=facts))
    alert = comment(made).partition("\n\n| editor |")[0]
    said = (
        "Changed since that was accepted: rome: its code is not that of then; "
        "rome: hparams.v_num_grad_steps 20 before, 2 now."
    )
    assert said in story.summary(made)
    assert f"\n> {markdown(said)}\n" in alert


def test_the_table_leaves_out_what_can_be_spared_so_that_it_fits_the_page():
    head = next(one for one in comment(builders.example()).splitlines() if one.startswith("| editor |"))
    assert head.endswith("| success rephrased | kept neighbours |")


def test_the_comparison_with_the_baseline_is_not_folded():
    rows = [record("rome", "normal", i) for i in range(60)]
    gate = Gate(AcceptedBaseline.of(report(rows)), "base.json")
    worse = gate.judged(report([record("rome", "normal", i, takes=float(i > 9)) for i in range(60)]))
    page = comment(worse)
    assert page.splitlines()[3].startswith("> **REGRESSED · ")
    assert "### Against the baseline\n\n- REGRESSED: rome: " in page
    assert page.index("### Against the baseline") < page.index("<details>")


def test_the_same_editors_on_the_same_models_have_the_same_marker_whatever_came_of_it():
    one, other = report([record("ft", "hard", 0)]), report([record("ft", "hard", 0, ratio=99.0)])
    assert marker(one) == marker(other)
    assert marker(one) != marker(report([record("rome", "hard", 0)]))


def test_a_run_of_thousands_of_findings_fits_and_says_what_was_left_out(tmp_path):
    long = "w" * 290
    records = [
        record(f"editor{n}", stream, i, ratio=400.0, answer=long)
        for n in range(300)
        for stream in ("hard", "normal")
        for i in range(2)
    ]
    page = comment(report(records))
    assert len(page.encode()) <= GITHUB
    assert len(page) > GITHUB - 8000
    assert page.startswith(f"{HEAD} ")
    assert "> [!CAUTION]" in page[:100]
    said = page.rstrip().splitlines()[-1]
    assert re.search(r"^\*Left out, because a comment holds no more: .*lines of the .*report\.md of the run\.\*$", said)
    assert page.count("<details>") == page.count("</details>")
    write(report(records), tmp_path / "new" / "comment.md")
    assert (tmp_path / "new" / "comment.md").read_text() == page


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_text_makes_no_second_marker_no_html_no_link_and_no_command(text):
    page = comment(hostile.report(text))
    assert len(page.encode("utf-8")) <= GITHUB
    lines = outside_of_fences(page).splitlines()
    assert [line for line in lines if "<!--" in line] == [page.splitlines()[0]]
    own = re.compile(r"<details><summary>[A-Za-z: 0-9]+</summary>|</details>|<!-- editsafety-report [0-9a-f]{12} -->")
    rest = own.sub("", "\n".join(lines))
    assert "<" not in rest
    assert "`" not in rest
    assert not re.search(r"\]\(|!\[|://|www\.|^# ", rest.replace("> [!", ""), re.MULTILINE)
    assert [line for line in lines if line.startswith("> [!")] == ["> [!CAUTION]"]
    assert all(line.isprintable() for line in page.splitlines())
    assert not any(line.strip().startswith(("::", "##[", "##vso")) for line in page.splitlines())


def test_nothing_of_a_name_of_a_model_gets_into_the_marker():
    made = report([record("ft", "hard", 0)])
    settings = replace(made.plan.settings, models=("--> <script>",))
    assert re.fullmatch(
        r"<!-- editsafety-report [0-9a-f]{12} -->", marker(replace(made, plan=replace(made.plan, settings=settings)))
    )
