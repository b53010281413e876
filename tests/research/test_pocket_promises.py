"""What a pocket model promises is counted as it says, and nothing that is missing counts as kept."""

from __future__ import annotations

import json

import pytest

from editsafety.model import scoring
from editsafety.progress import Progress
from editsafety.research import pocket_promises
from editsafety.research.pocket_promises import Promise
from editsafety.shipped import shipped
from tests import builders, tiny


@pytest.mark.parametrize(
    ("promise", "kept", "expected"),
    [
        (Promise("a", 0.99, 10, at_least=0.99), True, "at least 0.99"),
        (Promise("a", 0.98, 10, at_least=0.99), False, "at least 0.99"),
        (Promise("a", 1.1, 10, at_most=1.1, unit="x"), True, "at most 1.1x"),
        (Promise("a", 1.2, 10, at_most=1.1, unit="x"), False, "at most 1.1x"),
        (Promise("a", float("nan"), 10, at_least=0.0), False, "at least 0"),
        (Promise("a", float("nan"), 10, at_most=9.0), False, "at most 9"),
        (Promise("a", 1.0, 0, at_least=0.5), False, "at least 0.5"),
    ],
)
def test_a_promise_is_kept_on_the_right_side_of_its_limit_and_never_by_nothing(promise, kept, expected):
    assert promise.kept is kept
    assert promise.expected == expected


@pytest.fixture
def measured(monkeypatch):
    """measured(records): what is promised of a model whose trials came out like this."""

    def of(*records):
        by_case = {record.case: record for record in records}

        class Fake:
            def __init__(self, plan, store, progress):
                self.plan, self.tools = plan, self

            def record(self, case):
                return by_case[case.id]

            def bench(self, model):
                return type("Bench", (), {"handle": None})

        cases = [
            builders.case_of(r.editor, "hard" if r.stream == "hardedit" else r.stream, int(r.case[-4:]))
            for r in records
        ]
        made = [case for case, r in zip(cases, records, strict=True) if r.stream == "hardedit"]
        plain = [case for case in cases if case not in made]
        monkeypatch.setattr(pocket_promises, "Lab", Fake)
        monkeypatch.setattr(pocket_promises, "recall", lambda handle: (Promise("recall", 1.0, 1, at_least=0.9),))
        monkeypatch.setattr(
            pocket_promises.RunPlan, "of", lambda settings: builders.plan(made if settings.hard else plain)
        )
        found = pocket_promises.measure_promises("pocket-neo", Progress.quiet())
        return {one.what: one for one in found}

    return of


def test_the_figures_are_those_of_the_trials(measured):
    hard = [builders.record("rome", "hard", i, ratio=ratio, takes=0.0) for i, ratio in enumerate((1.5, 30.0, 526.0))]
    stable = [builders.record("c_rome", "hard", i, ratio=1.0 + i / 100, takes=float(i == 0)) for i in range(4)]
    normal = [builders.record("rome", "normal", i, ratio=1.02, takes=float(i > 0)) for i in range(4)]
    found = measured(*hard, *stable, *normal)
    figures = {what: (one.figure, one.n, one.kept) for what, one in found.items()}
    assert figures == {
        "recall": (1.0, 1, True),
        "ROME, normal: exact match": (0.75, 4, False),
        "ROME, normal: worst perplexity ratio": (pytest.approx(1.02), 4, True),
        "HardCF: cases": (3, 3, False),
        "ROME, HardCF: share above 2x": (pytest.approx(2 / 3), 3, False),
        "ROME, HardCF: median ratio": (pytest.approx(30.0), 3, True),
        "ROME, HardCF: worst ratio": (pytest.approx(526.0), 3, True),
        "C-ROME, HardCF: worst ratio": (pytest.approx(1.03), 4, True),
        "C-ROME, HardCF: exact match, bare": (0.25, 4, False),
        "C-ROME, HardCF: exact match, prefixed": (1.0, 4, True),
    }


def test_the_share_of_hardedit_that_collapses_is_apart_from_the_mined_cases(measured):
    mined = [builders.record("rome", "hard", i, ratio=30.0) for i in range(2)]
    written = [builders.record("rome", "hard", 90 + i, ratio=ratio) for i, ratio in enumerate((3.0, 2.0, 9.0, None))]
    found = measured(*mined, *(builders.renamed(record, stream="hardedit") for record in written))
    one = found["ROME, HardEdit: share above 2x"]
    assert (one.figure, one.n, one.kept) == (0.5, 4, False), "2x is not above it, and what has no result does not count"
    assert found["HardCF: cases"].figure == 2


def test_without_hard_cases_nothing_is_said_of_them_and_a_broken_case_breaks_the_promise(measured):
    failed = builders.record("rome", "normal", 1, failure=builders.Failure("editor", "no such layer"))
    found = measured(builders.record("rome", "normal", 0), failed)
    assert not [what for what in found if "HardCF" in what]
    assert not found["ROME, normal: worst perplexity ratio"].kept
    assert found["ROME, normal: exact match"].figure == 0.5


def test_recall_counts_exact_answers_apart_from_held_out_ones(monkeypatch):
    path = shipped("data") / "pocket-world" / "recall.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    middle = [row for row in rows if not row["subject_first"]]
    handle = tiny.handle()
    answers = {tuple(handle.ids(row["prompt"])): handle.target_ids(row["answer"]) for row in middle}
    wrong = {tuple(handle.ids(row["prompt"])) for row in middle if row["held_out"]}

    def said(handle, prompts, lengths):
        found = [answers[tuple(prompt)] for prompt in prompts]
        assert lengths == [len(answer) for answer in found]
        return [[-1] if tuple(prompt) in wrong else answer for prompt, answer in zip(prompts, found, strict=True)]

    monkeypatch.setattr(scoring, "continuations", said)
    trained, held_out = pocket_promises.recall(handle)
    assert (trained.figure, trained.n) == (1.0, sum(not row["held_out"] for row in middle))
    assert (held_out.figure, held_out.n) == (0.0, len(middle) - trained.n)
    assert trained.kept
    assert not held_out.kept
