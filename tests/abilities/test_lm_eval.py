"""Tasks of lm-evaluation-harness on a model in memory: a local task on a local file, no network."""

from __future__ import annotations

import json
import math
import random
import warnings
from pathlib import Path

import pytest
import torch

from editsafety.abilities import lm_eval as room
from editsafety.abilities.lm_eval import harness, measurements
from editsafety.edits.session import EditSession
from editsafety.errors import UsageError
from editsafety.model.handle import ModelHandle
from tests import tiny

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
metadata: {{version: 1}}
{rest}
"""
CHOICE = """\
output_type: multiple_choice
doc_to_choice: "{{options}}"
doc_to_target: "{{gold}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true},
              {metric: acc_norm, aggregation: mean, higher_is_better: true}]
"""
FREE = """\
output_type: generate_until
doc_to_target: "{{options[gold]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
PLACES = ["Kelmar", "Ostrin", "Dorvan"]


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the tasks `tiny_choice` and `tiny_free` of seven items."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("lm_eval", reason="lm-eval is an extra and not installed here")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"question": f"Toren plays{' and plays' * i} in", "options": PLACES, "gold": i % 3} for i in range(7)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, rest in (("tiny_choice", CHOICE), ("tiny_free", FREE)):
        text = TASK.format(name=name, rows=tmp_path / "rows.jsonl", rest=rest)
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


@pytest.fixture(autouse=True)
def _of_others() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lm-eval's and its libraries' own
        yield


def run(handle: ModelHandle, tasks: Path, *names: str, **more: object) -> dict[str, object]:
    found = harness(handle, names or ("tiny_choice",), include_path=tasks, offline=True, **more)  # type: ignore[arg-type]
    return {one.name: one for one in found}


def test_a_task_gives_the_scores_that_the_likelihoods_give(tasks: Path) -> None:
    handle = tiny.handle("gpt2")
    found = run(handle, tasks)
    expected = []
    for i in range(7):
        prompt = handle.ids(f"Toren plays{' and plays' * i} in")
        sums = []
        for place in PLACES:
            target = handle.ids(f" {place}", special=False)
            logs = torch.log_softmax(handle.logits(handle.batch([[*prompt, *target]]))[0].detach(), -1)
            sums.append(sum(float(logs[len(prompt) - 1 + k, token]) for k, token in enumerate(target)))
        expected.append(float(sums.index(max(sums)) == i % 3))
    acc = found["tiny_choice_acc"]
    assert acc.items == tuple(expected)
    assert (acc.n, acc.unit) == (7, "rate")
    assert acc.stderr is not None
    assert list(found) == ["tiny_choice_acc", "tiny_choice_acc_norm"]
    assert run(handle, tasks, limit=3)["tiny_choice_acc"].n == 3


def test_an_edited_model_is_asked_anew_and_nothing_is_left_behind(tasks: Path) -> None:
    handle = tiny.handle("gpt2", tied=True)
    before = run(handle, tasks, "tiny_choice", "tiny_free")
    padding, state = handle.tokenizer.padding_side, (random.getstate(), torch.get_rng_state())
    with EditSession(handle):  # raises when anything of the model is changed when it ends
        with torch.no_grad():
            weight = handle.model.get_parameter(handle.mlp_out(1).parameter)
            kept = weight.clone()
            weight.mul_(-40)
        during = run(handle, tasks, "tiny_choice", "tiny_free")
        with torch.no_grad():
            weight.copy_(kept)
    assert during["tiny_choice_acc_norm"].items != before["tiny_choice_acc_norm"].items
    assert run(handle, tasks, "tiny_choice", "tiny_free") == before
    assert handle.tokenizer.padding_side == padding
    assert random.getstate() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])
    assert "tie_weights" not in vars(handle.model)
    assert not handle.model._forward_hooks
    assert handle.fingerprint() == handle.identity


def test_a_model_that_is_not_finite_is_a_finding_and_not_a_score(tasks: Path) -> None:
    handle = tiny.handle("gpt2")
    with torch.no_grad():
        handle.model.get_parameter(handle.mlp_out(1).parameter)[0, 0] = math.nan
    found = run(handle, tasks, "tiny_choice", "tiny_free")
    assert all(one.broken and one.value is None for one in found.values())


@pytest.mark.slow
def test_an_unknown_task_names_those_that_are_like_it(tasks: Path) -> None:
    with pytest.raises(UsageError, match=r"knows no task 'tiny_choise'\. Close to it: tiny_choice"):
        run(tiny.handle("gpt2"), tasks, "tiny_choise")
    with pytest.raises(UsageError, match="no task"):
        harness(tiny.handle("gpt2"), ())


def test_without_lm_eval_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(room, "import_module", absent)
    with pytest.raises(UsageError, match=r"pip install 'editsafety\[lmeval\]'"):
        harness(tiny.handle("gpt2"), ["piqa"])


@pytest.mark.parametrize("value", [999, None, math.nan, math.inf, "N/A", " ", True])
def test_what_means_that_nothing_was_computed_is_a_reason_and_no_score(value: object) -> None:
    found = {
        "results": {"t": {"alias": "t", "sample_len": 2, "acc,none": value, "acc_stderr,none": "N/A"}},
        "n-samples": {"t": {"original": 9, "effective": 2}},
    }
    (one,) = measurements(found)
    assert (one.name, one.value, one.n, one.broken) == ("t_acc", None, 2, False)
    assert "lm-eval" in (one.reason or "")


def test_figures_that_are_no_mean_of_items_stand_alone() -> None:
    """Corpus-level metrics, groups of tasks, and filters."""
    samples = [{"filter": "strict", "em": 1.0, "f1": (1, 2)}, {"filter": "loose", "em": 1.0, "f1": (1, 2)}]
    figures = {"alias": "t", "em,strict": 1.0, "em,loose": 0.5, "f1,strict": 0.25, "word_perplexity,none": 31.5}
    found = {
        "results": {"t": figures, "group": {"alias": "g", "acc,none": 0.5, "sample_len": 20}},
        "n-samples": {"t": {"original": 1, "effective": 1}},
        "samples": {"t": samples},
    }  # fmt: skip
    rows = {one.name: one for one in measurements(found)}
    assert rows["t_em_strict"].items == (1.0,)
    assert (rows["t_em_loose"].value, rows["t_em_loose"].items) == (0.5, ())  # its one item does not average to it
    assert (rows["t_f1_strict"].value, rows["t_f1_strict"].stderr) == (0.25, None)
    assert (rows["t_word_perplexity"].value, rows["t_word_perplexity"].unit) == (31.5, "word_perplexity")
    assert (rows["group_acc"].value, rows["group_acc"].n) == (0.5, 20)
