"""Numbers that are none: in weights, in perplexities, in half precision, in an unedited model, in a report."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.system.commands import cases, given, report

OVERFLOWS = '''

class Overflows(Nudge):
    """Past 65,504 there is no number in float16."""

    def edit(self, requests, carry=None):
        edit = super().edit(requests)
        edit.deltas[0].left.fill_(300.0)
        edit.deltas[0].right.fill_(300.0)
        return edit
'''


def only_numbers(text: str) -> object:
    """JSON as strict parsers read it."""

    def refuse(name: str) -> object:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_kept_of_broken_models_is_valid_json(paths, command, tmp_path):
    done = command("run", *given(paths, "WritesNan", "Explodes", out="out"))
    assert done.code == 10
    body = only_numbers((tmp_path / "out" / "report.json").read_text())
    assert body["verdict"] == "COLLAPSE"
    only_numbers((tmp_path / "out" / "plan.json").read_text())
    with sqlite3.connect(tmp_path / "out" / "store.sqlite") as store:
        texts = [row[0] for row in store.execute("SELECT value FROM facts UNION ALL SELECT record FROM cases")]
    assert len(texts) > 8
    for text in texts:
        only_numbers(text)
    printed = command("report", tmp_path / "out", "--format", "json")
    assert only_numbers(printed.out) == body


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_unedited_model_that_gives_no_numbers_is_an_error_and_never_a_pass(paths, command, tmp_path, value):
    model = AutoModelForCausalLM.from_pretrained(paths["model"])
    with torch.no_grad():
        model.get_parameter("transformer.ln_f.weight")[0] = value
    model.save_pretrained(paths["model"])
    done = command("run", *given(paths, "Nudge", out="out"))
    assert done.code == 13
    body = report("out")
    assert body["verdict"] == "ERROR"
    assert "PASS" not in {case["verdict"] for case in cases(body).values()}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_weight_past_the_range_of_float16_is_a_collapse_there_and_nowhere_else(paths, command, tmp_path, dtype):
    tiny.folder(tmp_path / "half", dtype=dtype, knows=True)
    nudge = Path(paths["nudge"])
    nudge.write_text(nudge.read_text() + OVERFLOWS)
    done = command("run", *given({**paths, "model": str(tmp_path / "half")}, "Overflows", out="out", dtype=dtype))
    found = cases(report("out")).values()
    assert {case["after"]["weights_finite"]["value"] for case in found} == {0.0 if dtype == "float16" else 1.0}
    assert all(case["restored"] for case in found)
    assert done.code != 0
    if dtype == "float16":
        assert {case["verdict"] for case in found} == {"COLLAPSE"}
        assert done.code == 10


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", 4, "texts.jsonl:10: field 'text' is empty"),
        (" ", 4, "texts.jsonl:10: field 'text' is empty"),
        ("x", 13, "text 10 of 10 has 1 token(s)"),
        ("word " * 600, 13, "text 10 of 10 has 1801 token(s)"),
    ],
    ids=["empty", "space", "one token", "longer than the context"],
)
def test_a_text_that_has_no_perplexity_is_refused_by_name(paths, command, tmp_path, text, code, said):
    texts = tmp_path / "texts.jsonl"
    texts.write_text(texts.read_text() + json.dumps({"id": "odd", "text": text}) + "\n")
    done = command("run", *given(paths, "Nudge", out="out"))
    assert done.code == code
    assert said in " ".join((done.out + done.err).split())
    assert "PASS" not in done.out
